"""What is new: clients that come by the listeners, and connections that siblings have put into the queue.

Whoever shares these waits for them exclusively: the kernel wakes one process for each, so a wake-up is a token.
Hence nothing but the wait of an idle loop may have it; whoever stops waiting looks once more (`take_new`), and
who waits looks at each tick, for it can be lost on a process that has just stopped. At the limit of connections
or of descriptors the loop makes room; where it cannot, we stop, and what is new waits for a sibling or our next tick.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial

from minicorn.logs.logger import LOGGER
from minicorn.serving.batchsize import BatchSize
from minicorn.serving.connection import Connection
from minicorn.serving.handoff import Parcel
from minicorn.serving.pace import Pace
from minicorn.serving.reception import Reception
from minicorn.serving.seat import Seat
from minicorn.system import poller
from minicorn.system.listeners import Listener

# The system has no descriptor or no memory for a further connection
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Intake:
    """Takes in new connections for one process. It waits for none before `start`."""

    def __init__(
        self,
        poller: poller.Poller,
        reception: Reception,
        seat: Seat,
        pace: Pace,
        has_room: Callable[[], bool],
        make_room: Callable[[], bool],
        admit: Callable[[Connection, float, Parcel | None], None],
    ) -> None:
        """`has_room`: for one connection more, made where it must be; `make_room`: the system had none.

        `admit` is given each connection, the time, and what came with it where a sibling had it.
        """
        self._poller = poller
        self._reception = reception
        self._handoff = seat.handoff
        self._idle_map = seat.idle_map
        self._pace = pace
        self._has_room = has_room
        self._make_room = make_room
        self._admit = admit
        self._batch = BatchSize()
        self._listeners: list[Listener] = []
        self._origins: list[Listener] = []  # by number, for connections that are handed over
        self._waiting = False
        # What to call when a descriptor is readable
        self.callbacks: dict[int, Callable[[], object]] = {}

    def listen(self, listeners: list[Listener]) -> None:
        """Take from `listeners`, and from the queue."""
        self._listeners = self._origins = listeners
        self.callbacks = {listener.fd: partial(self._accept_batch, listener) for listener in listeners}
        if self._handoff is not None:
            self.callbacks[self._handoff.fd] = self._take

    def start(self) -> None:
        """Wait for what is new, if there is anything left to wait for."""
        if self.callbacks and not self._waiting:
            self._waiting = True
            for fd in self.callbacks:
                self._poller.register(fd, poller.READ_EXCLUSIVE)

    def stop(self) -> None:
        """Leave what is new to siblings."""
        if self._waiting:
            self._waiting = False
            for fd in self.callbacks:
                self._poller.unregister(fd)

    def close(self) -> None:
        """Stop for good, and close this process's copies of the listeners; the queue can be taken from still."""
        self.stop()
        self.callbacks = {}
        self.abandon()

    def abandon(self) -> None:
        """Close the listeners alone: in a forked child the poller is the parent's."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def take_new(self) -> bool:
        """Take one connection from each place where some may wait; whether there was any."""
        return any([self._accept(listener) for listener in self._listeners] + [self._take()])

    def _accept_batch(self, listener: Listener) -> None:
        """Accept those who have come, as far as we can guess; one alone where siblings wait for work."""
        wanted = self._batch.guess
        if self._handoff is not None and wanted > 1:
            wanted = 1 if self._reception.secure or self._idle_map.count() else min(wanted, self._pace.share)
        came = 0
        while came < wanted and self._accept(listener):
            came += 1
        self._batch.note(came, wanted)

    def _accept(self, listener: Listener) -> bool:
        if not self._has_room():
            self.stop()
            return False
        try:
            sock, peer = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                LOGGER.warning("cannot accept a connection: %s", error.strerror)
                if not self._make_room():
                    self.stop()
            return False  # or ECONNABORTED: the client was faster
        now = time.monotonic()
        self._admit(self._reception.welcome(sock, peer, listener, now), now, None)
        if self._reception.secure and self._waiting and self._handoff is not None:
            # This client stays with us. Whoever registers last is woken last: the next client is a sibling's
            self._poller.unregister(listener.fd)
            self._poller.register(listener.fd, poller.READ_EXCLUSIVE)
        return True

    def _take(self) -> bool:
        """Take over the connection that has waited longest in the queue; whether there was one."""
        if self._handoff is None:
            return False
        try:
            if not self._has_room():
                self.stop()
                return False
            taken = self._handoff.take()
        except OSError:  # EMFILE: it stays in the queue, for a sibling or for our next tick
            self.stop()
            return False
        if taken is None:
            return False
        sock, parcel = taken  # non-blocking already: that belongs to the open file
        now = time.monotonic()
        origin = self._origins[parcel.listener]
        self._admit(self._reception.take_over(sock, parcel, origin, now), now, parcel)
        return True
