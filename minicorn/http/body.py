"""The body of a request: fed in pieces of any size, it gives the content and knows its end.

A decoder has `feed(data) -> content`, and once `done`, `rest`: the bytes that came after.
"""

from __future__ import annotations

from minicorn.errors import ProtocolError
from minicorn.http import grammar
from minicorn.http.request import Framing, Request


class LengthDecoder:
    """A body of `length` bytes (RFC 9112 6.2)."""

    __slots__ = ("_remaining", "rest")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.rest = b""

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return not self._remaining

    @property
    def held(self) -> int:
        """Bytes in memory that were fed and have not been given out: never any."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """The content in `data`, which is part of the body; what lies behind the body is `rest`."""
        content = data[: self._remaining]
        self.rest = data[self._remaining :]
        self._remaining -= len(content)
        return content


class ChunkedDecoder:
    """A chunked body (RFC 9112 7.1) of at most `limit` bytes of content (0: no limit).

    Extensions and trailers are checked, bounded and dropped (RFC 9112 7.1.1 and 7.1.2).
    """

    __slots__ = ("_buffer", "_extensions", "_left", "_limit", "_total", "_trailers", "done", "rest")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._left = -1  # bytes left of the chunk and its CRLF; -1: a chunk line comes next
        self._limit = limit
        self._total = 0
        self._extensions = 0
        self._trailers = -1  # bytes of trailers seen; -1: not there yet
        self.done = False
        self.rest = b""

    @property
    def held(self) -> int:
        """Bytes in memory that were fed and have not been given out."""
        return len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """The content that has become whole with `data`; what lies behind the body is `rest`.

        ProtocolError for what is no chunked body, and 413 beyond `limit`.
        """
        buffer = self._buffer
        buffer += data
        content = bytearray()
        position = 0
        while not self.done:
            if self._trailers >= 0:
                step = self._trailer(position)
            elif self._left >= 0:
                step = self._content(position, content)
            else:
                step = self._chunk_line(position)
            if not step:
                break
            position += step
        del buffer[:position]
        if self.done:
            self.rest = bytes(buffer)
        return bytes(content)

    def _line(self, position: int, most: int) -> int:
        """The length of the line at `position` with its CRLF, or 0 when its end has not come."""
        end = self._buffer.find(b"\n", position, position + most)
        if end >= 0:
            if self._buffer[end - 1 : end] != b"\r":
                raise ProtocolError(400, "bare LF in a chunked body")
            return end + 1 - position
        if len(self._buffer) - position >= most:
            raise ProtocolError(400, "overlong line in a chunked body")
        return 0

    def _chunk_line(self, position: int) -> int:
        length = self._line(position, grammar.MAX_CHUNK_LINE)
        if not length:
            return 0
        match = grammar.CHUNK_LINE.fullmatch(self._buffer, position, position + length - 2)
        if match is None:
            raise ProtocolError(400, "malformed chunk line")
        size = int(match[1], 16)
        self._extensions += match.end() - match.end(1)
        self._total += size
        if self._extensions > grammar.MAX_CHUNK_EXTENSIONS:
            raise ProtocolError(400, "too many chunk extensions")
        if self._limit and self._total > self._limit:
            raise ProtocolError(413, f"chunked body of more than --max-body-size, {self._limit} bytes")
        if size:
            self._left = size + 2
        else:
            self._trailers = 0
        return length

    def _content(self, position: int, content: bytearray) -> int:
        available = len(self._buffer) - position
        if self._left > 2:
            step = min(available, self._left - 2)
            content += memoryview(self._buffer)[position : position + step]
            self._left -= step
            return step
        if available < 2:
            return 0
        if self._buffer[position : position + 2] != b"\r\n":
            raise ProtocolError(400, "chunk longer than its size")
        self._left = -1
        return 2

    def _trailer(self, position: int) -> int:
        length = self._line(position, grammar.MAX_TRAILERS)
        if not length:
            return 0
        self._trailers += length
        if length == 2:
            self.done = True
        elif self._trailers > grammar.MAX_TRAILERS:
            raise ProtocolError(400, "too many trailers")
        elif not grammar.TRAILER_LINE.fullmatch(self._buffer, position, position + length):
            raise ProtocolError(400, "malformed trailer")
        return length


Decoder = LengthDecoder | ChunkedDecoder


def decoder_for(request: Request, limit: int) -> Decoder:
    """The decoder of the body of a request that has one; ProtocolError 413 beyond `limit` (0: none)."""
    if request.framing is Framing.CHUNKED:
        return ChunkedDecoder(limit)
    if limit and request.content_length > limit:
        raise ProtocolError(413, f"body of {request.content_length} bytes, and --max-body-size is {limit}")
    return LengthDecoder(request.content_length)
