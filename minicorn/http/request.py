"""A request's head: bytes -> `Request`, or "need more" (None), or ProtocolError; in linear time.

A field line is checked when it is first seen, and remembered: most of what clients send is what
they have sent before. What a head says is kept as CGI's meta-variables (RFC 3875 4.1), which is how
WSGI wants it.
"""

from __future__ import annotations

from enum import Enum

from minicorn.errors import ProtocolError
from minicorn.http import grammar
from minicorn.http.quoting import unquote
from minicorn.memo import Memo
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Framing(Enum):
    """How the body of a request is delimited (RFC 9112 6)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"


# The meta-variables that a request line makes, besides the fields'
REQUEST_LINE = ("REQUEST_METHOD", "RAW_URI", "REQUEST_URI", "SERVER_PROTOCOL", "PATH_INFO", "QUERY_STRING")

_NO_BODY = Framing.NONE  # looked up once: dear in an enumeration, up to Python 3.11


class Request:
    """One request head, checked.

    `meta` has its meta-variables: fields by their CGI names ("HTTP_HOST", "CONTENT_TYPE"), the target as it
    came as RAW_URI and REQUEST_URI, and of it QUERY_STRING and PATH_INFO, percent-decoded into PEP 3333's
    latin-1 string. It becomes the environ. `aside` has the field lines that somebody else must judge first:
    a name with an underscore, and what a proxy says of its client.
    """

    __slots__ = (
        "aside",
        "content_length",
        "expects_continue",
        "framing",
        "head",
        "keep_alive",
        "meta",
        "method",
        "secure",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        version: str,
        meta: dict[str, Any],
        head: str = "",
        aside: tuple[str, ...] = (),
    ) -> None:
        """`meta` has the fields; what the request line says is added to them."""
        self.method = meta["REQUEST_METHOD"] = method
        self.target = meta["RAW_URI"] = meta["REQUEST_URI"] = target
        self.version = meta["SERVER_PROTOCOL"] = version
        self.meta = meta
        self.head = head  # as it came
        self.framing = _NO_BODY
        self.content_length = 0
        self.keep_alive = True
        self.expects_continue = False
        self.secure = False  # the target is an https URI
        self.aside = aside

    def again(self, target: str, meta: dict[str, Any], head: str, aside: tuple[str, ...]) -> Request:
        """Another request that differs from this one in its target, and in fields that decide nothing."""
        request: Request = Request.__new__(Request)
        request.method = self.method
        request.target = target
        request.version = self.version
        request.meta = meta
        request.head = head
        request.framing = self.framing
        request.content_length = self.content_length
        request.keep_alive = self.keep_alive
        request.expects_continue = self.expects_continue
        request.secure = False
        request.aside = aside
        return request

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} {self.version} {self.framing.value}>"


def parse_head(
    data: bytes | bytearray,
    limit: int,
    searched: int = 0,
    most_fields: int = 0,
    longest_line: int = 0,
    longest_field: int = 0,
) -> tuple[Request, int] | None:
    """The request at the start of `data` and the length of its head, or None to ask for more.

    `limit` is the largest head in bytes, `most_fields` the most field lines, `longest_line` the
    longest request line, `longest_field` the longest field line with its end (0: no limit);
    `searched` is how much of `data` an earlier call saw.
    """
    # RFC 9112 2.2: an empty line before the request line is ignored, once
    start = 2 if data[:2] == b"\r\n" else 0
    end = data.find(b"\r\n\r\n", start if searched < 5 else searched - 3) + 4
    if end < 4 or end - start > limit:
        if len(data) - start > limit:
            raise _too_large(data, start, limit)
        _check_first_line(data, start, searched)
        if grammar.NOT_IN_HEADS.search(data, max(start, searched - 1)):
            raise ProtocolError(400, "bare CR or LF, or a control character, in the head")
        _check_last_line(data, start, searched, longest_line, longest_field)
        return None
    head = data[start:end].decode("latin-1")
    if 0 < longest_line < len(head) or 0 < longest_field < len(head):  # else no line can be too long
        _check_lines(head, longest_line, longest_field)
    return _parse(head, most_fields), end


def _too_large(data: bytes | bytearray, start: int, limit: int) -> ProtocolError:
    if data.find(b"\r\n", start, start + limit) < 0:
        return ProtocolError(414, f"request line of more than {limit} bytes")
    return ProtocolError(431, f"head of more than {limit} bytes")


def _check_lines(head: str, longest_line: int, longest_field: int) -> None:
    """Refuse a line that is longer than it may be."""
    request_line, *fields = head.split("\r\n")
    if 0 < longest_line < len(request_line):
        raise ProtocolError(414, f"request line of more than {longest_line} bytes")
    if 0 < longest_field < max(map(len, fields)) + 2:
        raise ProtocolError(431, f"field line of more than {longest_field} bytes")


def _check_last_line(data: bytes | bytearray, start: int, searched: int, longest_line: int, longest_field: int) -> None:
    """Refuse the last line, whose end has not come, or no more of it than the CR, where it is too long already."""
    size = len(data) - start
    if 0 < longest_line < size - 1 and data.find(b"\n", start, start + longest_line + 2) < 0:
        raise ProtocolError(414, f"request line of more than {longest_line} bytes")
    recent = len(data) - longest_field
    # A field line begins behind a line's end; what an earlier call has seen needs no second look
    earlier = max(start, searched - longest_field)
    if 0 < longest_field <= size and data.rfind(b"\n", recent) < 0 <= data.rfind(b"\n", earlier, recent):
        raise ProtocolError(431, f"field line of more than {longest_field} bytes")


def _check_first_line(data: bytes | bytearray, start: int, searched: int) -> None:
    """Refuse a malformed request line as soon as it is whole: after what is HTTP/0.9, or no HTTP, nothing may come."""
    end = data.find(b"\r\n", max(start, searched - 1))
    # Searched backwards, so that each line is searched once, when its end has come
    if end >= 0 > data.rfind(b"\r\n", start, end):
        _parse_request_line(data[start:end].decode("latin-1"))


def _parse(head: str, most_fields: int) -> Request:
    lines = head.split("\r\n")
    method, target, version = _parse_request_line(lines[0])
    if most_fields and len(lines) - 3 > most_fields:
        raise ProtocolError(431, f"more than {most_fields} field lines")
    pairs = [*map(find_line, lines[1:-2])]
    fields = dict(pairs)
    aside: tuple[str, ...] = ()
    if "" in fields:
        aside = tuple(line for key, line in pairs if not key)
        pairs = [pair for pair in pairs if pair[0]]
        del fields[""]
    if len(fields) != len(pairs):
        fields = _combine(pairs)
    request = Request(method, target, version, fields, head, aside)
    judge(request)
    return request


def judge(request: Request) -> None:
    """Decide from fields and target the framing, the persistence and the rest; ProtocolError for what is refused."""
    fields, version = request.meta, request.version
    host = fields.get("HTTP_HOST")
    # RFC 9112 3.2: 400 for a missing, repeated or invalid Host
    if host is None:
        if version == "HTTP/1.1":
            raise ProtocolError(400, "no Host field")
    elif not is_host(host):
        raise ProtocolError(400, "invalid Host field")
    resolve_target(request)
    if "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields:
        _decide_framing(request)
    if "HTTP_CONNECTION" in fields or version == "HTTP/1.0":
        _decide_persistence(request)
    if "HTTP_EXPECT" in fields and version == "HTTP/1.1":
        _decide_expectation(request)


# RFC 9110 9.3 and RFC 5789: known methods, which need no check
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])


def _parse_request_line(line: str) -> tuple[str, str, str]:
    """Method, target and version of a request line; ProtocolError where it is malformed or not for us."""
    try:
        method, target, version = line.split(" ")
    except ValueError:
        raise ProtocolError(400, "malformed request line") from None
    if method not in _METHODS and not grammar.TOKEN.fullmatch(method):
        raise ProtocolError(400, "malformed request line")
    # RFC 9112 3.2: visible ASCII. RFC 3986 knows no "#" in it and asks to encode some more, but browsers
    # send those ("|", "[", "{") raw in queries. A pattern takes three times as long
    if not (target and target.isascii() and target.isprintable()) or "#" in target:
        raise ProtocolError(400, "malformed request line")
    if method == "CONNECT":
        raise ProtocolError(501, "CONNECT is for proxies")
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        version = _lower_version(version)
    return method, target, version


def _lower_version(version: str) -> str:
    """The version that is answered: of a higher minor one the highest that we know (RFC 9110 6.2)."""
    match = grammar.VERSION.fullmatch(version)
    if match is None:
        raise ProtocolError(400, "malformed request line")
    if match[1] != "1":
        raise ProtocolError(505, version)
    return "HTTP/1.1"


def _name_key(name: str) -> str:
    """The environ key of a field name; "" for one that is set aside. ProtocolError for no name."""
    if not grammar.TOKEN.fullmatch(name):
        # RFC 9112 5.1 and 5.2: no space before the colon, no folded line
        raise ProtocolError(400, "malformed field name")
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if "_" in name or grammar.CLAIM.fullmatch(name):
        # "Content_Length" would become the same key as "Content-Length"
        key = ""
    return key


def _parse_line(line: str) -> tuple[str, str]:
    """Environ key and value of a field line; "" and the line itself for one that is set aside. ProtocolError (400)
    where it is malformed."""
    name, colon, value = line.partition(":")
    key = _NAMES[name]
    if not colon:
        raise ProtocolError(400, "field line without a colon")
    if value.isprintable():  # which no control character is
        value = value.strip()  # of spaces: nothing else that is white is printable
    elif grammar.FIELD_VALUE.fullmatch(value):
        value = value.strip(" \t")
    else:
        raise ProtocolError(400, "control character in the head")
    return (key, value) if key else ("", line)


_NAMES = Memo(_name_key)
_LINES = Memo(_parse_line)
find_line = _LINES.__getitem__


_SINGLE = frozenset(["HTTP_HOST", "CONTENT_LENGTH", "CONTENT_TYPE"])


def _combine(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Join the lines of one field as one value (RFC 9110 5.3), in linear time."""
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        if key in _SINGLE and key in values:
            raise ProtocolError(400, f"{key} more than once")
        values.setdefault(key, []).append(value)
    # RFC 9113 8.2.3: the lines of Cookie are joined otherwise
    return {key: ("; " if key == "HTTP_COOKIE" else ", ").join(lines) for key, lines in values.items()}


