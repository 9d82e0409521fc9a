"""Descriptors that travel with a message over a Unix socket (SCM_RIGHTS, unix(7)).

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
    for _, _, payload in ancillary:
        found.frombytes(payload[: len(payload) - len(payload) % _SIZE])
    return found.tolist()


def as_socket(fd: int) -> socket.socket:
    """A socket object for a descriptor that has come, blocking or not as that is: the default timeout is the
    application's to set, for sockets of its own."""
    blocking = os.get_blocking(fd)
    sock = Socket(fileno=fd)
    sock.setblocking(blocking)
    return sock
