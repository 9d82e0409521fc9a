"""A request's body on its way: one that has not come whole with its head, as most do.

What has come is in memory, and beyond 1 MiB, or where memory is short, in a temporary file. Each
wait for more has its patience, and the whole of it the least rate. Nothing here reads or waits.
"""

from __future__ import annotations

import io
from contextlib import suppress

from minicorn.config.settings import Settings
from minicorn.errors import ProtocolError
from minicorn.http.body import decoder_for
from minicorn.http.request import Request
from minicorn.system.scratch import check_room, open_scratch
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

# Bytes. A temporary file costs three times what memory does; so a body has one when it is larger than this,
MEMORY_MOST = 2**20
# or when it is no smaller than this, and clients make us hold too much together
MEMORY_LEAST = 2**16


class Upload:
    """The body of `request`, expected from `now` on; ProtocolError 413 where it is announced as too large."""

    __slots__ = ("_began", "_body", "_came", "_decoder", "_settings")

    def __init__(self, request: Request, settings: Settings, now: float) -> None:
        self._decoder = decoder_for(request, settings.max_body_size)
        self._settings = settings
        self._began = now
        self._came = 0  # bytes, as they are framed
        self._body: IO[bytes] = io.BytesIO()

    @property
    def held(self) -> int:
        """How many of its bytes are in memory."""
        return self._decoder.held + (self._body.tell() if isinstance(self._body, io.BytesIO) else 0)

    def due(self, now: float) -> float:
        """When more must have come, if some has come `now`; monotonic seconds."""
        patience, rate = self._settings.recv_timeout, self._settings.min_body_rate
        due = now + patience
        return min(due, self._began + patience + self._came / rate) if rate else due

    def take(self, data: bytes) -> bool:
        """Take in more of it; whether it is whole. ProtocolError for what is refused, and where there is no room."""
        self._came += len(data)
        content = self._decoder.feed(data)
        try:
            if not isinstance(self._body, io.BytesIO):
                check_room(len(content))
            elif self._body.tell() + len(content) > MEMORY_MOST:
                self._spill(self._body)
            self._body.write(content)
            if self._decoder.done:
                self._body.flush()  # here, where it may fail
        except OSError as error:
            raise ProtocolError(503, f"no room for its body: {error.strerror}") from error
        return self._decoder.done

    def hand_over(self) -> tuple[IO[bytes], int, bytes]:
        """Give the whole body, to be read from its beginning and closed, its length, and what came behind it."""
        length = self._body.tell()
        self._body.seek(0)
        return self._body, length, self._decoder.rest

    def spill(self) -> bool:
        """Put what has come of a large body into a file, for memory is short; whether that was done."""
        if not isinstance(self._body, io.BytesIO) or self._body.tell() < MEMORY_LEAST:
            return False
        try:
            self._spill(self._body)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Forget what has come of it."""
        with suppress(OSError):  # what is not written yet would be now, to a disk that may be full
            self._body.close()

    def _spill(self, memory: io.BytesIO) -> None:
        check_room(memory.tell())
        spool = open_scratch()
        spool.write(memory.getvalue())
        self._body = spool