def _check_host(text: str) -> bool:
    """Whether a text is a host, and perhaps its port."""
    # RFC 1035 2.3.4: a name has 255 octets at most, and a port 5 digits
    if len(text) > 261 or not grammar.HOST.fullmatch(text):
        return False
    return text[:1] != "[" or _is_ipv6(text[1 : text.index("]")])


_HOSTS = Memo(_check_host)
is_host = _HOSTS.__getitem__


def _is_ipv6(text: str) -> bool:
    import ipaddress  # few clients name a literal, and a first request need not wait for it

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def resolve_target(request: Request) -> None:
    """Set path and query by the target (RFC 9112 3.2), and the host where the target names one."""
    target, meta = request.target, request.meta
    if target[0] == "/":  # origin-form
        path, _, meta["QUERY_STRING"] = target.partition("?")
        meta["PATH_INFO"] = unquote(path) if "%" in path else path
    else:
        _resolve_other(request, target, meta)


def _resolve_other(request: Request, target: str, meta: dict[str, Any]) -> None:
    meta["PATH_INFO"] = meta["QUERY_STRING"] = ""
    if target == "*" and request.method == "OPTIONS":
        return
    match = grammar.ABSOLUTE_FORM.fullmatch(target)
    # RFC 9110 4.2.1: a URI whose host is empty is invalid
    if match is None or not is_host(match[1]) or match[1].startswith(":"):
        raise ProtocolError(400, "malformed request target")
    # RFC 9112 3.2.2: the target's authority replaces Host
    meta["HTTP_HOST"] = match[1]
    # RFC 9110 4.2.3 and RFC 9112 3.2.4: nothing behind the authority is "/", and "*" for OPTIONS
    path = match[2] or ("" if request.method == "OPTIONS" and match[3] is None else "/")
    meta["PATH_INFO"] = unquote(path)
    meta["QUERY_STRING"] = match[3] or ""
    request.secure = target[4] in "sS"


