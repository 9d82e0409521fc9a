"""What the kernel knows of a socket, besides the bytes that it gives: what waits on either side, and since when."""

from __future__ import annotations

import socket
import struct
import sys
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ

_LAST_DATA_RECEIVED = 52  # tcpi_last_data_recv in struct tcp_info, linux/tcp.h
_NO_BYTES = struct.pack("i", 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def read_quiet(sock: socket.socket) -> float:
    """Seconds since the peer's last byte came, whether it has been read or not; 0 where the system does not tell."""
    if sock.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
        return 0.0
    information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED + 4)
    milliseconds: int = struct.unpack_from("I", information, _LAST_DATA_RECEIVED)[0]
    return milliseconds / 1000


def count_unsent(fd: int) -> int:
    """Bytes that the system has, and the peer not yet (tcp(7), SIOCOUTQ); 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    return int.from_bytes(ioctl(fd, TIOCOUTQ, _NO_BYTES), sys.byteorder)


def has_unread(fd: int) -> bool:
    """Whether the system has input for us: a close would be a reset then, which may overtake what was sent."""
    return ioctl(fd, FIONREAD, _NO_BYTES) != _NO_BYTES


def reset_on_close(sock: socket.socket) -> None:
    """Let the close of `sock` be a reset, whatever has been sent. OSError where the peer was faster."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
