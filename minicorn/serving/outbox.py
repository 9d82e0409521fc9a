"""What a client has not taken yet of its reply: memory first, then a temporary file.

`send` tries the socket and keeps the rest; `flush` goes on when the socket is writable again.
Nothing here waits. A file that the application serves is a span of it, sent by the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque

from minicorn.errors import ClientGone
from minicorn.record import Record
from minicorn.system.scratch import check_room, open_scratch
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

# Bytes
MEMORY_MOST = 2**20  # beyond them what comes goes to a file
SPOOL_MOST = 4 * 2**20  # of one such file: the next begins then
FULL = 16 * 2**20  # in memory and files, beyond which whoever produces waits
GATHERED = 2**16  # small blocks become pieces of so much, which cost one call each to send or to write
READ = 2**16  # of a file at once, where it is read here
PIECE = 2**20  # the most that is handed to `send` at once, so that `full` is seen in time
CUT_SHORT = "the file that was being sent has been cut short"


class Span(Record, quick=True):
    """`count` bytes of an open file, from `offset` on; an `owned` file is closed after it."""

    file: IO[bytes]
    offset: int
    count: int
    owned: bool = False


# Shared by all connections of which nothing waits, as most do all their lives; nothing is ever put into it
_EMPTY: deque[bytearray | memoryview | Span] = deque()


class Outbox:
    """The unsent part of a socket's output, in order. ClientGone when the peer has gone."""

    _spooled: int  # bytes that have been written to the last of the files

    __slots__ = ("_queue", "_socket", "_spooled", "_spools", "memory", "size")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._queue = _EMPTY
        self._spools: list[IO[bytes]] = []
        self.size = 0
        self.memory = 0  # bytes of it in memory

    @property
    def full(self) -> bool:
        """Whether so much waits that whoever produces should wait."""
        return self.size >= FULL

    def send(self, data: bytes | memoryview) -> None:
        """Send now what the socket takes, keep the rest."""
        if not self.size:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ClientGone(str(error)) from error
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._keep(data)

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send `count` bytes of the open file `fd`; the caller may close its descriptor."""
        self._append(Span(os.fdopen(os.dup(fd), "rb", buffering=0), offset, count, owned=True))
        self.size += count
        self.flush()

    def flush(self) -> bool:
        """Send what the socket takes; whether anything went."""
        before = self.size
        while self._queue:
            head = self._queue[0]
            sent = self._try_sendfile(head) if isinstance(head, Span) else self._try_send(head)
            self.size -= sent
            if isinstance(head, Span):
                head.offset += sent
                head.count -= sent
                if head.count:
                    break
                self._release(head)
            else:
                self.memory -= sent
                if sent < len(head):
                    self._queue[0] = memoryview(head)[sent:]
                    break
            self._queue.popleft()
        if self._spools:
            spooled = (item.file for item in self._queue if isinstance(item, Span) and not item.owned)
            self._close_spools(next(spooled, None))
        return self.size < before

    def close(self) -> None:
        """Forget what is left unsent, and close the files."""
        for item in self._queue:
            if isinstance(item, Span):
                self._release(item)
        self._queue = _EMPTY
        self.size = self.memory = 0
        self._close_spools(None)

    def _keep(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self.memory += len(data)
        last = self._queue[-1] if self._queue else None
        if len(data) >= GATHERED:
            self._append(memoryview(data))
        elif isinstance(last, bytearray) and len(last) < GATHERED:
            last += data
        else:
            self._append(bytearray(data))
        if self.memory > MEMORY_MOST:
            self._spill()

    def _append(self, item: bytearray | memoryview | Span) -> None:
        if self._queue is _EMPTY:
            self._queue = deque()
        self._queue.append(item)

    def _spill(self) -> None:
        """Put the last piece, if it is one already, into the temporary file; it stays where there is no room."""
        piece = self._queue[-1]
        if isinstance(piece, Span) or len(piece) < GATHERED:
            return
        try:
            check_room(len(piece))
            if not self._spools or self._spooled >= SPOOL_MOST:
                self._turn_over()
            spool = self._spools[-1]
            written = os.pwrite(spool.fileno(), piece, self._spooled)
        except OSError:
            return
        if written < len(piece):
            return
        self._queue.pop()
        self.memory -= written
        last = self._queue[-1] if self._queue else None
        if isinstance(last, Span) and last.file is spool:
            last.count += written
        else:
            self._append(Span(spool, self._spooled, written))
        self._spooled += written

    def _turn_over(self) -> None:
        """A file's place is never used again, for the kernel may still be sending from it: so one
        file after the other, each closed with the last span of it."""
        self._spools.append(open_scratch(buffering=0))
        self._spooled = 0

    def _close_spools(self, kept: IO[bytes] | None) -> None:
        while self._spools and self._spools[0] is not kept:
            self._spools.pop(0).close()

    def _try_send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error

    def _try_sendfile(self, span: Span) -> int:
        try:
            sent = os.sendfile(self._socket.fileno(), span.file.fileno(), span.offset, min(span.count, 2**30))
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EINVAL:  # some file systems have no sendfile
                return self._try_reading(span)
            raise ClientGone(str(error)) from error
        if not sent:
            raise ClientGone(CUT_SHORT)
        return sent

    def _try_reading(self, span: Span) -> int:
        """Read and send some of `span`, as `_try_sendfile` does, where the kernel cannot."""
        try:
            data = os.pread(span.file.fileno(), min(span.count, READ), span.offset)
        except OSError as error:  # as of a file system that has gone
            raise ClientGone(str(error)) from error
        if not data:
            raise ClientGone(CUT_SHORT)
        return self._try_send(data)

    def _release(self, span: Span) -> None:
        if span.owned:
            span.file.close()
