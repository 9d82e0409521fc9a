"""The event loop: connections, their deadlines, and who has which: we or a sibling. No WSGI.

`step` polls, reads, parses, writes and keeps deadlines, and calls `dispatch` for each complete
request. Two callers run it: the thread that serves, with the application as `dispatch`, and
the helper while that thread is in the application, with "give it to another worker".
One lock, the helper's, says who may touch what is here. What becomes of connections that are not
in the middle of something is a matter of our `stance`, of which there are four.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from minicorn.config.settings import Settings
from minicorn.errors import ClientGone, ProtocolError
from minicorn.http.reply import http_date
from minicorn.logs.explanation import explain
from minicorn.logs.logger import LOGGER
from minicorn.serving import room
from minicorn.serving.connection import Connection
from minicorn.serving.deadlines import TICK, Deadlines
from minicorn.serving.handoff import Parcel
from minicorn.serving.holdings import Holdings
from minicorn.serving.intake import Intake
from minicorn.serving.pace import SLOW, Pace
from minicorn.serving.reception import Reception
from minicorn.serving.seat import Seat
from minicorn.serving.stance import CLOSING, HOLDING, LEAVING, SERVING
from minicorn.serving.state import APP, CLOSED, HEAD, IDLE, KEPT, REPLY
from minicorn.system import poller
from minicorn.system.listeners import Listener

Dispatch = Callable[[Connection], None]

# An idle worker promises to be back after its next tick and this much more
IDLE_SLACK = 10.0
_WRITE = poller.WRITE


class Loop:
    """The connections of one process, and how they move."""

    def __init__(self, settings: Settings, reception: Reception, seat: Seat) -> None:
        self._page = seat.page
        self._slot = seat.slot
        self._idle_map = seat.idle_map
        self._handoff = seat.handoff
        self._poller = poller.Poller()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._urgent: set[int] = set()
        # In APP, or lagging: each once, first come first served. Who has gone meanwhile is passed over
        self.turns: deque[Connection] = deque()
        self.deadlines: Deadlines[Connection] = Deadlines()
        self._refused = False  # the queue has been full in this turn of the helper's
        self._next_tick = 0.0
        self._set_date(time.monotonic())
        # For how long after a tick or a request nobody need hear of us
        self.idle_patience = 2 * TICK + max(settings.timeout, IDLE_SLACK) if settings.timeout else float("inf")
        self._capacity = room.find_capacity(settings.worker_connections)
        self._holdings: Holdings[Connection] = Holdings()
        self._most_held = settings.max_buffered_size or float("inf")
        self.connections: dict[int, Connection] = {}
        self.on_refusal: Callable[[Connection, int, float], object] = lambda connection, status, now: None
        self.took = 0.0  # seconds that the last request was in the application
        self._pace = Pace()
        self.intake = Intake(self._poller, reception, seat, self._pace, self._has_room, self._make_room, self._admit)
        self.stance = SERVING  # changed by `Custody`

    def watch(self, fd: int, callback: Callable[[], object], urgent: bool = False) -> None:
        """Call `callback` when `fd` is readable; `urgent`: even inside the application, by the helper."""
        self._callbacks[fd] = callback
        if urgent:
            self._urgent.add(fd)
        self._poller.register(fd, poller.READ)

    def unwatch(self, fd: int) -> None:
        """Forget what `watch` was told."""
        del self._callbacks[fd]
        self._urgent.discard(fd)
        self._poller.unregister(fd)

    def listen(self, listeners: list[Listener]) -> None:
        """Take connections from `listeners` and from the queue."""
        self.intake.listen(listeners)
        self._callbacks.update(self.intake.callbacks)
        if self.stance is not HOLDING:
            self.intake.start()
        self._page.promise(time.monotonic() + self.idle_patience)

    def abandon(self) -> None:
        """In a forked child: close our copies, and leave the connections to the parent."""
        for connection in self.connections.values():
            connection.sock.close()
        self.connections.clear()
        self.intake.abandon()
        self._poller.close()

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self.connections.values()):
            self.drop(connection)
        self._poller.close()

    # The turn

    def step(self, timeout: float, dispatch: Dispatch, taking: bool = True) -> None:
        """One turn: wait up to `timeout` seconds, do what is due, `dispatch` each whole request once.

        `taking`: what is new as well, which a busy worker leaves to others.
        """
        if self.turns:
            timeout = 0
        if timeout:
            self._idle_map.marks[self._slot] = True
            try:
                events = self._poller.poll(timeout)
            except Exception as error:
                events = _outlive(error)
            self._idle_map.marks[self._slot] = False
        else:
            events = self._poller.poll(0)
        now = time.monotonic()
        if now >= self._date_over:
            self._set_date(now)
        others = []
        connections, turns = self.connections, self.turns
        sharing = taking and self._handoff is not None
        for fd, event in events:
            connection = connections.get(fd)
            if connection is None:
                others.append(fd)
            elif event & _WRITE and connection.interest == _WRITE:
                self._flush(connection, now)
            elif connection.state is IDLE:
                self._receive(connection, now)
            elif connection.state is KEPT:
                self.lose(connection, ClientGone("it did not wait"))
            elif not (connection.state is APP or connection.lags):
                self._receive(connection, now)
        if sharing and turns and (self.took > SLOW or self.stance is not SERVING):
            # What comes next on these connections would wait as long as they have waited now; and who
            # leaves has a successor
            self._spread(keep=0)
        for fd in others:
            if (taking or fd in self._urgent) and fd in self._callbacks:
                self._callbacks[fd]()
        if now >= self._next_tick:
            self._tick(now, taking)
        if sharing and len(turns) > 1:
            self._spread(keep=self._pace.share)
        # One request a turn for each connection, however many it has sent
        for _ in range(len(turns)):
            if not turns:
                break  # the helper has given away those that waited for this thread
            connection = turns.popleft()
            if connection.state is not APP and not (connection.state is HEAD and self._advance(connection, now)):
                continue
            if connection.holds:
                self._holdings.forget(connection)  # the application's now
            try:
                dispatch(connection)
            except Exception:
                self._own_up(connection)
            if sharing:
                self._pace.note(self.took)
            if taking and self.took > SLOW:
                break  # see first who has become idle, and can have the others

    def help(self) -> None:
        """The helper's turn: what is complete goes to whoever is free, or waits."""
        self._refused = False
        self.step(0, self._give_or_keep, taking=False)

    def _tick(self, now: float, taking: bool) -> None:
        self._next_tick = now + TICK
        if taking:
            self._page.promise(now + self.idle_patience)
        for connection in self.deadlines.due(now) if self.stance is not HOLDING else ():
            if not connection.lags:  # what it has sent waits for us, and has not been looked at
                self._attempt(connection, partial(connection.expire, now), now)
        if taking and self.stance is SERVING:
            self.intake.start()
            self.intake.take_new()

    # One connection

    def _admit(self, connection: Connection, now: float, parcel: Parcel | None) -> None:
        """A client has come, or been given away as `parcel`; its request has often come with it."""
        if parcel is None:
            self._page.accepted()
        else:
            self._page.taken()
        self.connections[connection.fd] = connection
        self._page.holds(len(self.connections))
        self._receive(connection, now, parcel)

    def _receive(self, connection: Connection, now: float, parcel: Parcel | None = None) -> None:
        """Read what has come, or take up what came to the worker that has given it away as `parcel`."""
        try:
            if connection.receive(now) if parcel is None else connection.resume(parcel, now):
                self.turns.append(connection)
            else:
                self.poll_for(connection)
                self.deadlines.note(connection)
            if connection.holds:
                self._weigh(connection)
                self._relieve(now)
        except ProtocolError as error:
            self.refuse(connection, error, now)
        except ClientGone as gone:
            self.lose(connection, gone)
        except Exception:
            self._own_up(connection)

    def _advance(self, connection: Connection, now: float) -> bool:
        """Parse a further request from what a connection has sent already."""
        try:
            complete = connection.advance(now)
            self.deadlines.note(connection)
            if not complete:
                self._weigh(connection)
            return complete
        except ProtocolError as error:
            self.refuse(connection, error, now)
        except ClientGone as gone:
            self.lose(connection, gone)
        except Exception:
            self._own_up(connection)
        return False

    def refuse(self, connection: Connection, error: ProtocolError, now: float) -> None:
        """Answer with an error, and close."""
        LOGGER.info("%s: refused with %d: %s", connection.peer or connection.listener.name, error.status, error.detail)
        self._page.refused(connection.received)
        self._attempt(connection, partial(self._turn_away, connection, error.status, now), now)

    def _turn_away(self, connection: Connection, status: int, now: float) -> None:
        self.on_refusal(connection, status, now)
        connection.refuse(status, self.date, now)

    def _weigh(self, connection: Connection) -> None:
        """See what the connection holds in memory."""
        size = connection.held
        connection.holds = size > 0
        self._holdings.note(connection, size)

    def _relieve(self, now: float) -> None:
        """Where clients make us hold too much, large bodies go to files; else the slowest go: with a word,
        unless a reply has begun."""
        while self._holdings.total > self._most_held:
            slowest = self._holdings.slowest()
            self._holdings.forget(slowest)
            if slowest.spill():
                self._weigh(slowest)
                continue
            if slowest.state is REPLY:
                self.lose(slowest, ClientGone("too much waits for clients, and it is the slowest"), reset=True)
            else:
                self.refuse(slowest, ProtocolError(503, "too much waits in memory, and it is the slowest"), now)

    def _flush(self, connection: Connection, now: float) -> None:
        if connection.state is APP:
            connection.flush_ahead()
            self.poll_for(connection)
        else:
            self._attempt(connection, partial(connection.flush, now), now)

    def finish(self, connection: Connection, keep_alive: bool, bounded: bool, now: float) -> None:
        """The application is done with the connection; a `bounded` reply tells its own end."""
        try:
            connection.finish(keep_alive, now, bounded=bounded)
        except ClientGone as gone:
            self.lose(connection, gone)
        else:
            self._follow(connection)
            if connection.holds:
                self._relieve(now)

    def _attempt(self, connection: Connection, act: Callable[[], None], now: float) -> None:
        """Do `act`, then follow."""
        try:
            act()
        except ProtocolError as error:
            self.refuse(connection, error, now)
        except ClientGone as gone:
            self.lose(connection, gone)
        except Exception:
            self._own_up(connection)
        else:
            self._follow(connection)

    def _follow(self, connection: Connection) -> None:
        """Bring poller, deadlines and turns to what the connection wants now."""
        if connection.state is IDLE:
            if self.stance is not SERVING and self._part(connection):
                return
        elif connection.state is CLOSED:
            self.drop(connection)
            return
        elif connection.lags:
            self.turns.append(connection)
        if connection.interest != connection.polled:
            self.poll_for(connection)
        self.deadlines.note(connection)
        if connection.holds:
            self._weigh(connection)

    def poll_for(self, connection: Connection) -> None:
        """Poll for what the connection is interested in.

        Not before there is something to wait for: a connection of one request that has come at once needs none.
        """
        if connection.polled is None:
            self._poller.register(connection.fd, connection.interest)
        elif connection.interest != connection.polled:
            self._poller.modify(connection.fd, connection.interest)
        connection.polled = connection.interest

    def lose(self, connection: Connection, gone: ClientGone, reset: bool = False) -> None:
        """The client has gone, or must go."""
        LOGGER.debug("%r has gone: %s", connection, gone)
        self.drop(connection, reset)

    def _own_up(self, connection: Connection) -> None:
        """A defect of ours, or of what is called beside the application: it costs one client, and not them all."""
        LOGGER.exception("%r is closed: minicorn has a defect, please report it", connection)
        if self.connections.get(connection.fd) is connection:
            self.drop(connection)

    def drop(self, connection: Connection, reset: bool = False) -> None:
        """Close the connection, without a word."""
        self._forget(connection)
        connection.close(reset or connection.is_cut)

    def _forget(self, connection: Connection) -> None:
        # Before it is closed: a child of the application's may hold the socket, and its epoll entry with it
        try:
            if connection.polled is not None:
                self._poller.unregister(connection.fd)
        except OSError:
            pass  # ssl has closed it, for a client that was gone before its handshake
        del self.connections[connection.fd]
        self._page.holds(len(self.connections))
        self.deadlines.forget(connection)
        if connection.holds:
            self._holdings.forget(connection)

    # Making room

    def _has_room(self) -> bool:
        return len(self.connections) < self._capacity or self._make_room()

    def _make_room(self) -> bool:
        """Let somebody go for others; whether there was one."""
        chosen = room.choose(self.connections.values(), time.monotonic())
        for connection in chosen:
            self.lose(connection, ClientGone("others want its place"))
        return bool(chosen)

    # Letting go

    def _spread(self, keep: int) -> None:
        """What we cannot serve now goes to siblings that wait for work, but for `keep` of it."""
        surplus = len(self.turns) - keep
        if surplus > 0:
            for _ in range(min(surplus, self._idle_map.count())):
                if not self.give(self.turns[-1]):
                    return
                self.turns.pop()

    def _give_or_keep(self, connection: Connection) -> None:
        if self._refused or not self.give(connection):
            self.turns.append(connection)

    def give(self, connection: Connection) -> bool:
        """Give the connection away; whether another worker will have it."""
        if self._handoff is None or self.stance is CLOSING:
            return False
        if self.stance is HOLDING:
            connection.grant(time.monotonic())
        parcel = connection.parcel()
        if parcel is None:
            return False
        if not self._handoff.give(connection.fd, parcel):
            self._refused = True
            return False
        self._page.given()
        self._forget(connection)
        connection.release()
        return True

    def rest(self, connection: Connection) -> None:
        """Leave the connection alone, and wait for nothing but its end."""
        connection.rest()
        self.poll_for(connection)

    def _part(self, connection: Connection) -> bool:
        """Do with a connection between requests what our stance has; whether it needs no more of our attention."""
        if self.stance is LEAVING:
            return self.give(connection)
        if self.stance is HOLDING:
            self.rest(connection)
        else:
            self.drop(connection)
        return True

    def _set_date(self, now: float) -> None:
        seconds = time.time()
        self.date = http_date(seconds)  # the Date field of what is sent in this turn
        self._date_over = now + 1 - seconds % 1


def _outlive(error: Exception) -> list[tuple[int, int]]:
    """What is ready after a wait that `error` has ended: nothing, where a signal's handler of the application's has
    raised it, such as that of an alarm which was meant for a request."""
    frames = error.__traceback__
    if frames is None or frames.tb_next is None:
        raise error  # of the wait itself
    LOGGER.error("a signal handler of the application raised between requests\n%s", explain(error))
    return []
