"""The grammar: compiled patterns and limits, each beside the section that it comes from.

Every pattern is linear: its repetitions are possessive, or each step is decided by one
character. Text is decoded from latin-1, so that a character is an octet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from minicorn.typed import Generic, TypeVar

T = TypeVar("T", str, bytes)


class Rare(Generic[T]):
    """A pattern that few requests need: the first of them compiles it, and a start does not wait for it."""

    def __init__(self, pattern: T, flags: int = 0) -> None:
        self._pattern: T = pattern
        self._flags = flags

    @cached_property
    def fullmatch(self) -> Callable[..., re.Match[T] | None]:
        """The method of the compiled pattern."""
        return re.compile(self._pattern, self._flags).fullmatch

    @cached_property
    def search(self) -> Callable[..., re.Match[T] | None]:
        """The method of the compiled pattern."""
        return re.compile(self._pattern, self._flags).search


# RFC 9110 5.6.2: token
_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = re.compile(rf"{_TCHAR}++")

# Fields by which a proxy describes its client (RFC 7239 and its forerunners), which anybody can send; and Proxy, which
# would become HTTP_PROXY, the proxy that programs send their own requests through (CVE-2016-5385)
CLAIM = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|proxy", re.IGNORECASE)

# RFC 9110 5.5: field-value, of VCHAR, obs-text, SP and HTAB
FIELD_VALUE = Rare(r"[\t\x20-\x7e\x80-\xff]*+")

# RFC 9112 2.3: case-sensitive, one digit each
VERSION = Rare(r"HTTP/([0-9])\.[0-9]")

# RFC 9112 2.2: a line feed without its carriage return, or the reverse, ends nothing. With the other
# octets that no head has, it tells early of what will be none, such as a TLS handshake.
NOT_IN_HEADS = Rare(rb"(?<!\r)\n|\r(?=[^\n])|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")

# RFC 9110 8.6: ASCII digits alone, so neither "+10" nor "1_0"; 18 digits are beyond any body
CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")

# RFC 9110 7.2, RFC 3986 3.2.2 and 3.2.3: host [":" port], without userinfo; an empty host is legal
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]++\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]{0,5})?")

# RFC 9112 3.2.2: absolute-form
ABSOLUTE_FORM = Rare(r"https?://([^/?]++)(/[^?]*+)?(?:\?(.*))?", re.IGNORECASE)

# RFC 9110 5.6.4: quoted-string
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
# RFC 9112 7.1: chunk-size [chunk-ext]; the line's CRLF is found before
_EXTENSION = rf"[ \t]*+;[ \t]*+{_TCHAR}++(?:[ \t]*+=[ \t]*+(?:{_TCHAR}++|{_QUOTED}))?"
CHUNK_LINE = Rare(rf"([0-9A-Fa-f]{{1,15}})(?:{_EXTENSION})*+".encode("latin-1"))
TRAILER_LINE = Rare(rf"{_TCHAR}++:[\t\x20-\x7e\x80-\xff]*+\r\n".encode())

# RFC 9112 7.1.1: "a recipient ought to limit the total length of chunk extensions"
MAX_CHUNK_LINE = 1024
MAX_CHUNK_EXTENSIONS = 16384
MAX_TRAILERS = 8192

# RFC 9110 7.6.1 and PEP 3333 ("Other HTTP Features"): an application may not set these
HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
)

# RFC 9112 4 with PEP 3333: three digits, a space, a reason phrase that may be empty; 1xx is interim
STATUS = re.compile(r"[2-9][0-9]{2} [\t\x20-\x7e\x80-\xff]*+")
