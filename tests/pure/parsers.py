"""The same bytes through three parsers: ours, h11 and httptools (llhttp); what the first message is to each.

Whatever ours accepts, the others must frame the same way. `DIFFERENCES` lists each exception,
with its reason and an example of it.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h11
import httptools

from minicorn.errors import ProtocolError
from minicorn.http.body import decoder_for
from minicorn.http.request import Framing, parse_head

LIMIT = 16384


@dataclass(frozen=True)
class Message:
    """A whole request. `size`: how many bytes it took, where the parser tells."""

    method: str
    target: str
    body: bytes
    size: int


def ours(data: bytes) -> Message | None:
    """What minicorn takes for the first request; None when it refuses or wants more."""
    try:
        parsed = parse_head(data, LIMIT)
        if parsed is None:
            return None
        request, end = parsed
        if request.framing is Framing.NONE:
            return Message(request.method, request.target, b"", end)
        decoder = decoder_for(request, 0)
        body = decoder.feed(data[end:])
    except ProtocolError:
        return None
    return Message(request.method, request.target, body, len(data) - len(decoder.rest)) if decoder.done else None


def by_h11(data: bytes, size: int) -> Message | None:
    """The same for h11, which is strict in all that frames."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(data)
    method = target = ""
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target = event.method.decode(), event.target.decode("latin-1")
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Message(method, target, bytes(body), len(data) - len(connection.trailing_data[0]))
            else:
                return None
    except h11.RemoteProtocolError:
        return None


class _Recorder:
    """What httptools calls; the first message is all we want."""

    def __init__(self) -> None:
        self.target, self.body, self.done = b"", b"", False

    def on_url(self, url: bytes) -> None:
        if not self.done:
            self.target += url

    def on_body(self, body: bytes) -> None:
        if not self.done:
            self.body += body

    def on_message_complete(self) -> None:
        self.done = True


def by_httptools(data: bytes, size: int) -> Message | None:
    """The same for httptools, fed byte by byte, so that we see where the message ends; `size` at most."""
    recorder = _Recorder()
    parser = httptools.HttpRequestParser(recorder)
    for position in range(size):
        try:
            parser.feed_data(data[position : position + 1])
        except httptools.HttpParserUpgrade:
            pass  # we upgrade to nothing
        except httptools.HttpParserError:
            return None
        if recorder.done:
            return Message(parser.get_method().decode(), recorder.target.decode("latin-1"), recorder.body, position + 1)
    return None


@dataclass(frozen=True)
class Difference:
    """Where another parser refuses what we accept (`otherwise`: takes it for something else), and why we do."""

    who: Callable[[bytes, int], Message | None]
    reason: str
    applies: Callable[[Message, bytes], object]
    example: bytes
    otherwise: bool = False


_CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
_COMMON = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"}

DIFFERENCES = [
    Difference(
        by_h11,
        "RFC 9112 2.2: an empty line before the request line is to be ignored; h11 ignores none",
        lambda message, data: data.startswith(b"\r\n"),
        b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    Difference(
        by_h11,
        "RFC 9110 5.6.3: bad whitespace in a chunk extension is to be removed; h11 takes none before the semicolon",
        lambda message, data: re.search(rb"\r\n[0-9A-Fa-f]+[ \t]+;", data[: message.size]),
        _CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        by_h11,
        "trailers are dropped, whatever they say; h11 reads Content-Length and Transfer-Encoding in them as well",
        lambda message, data: _framing_in_trailers(message, data),
        _CHUNKED + b"0\r\nContent-Length: x\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "RFC 9110 9.1: any token is a method, and the application decides; llhttp has a list",
        lambda message, data: message.method not in _COMMON,
        b"FROB / HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "RFC 9110 6.2: a higher minor version is taken as the highest known; llhttp knows 1.0 and 1.1 alone",
        lambda message, data: re.search(rb"HTTP/1\.[2-9]\r\n", data),
        b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "RFC 9110 5.6.3: bad whitespace in a chunk extension is to be removed; llhttp takes none",
        lambda message, data: re.search(rb"\r\n[0-9A-Fa-f]+[^\r]*[ \t][^\r]*\r\n", data[: message.size]),
        _CHUNKED + b"5; a = b\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "trailers are dropped, whatever they say; llhttp reads Content-Length and Transfer-Encoding in them as well",
        lambda message, data: _framing_in_trailers(message, data),
        _CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "RFC 9112 5: a tab around a value belongs to the white space; llhttp takes it as part of a coding's name",
        lambda message, data: re.search(rb"(?i)\r\ntransfer-encoding:[^\r]*\t", data),
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        by_httptools,
        "RFC 9110 7.8: an offer to upgrade may be ignored, and is; llhttp leaves what follows to the other protocol",
        lambda message, data: re.search(rb"(?i)\r\nupgrade:", data),
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nG",
        otherwise=True,
    ),
]


def _framing_in_trailers(message: Message, data: bytes) -> object:
    trailers = data[: message.size].rpartition(b"\r\n0")[2]
    return re.search(rb"(?i)(content-length|transfer-encoding)[ \t]*:", trailers)


def judge(data: bytes) -> Iterator[str]:
    """What is wrong: each parser that frames otherwise what we accept, without a listed reason."""
    message = ours(data)
    if message is None:
        return
    for who in (by_h11, by_httptools):
        theirs = who(data, message.size)
        listed = [item for item in DIFFERENCES if item.who is who and item.applies(message, data)]
        if theirs != message and not (listed and (theirs is None or any(item.otherwise for item in listed))):
            yield f"{who.__name__}: {theirs} where ours is {message}, of {data!r}"


# Messages to start from, and what is put into them


def _head(*lines: str, start: str = "GET / HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (start, "Host: h", *lines, "")).encode("latin-1")


CORPUS = [
    _head(),
    _head("A: b", "Cookie: a=1; b=2"),
    _head("Content-Length: 5", start="POST /x?y=1 HTTP/1.1") + b"hello",
    _head("Transfer-Encoding: chunked", start="POST / HTTP/1.1")
    + b'5;a=b\r\nhello\r\n3;c="d;"\r\nabc\r\n0\r\nX-T: 1\r\n\r\n',
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    _head(start="GET http://h/a?b HTTP/1.1"),
    _head(start="OPTIONS * HTTP/1.1"),
    _head("Expect: 100-continue", "Content-Length: 3", start="PUT /a%20b HTTP/1.1") + b"abc",
    b"\r\n" + _head(),
    _head("Upgrade: websocket", "Connection: Upgrade"),
    _head("Connection: close", "Content-Length: 0", start="DELETE /x HTTP/1.1"),
]
BEHIND = _head(start="GET /smuggled HTTP/1.1")
BITS = [bytes([octet]) for octet in b'\r\n\0 \t:;,\xff\x7f\x0b\x85\xa0_"\\=#[%a01g-+X/?{']
BITS += [b"", b"\r\n", b"chunked", b"identity, ", b"HTTP/1.0", b"HTTP/1.9", b"Host: x\r\n", b"Content-Length: 1\r\n"]
BITS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"99999999999999999999",
]


def mutated(chance: random.Random) -> bytes:
    """A message of the corpus with up to three wounds, often with another behind it."""
    data = bytearray(chance.choice(CORPUS))
    for _ in range(chance.randrange(1, 4)):
        position = chance.randrange(len(data) + 1)
        data[position : position + chance.choice([0, 0, 1, 2, 5])] = chance.choice(BITS)
    return bytes(data) + chance.choice([b"", BEHIND])
