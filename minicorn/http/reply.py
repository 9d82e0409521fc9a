"""A reply's head: status and fields -> bytes; framing and persistence are decided here, once.

Everything that an application gives is checked here before a byte of it is sent (PEP 3333,
RFC 9110 5.5): a fault is an ApplicationFault, and the client gets a 500 instead.
"""

from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from http import HTTPStatus

from minicorn.http import grammar
from minicorn.http.request import Request

Headers = list[tuple[str, str]]


class ApplicationFault(Exception):
    """The application broke PEP 3333; the message names the rule."""


class Delimiter(Enum):
    """How the end of a reply is told (RFC 9112 6.3)."""

    NOTHING = "no body"  # HEAD, 204, 304
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "close"  # HTTP/1.0 without a length


class Head:
    """A reply's head, ready to send, and what follows from it for the body and the connection."""

    __slots__ = ("data", "delimiter", "keep_alive", "length", "status")

    def __init__(self, data: bytes, status: int, delimiter: Delimiter, length: int, keep_alive: bool) -> None:
        self.data = data
        self.status = status
        self.delimiter = delimiter
        self.length = length
        self.keep_alive = keep_alive


_FIELD_NAMES: dict[str, str] = {}
_FIELD_NAMES_MOST = 1024


def _lower_name(name: object) -> str:
    """The lower-case form of a legal field name; ApplicationFault for any other."""
    if not isinstance(name, str) or not grammar.TOKEN.fullmatch(name):
        raise ApplicationFault(f"{name!r} is no header name")
    lower = name.lower()
    if lower in grammar.HOP_BY_HOP:
        raise ApplicationFault(f"{name} is hop-by-hop: the server's to set, not the application's")
    if len(_FIELD_NAMES) < _FIELD_NAMES_MOST:
        _FIELD_NAMES[name] = lower
    return lower


@lru_cache(maxsize=256)
def check_status(status: str) -> int:
    """The code of a status line such as "200 OK"; ApplicationFault for what is none."""
    if not isinstance(status, str) or not grammar.STATUS.fullmatch(status):
        raise ApplicationFault(f"{status!r} is no status such as '200 OK'")
    code = int(status[:3])
    if code < 200:
        raise ApplicationFault(f"{status!r} is interim: the server's to send, not the application's")
    return code


def _check_values(headers: Headers, lines: str) -> None:
    """No CR, LF or NUL beyond the line ends that were put behind the fields."""
    ends = lines.count("\r\n")
    if ends > len(headers) or lines.count("\r") != ends or lines.count("\n") != ends or "\0" in lines:
        for name, value in headers:
            if not {"\r", "\n", "\0"}.isdisjoint(value):
                raise ApplicationFault(f"CR, LF or NUL in the value of {name}")


def _parse_length(value: str, earlier: int) -> int:
    if not grammar.CONTENT_LENGTH.fullmatch(value) or (earlier >= 0 and int(value) != earlier):
        raise ApplicationFault(f"{value!r} is no Content-Length")
    return int(value)


def render_head(request: Request, status: str, headers: Headers, known: int, keep_alive: bool, date: str) -> Head:
    """The head of a final reply.

    `known` is the length of the whole body where it is known (-1 otherwise), `keep_alive`
    whether the server is willing, `date` the value for Date (see `http_date`).
    Raises ApplicationFault, and UnicodeEncodeError is one too: headers are latin-1 (PEP 3333).
    """
    code = check_status(status)
    names = _FIELD_NAMES
    length = -1
    served = dated = False
    lines = ""
    for name, value in headers:
        if not isinstance(value, str):
            raise ApplicationFault(f"the value of {name} is {type(value).__name__}, not str")
        lower = names.get(name) or _lower_name(name)
        if lower == "content-length":
            if code == 204:  # RFC 9110 8.6 forbids it; Django sets it all the same
                continue
            length = _parse_length(value, length)
        elif lower == "date":
            dated = True
        elif lower == "server":
            served = True
        lines += f"{name}: {value}\r\n"
    _check_values(headers, lines)
    if not served:
        lines += "Server: minicorn\r\n"
    if not dated:
        lines += date

    if request.method == "HEAD" or code in (204, 304):
        delimiter = Delimiter.NOTHING
        if length < 0 and known > 0 and code not in (204, 304):
            lines += f"Content-Length: {known}\r\n"
    elif length >= 0:
        delimiter = Delimiter.LENGTH
    elif known >= 0:
        delimiter, length = Delimiter.LENGTH, known
        lines += f"Content-Length: {known}\r\n"
    elif request.version == "HTTP/1.1":
        delimiter = Delimiter.CHUNKED
        lines += "Transfer-Encoding: chunked\r\n"
    else:
        delimiter, keep_alive = Delimiter.CLOSE, False

    # RFC 9112 9.3 and 9.6: persistence is the default in 1.1 and named in 1.0
    if not keep_alive:
        lines += "Connection: close\r\n"
    elif request.version == "HTTP/1.0":
        lines += "Connection: keep-alive\r\n"
    return Head(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1"), code, delimiter, length, keep_alive)


def http_date(now: float) -> str:
    """The Date line for `now`, in seconds since 1970 (RFC 9110 6.6.1)."""
    return f"Date: {formatdate(now, usegmt=True)}\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk (RFC 9112 7.1); never called with b"", which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def render_error(status: int, date: str, method: str = "") -> bytes:
    """A short final reply that says no more than its status, and closes; to HEAD, without its body."""
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}\n".encode()
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nServer: minicorn\r\n{date}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
