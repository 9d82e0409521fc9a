"""The line between the arbiter and one child: words both ways, and an end that tells of death.

One socket pair stands for a READY pipe, a control pipe and a lifeline: the arbiter's end is
closed in every child, so end-of-file means that the arbiter is gone, even by SIGKILL. A
message is a line: a word, a space, and a value as JSON, so that a traceback fits in one.
Routine wishes go this way and not by signal, which could cancel a query in a C library.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
from collections import deque
from collections.abc import Sequence

from minicorn.record import Value
from minicorn.system import rights
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# What the arbiter says to a worker or a template
RETIRE = "retire"  # give away what you can, finish the rest, and end
PART = "part"  # the server stops soon: let each reply be the last
SEAL = "seal"  # the server stops: give nothing into the hand-off queue from now on
DRAIN = "drain"  # all are sealed: serve what waits in the queues, finish, and end
REOPEN = "reopen"  # open the log files again; to the logger as well
ORDER = "order"  # fork a process: which, and descriptors come along (see `order`)
HOLD = "hold"  # your code is out of date: answer nothing more, but keep who asks
EXCUSE = "excuse"  # the new code takes long: tell those who are kept
# What a worker or a template says
READY = "ready"  # I serve, or can fork
FAILED = "failed"  # I could not boot, or fork what was ordered: why
BORN = "born"  # I am what was ordered; who that is, the kernel says
SEALED = "sealed"  # I give nothing into the hand-off queue any more
RECYCLE = "recycle"  # I wish to be replaced: why
DEBUGGING = "debugging"  # somebody is in a debugger here: no deadline holds any more
IMPORTED = "imported"  # what I have imported; of that, the arbiter tells the watcher what to watch
REFUSED = "refused"  # the template of --reload: modules that I leave to the workers, with the reasons
# What other children say
RAN = "ran"  # the hooks process: the number of a call that has run, and whether all went well
CHANGED = "changed"  # the watcher: these files, each with what happened to it


_ROOM = rights.room(rights.MOST) + rights.CREDENTIALS


class Message(Value):
    """A word, and what belongs to it."""

    word: str
    value: Any = ""  # as JSON keeps it: a tuple comes as a list


class Channel:
    """One end of a line. Reading never blocks; `send` blocks only where the peer has stopped reading."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = self._unsent = b""
        self.descriptors: deque[int] = deque()  # that have come along with messages, in their order
        self.sender = 0  # the pid of who has sent the last of them, if that is asked for
        self.fd = end.fileno()

    def send(self, word: str, value: object = "", descriptors: Sequence[int] = ()) -> bool:
        """Say `word`; whether it was taken. A peer that has gone is no error: its end is told elsewhere.

        What in `value` JSON does not know is told as its text. A long message may have room for its beginning alone:
        the rest of it goes before the next."""
        data, sent = self._unsent + f"{word} {json.dumps(value, default=str)}\n".encode(), 0
        try:
            sent = self._socket.sendmsg([data], rights.pack(descriptors))
            while sent < len(data):
                sent += self._socket.send(data[sent:])
        except OSError:  # EPIPE: the reaper knows; EAGAIN on the arbiter's side: the worker is being judged late
            if not sent:
                return False
        self._unsent = data[sent:]
        return True

    def receive(self) -> tuple[list[Message], bool]:
        """The messages that have come, and whether the peer is still there."""
        alive = True
        try:
            while data := self._take(socket.MSG_DONTWAIT):
                self._received += data
            alive = False
        except BlockingIOError:
            pass
        except OSError:
            alive = False
        return self._messages(), alive

    def wait(self) -> tuple[list[Message], bool]:
        """Wait until something has come, then as `receive`; for a child that has nothing else to do."""
        try:
            data = self._take(0)
        except OSError:
            data = b""
        self._received += data
        return self._messages(), bool(data)

    def _take(self, flags: int) -> bytes:
        data, ancillary, _, _ = self._socket.recvmsg(65536, _ROOM, flags | rights.CLOEXEC)
        self.descriptors.extend(rights.unpack(ancillary))
        self.sender = rights.find_sender(ancillary) or self.sender
        return data

    def _messages(self) -> list[Message]:
        *lines, self._received = self._received.split(b"\n")
        parts = [line.decode().partition(" ") for line in lines]
        return [Message(word, json.loads(value)) for word, _, value in parts]

    def ask_sender(self) -> None:
        """Have the kernel say in `sender`, from now on, who sends."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def alert(self, wanted: bool) -> None:
        """Have the kernel send this process SIGIO when something comes or the peer goes, or no more of that."""
        fcntl.fcntl(self.fd, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)

    @property
    def is_severed(self) -> bool:
        """Whether the peer has gone; nothing is read."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))

    def open_gate(self) -> None:
        """Let a child go on that waits in `pass_gate`."""
        try:
            self._socket.send(b"\n")
        except OSError:
            pass  # it has gone

    def pass_gate(self) -> bool:
        """Wait until the peer lets us go on; whether it has, and is not gone."""
        try:
            return bool(self._socket.recv(1))
        except OSError:
            return False

    def finish(self) -> None:
        """Say that nothing more comes: the peer sees the end, and we shall still see its own."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end of the line."""
        self._socket.close()


def adopt(fd: int) -> Channel:
    """The arbiter's end of the line to a worker that its image before has forked."""
    return Channel(rights.as_socket(fd))


def pair() -> tuple[Channel, Channel]:
    """Make a line: the arbiter's end, whose sends never block, and the child's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Channel(ours), Channel(theirs)