def _decide_framing(request: Request) -> None:
    fields = request.meta
    length = fields.get("CONTENT_LENGTH")
    coding = fields.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None:
            # RFC 9112 6.1: both framings present: refuse, never guess
            raise ProtocolError(400, "Content-Length with Transfer-Encoding")
        if request.version == "HTTP/1.0":
            raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
        codings = [name.strip(" \t").lower() for name in coding.split(",")]
        if codings.count("chunked") != 1 or codings[-1] != "chunked":
            # RFC 9112 6.3: its length cannot be known
            raise ProtocolError(501 if "chunked" not in codings else 400, "chunked must come last and once")
        if len(codings) > 1:
            raise ProtocolError(501, "unknown transfer coding")
        request.framing = Framing.CHUNKED
        # What WSGI hands over is decoded (RFC 9112 7.1.3)
        del fields["HTTP_TRANSFER_ENCODING"]
    elif length is not None:
        if not grammar.CONTENT_LENGTH.fullmatch(length):
            raise ProtocolError(400, "invalid Content-Length")
        request.content_length = int(length)
        if request.content_length:
            request.framing = Framing.LENGTH


def _decide_persistence(request: Request) -> None:
    """Decide whether the connection may persist (RFC 9112 9.3)."""
    options = request.meta.get("HTTP_CONNECTION", "").lower().split(",")
    listed = [option.strip(" \t") for option in options]
    request.keep_alive = "close" not in listed and (request.version == "HTTP/1.1" or "keep-alive" in listed)


def _decide_expectation(request: Request) -> None:
    """Decide whether a 100 is expected; ProtocolError (417) for any other expectation (RFC 9110 10.1.1)."""
    # RFC 9110 5.6.1.2: empty elements of a list are ignored
    expected = {member.strip(" \t") for member in request.meta["HTTP_EXPECT"].lower().split(",")} - {""}
    if expected - {"100-continue"}:
        raise ProtocolError(417, "unknown expectation")
    request.expects_continue = bool(expected)
