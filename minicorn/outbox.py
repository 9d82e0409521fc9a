"""What a client has not taken yet of its reply: memory first, then a temporary file.

`send` tries the socket and keeps the rest; `flush` goes on when the socket is writable again.
Nothing here waits. A file that the application serves is a span of it, sent by the kernel.
"""

import os
import socket
import tempfile
from collections import deque
from dataclasses import dataclass
from typing import IO

from minicorn.errors import ClientGone

MEMORY_MOST = 2**20
FULL = 16 * 2**20
PIECE = 2**20  # the most that is handed to `send` at once, so that `full` is seen in time


@dataclass(slots=True)
class _Span:
    """`count` bytes of an open file, from `offset` on."""

    fd: int
    offset: int
    count: int
    owned: bool


class Outbox:
    """The unsent part of a socket's output, in order. ClientGone when the peer has gone."""

    __slots__ = ("_memory", "_queue", "_socket", "_spool", "_spooled", "size")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._queue: deque[memoryview | _Span] = deque()
        self._memory = 0
        self._spool: IO[bytes] | None = None
        self._spooled = 0
        self.size = 0

    @property
    def full(self) -> bool:
        """Whoever produces should wait."""
        return self.size >= FULL

    def send(self, data: bytes | memoryview) -> None:
        """Send now what the socket takes, keep the rest."""
        if not self.size:
            sent = self._try_send(data)
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._keep(data)

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send `count` bytes of the open file `fd`; the caller may close its descriptor."""
        span = _Span(os.dup(fd), offset, count, owned=True)
        self._queue.append(span)
        self.size += count
        self.flush()

    def flush(self) -> bool:
        """Send what the socket takes; whether anything went."""
        before = self.size
        while self._queue:
            head = self._queue[0]
            sent = self._try_send(head) if isinstance(head, memoryview) else self._try_sendfile(head)
            self.size -= sent
            if isinstance(head, memoryview):
                self._memory -= sent
                if sent < len(head):
                    self._queue[0] = head[sent:]
                    break
            else:
                head.offset += sent
                head.count -= sent
                if head.count:
                    break
                self._release(head)
            self._queue.popleft()
        if not self._queue and self._spool is not None:
            self._spool.close()
            self._spool, self._spooled = None, 0
        return self.size < before

    def close(self) -> None:
        """Forget what is left."""
        for item in self._queue:
            if isinstance(item, _Span):
                self._release(item)
        self._queue.clear()
        self.size = self._memory = 0
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _keep(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self._memory + len(data) <= MEMORY_MOST or not self._spill(data):
            self._queue.append(memoryview(data))
            self._memory += len(data)

    def _spill(self, data: bytes | memoryview) -> bool:
        """Append to the temporary file; False when there is no room on the disk."""
        try:
            if self._spool is None:
                self._spool = tempfile.TemporaryFile(buffering=0)
            fd = self._spool.fileno()
            written = os.pwrite(fd, data, self._spooled)
            if written < len(data):
                return False
        except OSError:
            return False
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Span) and last.fd == fd:
            last.count += written
        else:
            self._queue.append(_Span(fd, self._spooled, written, owned=False))
        self._spooled += written
        return True

    def _try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error

    def _try_sendfile(self, span: _Span) -> int:
        try:
            sent = os.sendfile(self._socket.fileno(), span.fd, span.offset, min(span.count, 2**30))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if not sent:
            raise ClientGone("the file that was being sent has been cut short")
        return sent

    def _release(self, span: _Span) -> None:
        if span.owned:
            os.close(span.fd)
