"""A reply's head: status and fields -> bytes; framing and persistence are decided here, once.

Everything that an application gives is checked here before a byte of it is sent (PEP 3333,
RFC 9110 5.5): a fault is an ApplicationFault, and the client gets a 500 instead.
"""

from __future__ import annotations

from enum import Enum
from time import gmtime

from minicorn.http import grammar
from minicorn.http.request import Request
from minicorn.memo import Memo
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

Headers = list[tuple[str, str]]


class ApplicationFault(Exception):
    """The application broke PEP 3333; the message names the rule."""


class Delimiter(Enum):
    """How the end of a reply is told (RFC 9112 6.3)."""

    NOTHING = "no body"  # HEAD, 204, 205, 304
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "close"  # HTTP/1.0 without a length


# Looked up once: dear in an enumeration, up to Python 3.11
NOTHING, LENGTH, CHUNKED, CLOSE = Delimiter


class Fields:
    """A status and field lines that may be sent, and what they say of framing."""

    __slots__ = ("code", "dated", "length", "lines", "rendered", "status")

    def __init__(self, status: str, code: int, lines: str, length: int, dated: bool) -> None:
        self.status = status
        self.code = code
        self.lines = lines
        self.length = length
        self.dated = dated
        self.rendered: tuple[object, Head | None] = None, None  # the last head made of it, and for what


class Head:
    """A reply's head, ready to send, and what follows from it for the body and the connection.

    `length` is the body's where that is its delimiter, else -1.
    """

    __slots__ = ("data", "delimiter", "keep_alive", "length")

    def __init__(self, data: bytes, delimiter: Delimiter, length: int, keep_alive: bool) -> None:
        self.data = data
        self.delimiter = delimiter
        self.length = length
        self.keep_alive = keep_alive


def check_status(status: object) -> int:
    """The code of a status line such as "200 OK"; ApplicationFault for what is none."""
    code = _CODES[status] if isinstance(status, str) else 0
    if not code:
        raise ApplicationFault(f"{status!r} is no status such as '200 OK' (and no interim one)")
    return code


def _parse_status(status: str) -> int:
    """The code of a status; 0 for what is none, and for an interim one (1xx), which is the server's to send."""
    return int(status[:3]) if grammar.STATUS.fullmatch(status) else 0


_CODES = Memo(_parse_status)


