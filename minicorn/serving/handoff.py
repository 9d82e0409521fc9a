"""The queue of connections: a descriptor and its state, from any worker to any other.

A SOCK_SEQPACKET pair made by the arbiter, which keeps both ends open, so that what is under
way survives every worker. Any worker gives, any idle worker takes; a message is one
descriptor, a version and a few bytes. What the queue refuses, its sender goes on serving.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from minicorn.record import Value, replace
from minicorn.system import rights
from minicorn.system.scratch import open_scratch

VERSION = 2
# More input than this stays with its worker: four messages of 64 KiB would fill the queue
INPUT_MOST = 32768
# version, listener, secure, requests served, deadline, complete since, then the lengths of peer and port
_HEAD = struct.Struct("=BB?IddBB")
_RECEIVE = INPUT_MOST + 1024
# Datagrams where there is no sequenced packet (macOS)
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


class Parcel(Value, quick=True):
    """What travels with a connection's descriptor. Times are monotonic seconds, the same in all processes."""

    listener: int  # which of the server's listeners it came by
    served: int
    deadline: float
    since: float  # when its request was complete; of no meaning without one
    peer: str
    peer_port: str
    input: bytes  # read already, not yet served
    secure: bool = False  # a PROXY header has said that the client came by TLS

    def pack(self) -> bytes:
        """The message for it, which `unpack` takes."""
        peer, port = self.peer.encode(), self.peer_port.encode()
        sizes = len(peer), len(port)
        head = _HEAD.pack(VERSION, self.listener, self.secure, self.served, self.deadline, self.since, *sizes)
        return head + peer + port + self.input

    @classmethod
    def unpack(cls, data: bytes) -> Parcel:
        """Read what `pack` has written, in this version."""
        _, listener, secure, served, deadline, since, peer_size, port_size = _HEAD.unpack_from(data)
        peer_end = _HEAD.size + peer_size
        port_end = peer_end + port_size
        peer, port = data[_HEAD.size : peer_end].decode(), data[peer_end:port_end].decode()
        return cls(listener, served, deadline, since, peer, port, data[port_end:], secure)


class Handoff:
    """Both ends of the queue; non-blocking. `fd` is readable when a connection waits."""

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        """A new queue, or the one whose `ends` the arbiter's image before has left."""
        if ends is None:
            self._giving, self._taking = socket.socketpair(socket.AF_UNIX, _KIND)
        else:
            self._giving, self._taking = map(rights.as_socket, ends)
        self._giving.setblocking(False)
        self._taking.setblocking(False)
        self.fd = self._taking.fileno()

    @property
    def ends(self) -> tuple[int, int]:
        """The descriptors of both ends, to give by and to take by."""
        return self._giving.fileno(), self._taking.fileno()

    def give(self, fd: int, parcel: Parcel) -> bool:
        """Put a connection into the queue; False when it is full, or the system refuses."""
        if len(parcel.input) > INPUT_MOST:
            return self._give_long(fd, parcel)
        return self._send([fd], parcel)

    def _give_long(self, fd: int, parcel: Parcel) -> bool:
        """Put it into the queue with a file beside it that has the input."""
        try:
            with open_scratch(buffering=0) as file:
                if file.write(parcel.input) < len(parcel.input):
                    return False  # no room for all of it
                return self._send([fd, file.fileno()], replace(parcel, input=b""))
        except OSError:
            return False  # no room for any

    def _send(self, fds: list[int], parcel: Parcel) -> bool:
        try:
            self._giving.sendmsg([parcel.pack()], rights.pack(fds))
        except OSError:
            return False  # EAGAIN: full; ETOOMANYREFS, EMSGSIZE: it stays where it is
        return True

    def take(self) -> tuple[socket.socket, Parcel] | None:
        """The connection that has waited longest, or None; OSError when no descriptor is free for one."""
        while True:
            os.close(os.dup(self.fd))  # else it would be taken from the queue, and lost (MSG_CTRUNC)
            try:
                data, ancillary, flags, _ = self._taking.recvmsg(_RECEIVE, rights.room(2), rights.CLOEXEC)
            except BlockingIOError:
                return None
            descriptors = rights.unpack(ancillary)
            # MSG_CTRUNC: a thread of the application's was faster, and the connection is gone, or what it has said.
            # A message of another version may have any form
            if flags & socket.MSG_CTRUNC or data[0] != VERSION:
                for fd in descriptors:
                    os.close(fd)
                continue
            sock, parcel = rights.as_socket(descriptors[0]), Parcel.unpack(data)
            if len(descriptors) > 1:
                with os.fdopen(descriptors[1], "rb") as file:
                    file.seek(0)
                    parcel = replace(parcel, input=file.read())
            return sock, parcel

    def close(self) -> None:
        """Close this process's copies: the queue lives on in the others."""
        self._giving.close()
        self._taking.close()
