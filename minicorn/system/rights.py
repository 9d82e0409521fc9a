"""What travels with a message over a Unix socket (unix(7)): descriptors (SCM_RIGHTS), and who sends it.

Not by `socket.send_fds` and `recv_fds`: they drop flags and addresses, up to CPython 3.13.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence

# The kernel passes up to 253 with a message
MOST = 253
# Descriptors that come are not for programs that are executed here
CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# The standard library's own class, whatever an application puts in its place (gevent's sockets wait by themselves)
Socket = socket.socket
# Room for who sends: a pid, a user and a group
CREDENTIALS = socket.CMSG_SPACE(3 * array.array("i").itemsize)
_SIZE = array.array("i").itemsize


def room(count: int) -> int:
    """The size of ancillary data with so many descriptors."""
    return socket.CMSG_SPACE(count * _SIZE)


def pack(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """The ancillary data of a message that `fds` go with, if any."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []


def unpack(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that have come with a message, in their order."""
    found = array.array("i")
    for _, kind, payload in ancillary:
        if kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) - len(payload) % _SIZE])
    return found.tolist()


def find_sender(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The pid of who has sent the message (SCM_CREDENTIALS), which only root can make up; 0 if it was not asked for."""
    return next((array.array("i", payload)[0] for _, kind, payload in ancillary if kind != socket.SCM_RIGHTS), 0)


def as_socket(fd: int) -> socket.socket:
    """A socket object for a descriptor that has come, blocking or not as that is: the default timeout is the
    application's to set, for sockets of its own."""
    blocking = os.get_blocking(fd)
    sock = Socket(fileno=fd)
    sock.setblocking(blocking)
    return sock