def _check_value(name: str, value: str) -> None:
    """ApplicationFault for a value that may not be sent; HTAB and obs-text may (RFC 9110 5.5)."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ApplicationFault(f"{value[error.start]!r} in the value of {name}: PEP 3333 wants latin-1") from None
    if not grammar.FIELD_VALUE.fullmatch(value):
        raise ApplicationFault(f"a control character in the value of {name}")


def _parse_length(value: str, earlier: int) -> int:
    if not grammar.CONTENT_LENGTH.fullmatch(value) or (earlier >= 0 and int(value) != earlier):
        raise ApplicationFault(f"{value!r} is no Content-Length")
    return int(value)


# The fields that mean something to the server as well
_LENGTH, _DATE, _SERVER = "content-length", "date", "server"


def _meaning(name: str) -> str:
    """The field name in lower case if the field means something to the server, else ""; ApplicationFault for one
    that may not be sent."""
    if not grammar.TOKEN.fullmatch(name):
        raise ApplicationFault(f"{name!r} is no header name")
    lower = name.lower()
    if lower in grammar.HOP_BY_HOP:
        raise ApplicationFault(f"{name} is hop-by-hop: the server's to set, not the application's")
    return lower if lower in (_LENGTH, _DATE, _SERVER) else ""


_MEANINGS = Memo(_meaning)


def check_fields(status: str, headers: Headers) -> Fields:
    """Check what the application gave to start_response; ApplicationFault names the rule that it breaks."""
    if type(headers) is not list:
        raise ApplicationFault(f"headers are {type(headers).__name__}, not list")
    given = (status, *headers)
    try:
        return _CHECKED[given]
    except TypeError:  # a pair that is no tuple has no hash
        return _check_fields(given)


def _check_fields(given: tuple[Any, ...]) -> Fields:
    """Check a status and the pairs that follow it."""
    status, *headers = given
    code = check_status(status)
    length = -1
    served = dated = False
    lines = []
    for field in headers:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise ApplicationFault(f"the header {field!r} is no pair of name and value") from None
        if not isinstance(value, str) or not isinstance(name, str):
            raise ApplicationFault(f"the header {name!r}: {value!r} is not two str")
        meaning = _MEANINGS[name]
        if meaning:
            if meaning == _LENGTH:
                again = length >= 0
                length = _parse_length(value, length)
                # RFC 9110 8.6 forbids it in a 204; Django sets it all the same. In a 205 it is ours
                if again or code in (204, 205):
                    continue
            elif meaning == _DATE:
                dated = True
            else:
                served = True
        if not (value.isascii() and value.isprintable()):
            _check_value(name, value)
        lines.append(f"{name}: {value}\r\n")
    if not served:
        lines.append(SERVER)
    return Fields(status, code, "".join(lines), length, dated)


_CHECKED = Memo(_check_fields, most=256)  # most applications give the same again


def render_head(request: Request, fields: Fields, known: int, keep_alive: bool, date: str) -> Head:
    """The head of a final reply.

    `known` is the length of the whole body where it is known (-1 otherwise), `keep_alive`
    whether the connection may go on, `date` the line for Date (see `http_date`).
    """
    wanted = (known, date, keep_alive, request.version, request.method)
    made, head = fields.rendered
    if head is not None and made == wanted:
        return head
    head = _render_head(fields, *wanted)
    fields.rendered = wanted, head
    return head


def _render_head(fields: Fields, known: int, date: str, keep_alive: bool, version: str, method: str) -> Head:
    code, given, lines = fields.code, fields.length, fields.lines
    length = -1
    if not fields.dated:
        lines += date

    if code == 205:
        # RFC 9110 15.3.6: no content, and unlike a 204 it must say so
        delimiter = NOTHING
        lines += "Content-Length: 0\r\n"
    elif method == "HEAD" or code in (204, 304):
        delimiter = NOTHING
        if given < 0 and known > 0 and code not in (204, 304):
            lines += f"Content-Length: {known}\r\n"
    elif given >= 0:
        delimiter, length = LENGTH, given
    elif known >= 0:
        delimiter, length = LENGTH, known
        lines += f"Content-Length: {known}\r\n"
    elif version == "HTTP/1.1":
        delimiter = CHUNKED
        lines += "Transfer-Encoding: chunked\r\n"
    else:
        delimiter, keep_alive = CLOSE, False

    # RFC 9112 9.3 and 9.6: persistence is the default in 1.1 and named in 1.0
    if not keep_alive:
        lines += "Connection: close\r\n"
    elif version == "HTTP/1.0":
        lines += "Connection: keep-alive\r\n"
    return Head(f"HTTP/1.1 {fields.status}\r\n{lines}\r\n".encode("latin-1"), delimiter, length, keep_alive)


# RFC 9110 5.6.7, in English wherever we run
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(now: float) -> str:
    """The Date line for `now`, in seconds since 1970 (RFC 9110 6.6.1)."""
    year, month, day, hour, minute, second, weekday, *_ = gmtime(now)
    date = f"{_WEEKDAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"
    return f"Date: {date}\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk (RFC 9112 7.1); never called with b"", which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


SERVER = "Server: minicorn\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


# Those that are answered without the application (RFC 9110 15, RFC 6585 5)
_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


def status_line(status: int) -> str:
    """The status with its phrase, as an application would give it: "400 Bad Request"."""
    return f"{status} {_PHRASES[status]}"


def render_error(status: int, date: str, method: str = "", text: str = "", kind: str = "text/plain") -> bytes:
    """A final reply that closes, and says no more than its status or `text`; to HEAD, without its body."""
    line = status_line(status)
    body = (text or f"{line}\n").encode("utf-8", "backslashreplace")
    retry = "Retry-After: 1\r\n" if status == 503 else ""  # RFC 9110 10.2.3
    head = (
        f"HTTP/1.1 {line}\r\n{retry}Content-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{SERVER}{date}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
