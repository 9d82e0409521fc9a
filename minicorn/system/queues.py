"""Accept queues, as the Linux kernel tells of them (sock_diag(7)): how many connections wait to
be accepted, and how many a listening socket can hold. Elsewhere nothing is known.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/unix_diag.h
_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_INET_REQUEST = struct.Struct("=BBBxI48x")
_UNIX_REQUEST = struct.Struct("=BBHIII8x")
_LISTENING = 1 << 10  # TCP_LISTEN
_INET_FIGURES, _INET_FIGURES_AT = struct.Struct("=IIII"), 56  # waiting, room, user, inode
_UNIX_MESSAGE = struct.Struct("=BBBxIII")
_SHOW_QUEUE, _QUEUE_ATTRIBUTE = 0x10, 4


def read_queues() -> dict[int, tuple[int, int]]:
    """How many connections wait, and how many can, by the inode of each socket that listens; empty where the
    system does not tell."""
    if sys.platform != "linux":
        return {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as diag:
            return dict([*_inet(diag, socket.AF_INET), *_inet(diag, socket.AF_INET6), *_unix(diag)])
    except OSError:
        return {}  # a sandbox does not let us


def _inet(diag: socket.socket, family: int) -> Iterator[tuple[int, tuple[int, int]]]:
    for message in _ask(diag, _INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, _LISTENING)):
        waiting, room, _, inode = _INET_FIGURES.unpack_from(message, _INET_FIGURES_AT)
        yield inode, (waiting, room)


def _unix(diag: socket.socket) -> Iterator[tuple[int, tuple[int, int]]]:
    for message in _ask(diag, _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _LISTENING, 0, _SHOW_QUEUE)):
        inode = _UNIX_MESSAGE.unpack_from(message)[3]
        attributes = message[_UNIX_MESSAGE.size :]
        while attributes:
            size, kind = struct.unpack_from("=HH", attributes)
            if kind == _QUEUE_ATTRIBUTE:
                waiting, room = struct.unpack_from("=II", attributes, 4)
                yield inode, (waiting, room)
            attributes = attributes[_aligned(size) :]


def _ask(diag: socket.socket, request: bytes) -> Iterator[bytes]:
    """The messages that answer `request`."""
    diag.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
    while True:
        data = diag.recv(65536)
        while data:
            size, kind, *_ = _HEADER.unpack_from(data)
            if kind in (_ERROR, _DONE):
                return
            yield data[_HEADER.size : size]
            data = data[_aligned(size) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
