"""How a server reads its clients' heads: line by line, or by a mould for heads like those of late.

A client sends much the same head again and again, with another target and another cookie. Heads with
the same field names in the same order are of one kind. Of those that are parsed line by line a sample
is studied: once there were enough of a kind, the lines in which they differed become the gaps of a
mould. Two moulds are tried, the last that was of use, and then that for heads of as many lines: where
ever other kinds come, to look for the right one would cost as much as it saves.
"""

from __future__ import annotations

from collections.abc import Mapping

from minicorn.http.mould import Mould, field_lines
from minicorn.http.request import Request, find_line, parse_head
from minicorn.record import Record
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from minicorn.config.settings import Settings

# One in so many heads that no mould has read is studied; a prime, for clients take turns by twos and fours
SAMPLE = 5
# A mould costs as much as some fifty heads line by line: it is made when so many of a kind were studied
ENOUGH = 12
# Clients choose what is kept, so there is a bound to it: so many kinds, and heads of so many bytes
KINDS, LONGEST = 64, 8192


class Kind(Record):
    """What is known of the heads with certain field names."""

    lines: list[str]  # the field lines of one
    varies: list[bool]  # which of them were others in another
    studied: int = 0  # how many, since the mould was made
    mould: Mould | None = None
    gaps: list[bool] | None = None  # what varied when it was made

    def learn(self, model: Request, lines: list[str], base: Mapping[str, Any]) -> None:
        """From a head that no mould has read, and its field lines."""
        self.varies = [varies or old != new for varies, old, new in zip(self.varies, self.lines, lines, strict=True)]
        self.studied += 1
        if self.studied >= ENOUGH:
            self.studied = 0
            if self.varies != self.gaps and not _has_twins(lines):
                self.mould, self.gaps = Mould(model, self.varies, base), self.varies


class Heads:
    """The heads of clients that come by one way."""

    def __init__(self, settings: Settings, base: Mapping[str, Any]) -> None:
        """`base` is what each request's meta-variables are put upon: WSGI's environ has more than a head."""
        self._base = base
        line, field = settings.limit_request_line, settings.limit_request_field_size
        self._limit = settings.max_header_size
        self._others = settings.limit_request_fields, line, field
        # Within all limits of length; and a head that is like another has no more fields than that
        self._short = min(LONGEST, self._limit, line or LONGEST, field or LONGEST)
        self._kinds: dict[tuple[str, ...], Kind] = {}  # that of the head last studied is last
        self._moulds: dict[tuple[str, int], Mould] = {}  # the latest for each `_glance`
        self._last: Mould | None = None  # what has read the last head that any has
        self._parsed = 0  # heads that none has

    def read(self, data: bytes | bytearray, searched: int = 0) -> tuple[Request, int] | None:
        """The request at the start of `data` and the length of its head, or None to ask for more, as `parse_head`."""
        if not searched:
            text = data[: self._short].decode("latin-1")
            request = (self._last and self._last.recall(text)) or self._try_another(text)
            if request is not None:
                return request, len(request.head)
        parsed = parse_head(data, self._limit, searched, *self._others)
        if parsed is not None:
            request, _ = parsed
            self._parsed += 1
            if self._parsed % SAMPLE == 0 and len(request.head) <= self._short:
                self._study(request)
            request.meta = {**self._base, **request.meta}
        return parsed

    def _try_another(self, text: str) -> Request | None:
        """By the mould that is most likely to fit, if it is not the last one."""
        mould = self._moulds.get(_glance(text))
        if mould is None or mould is self._last:
            return None
        request = mould.recall(text)
        if request is not None:
            self._last = mould
        return request

    def _study(self, request: Request) -> None:
        """Learn from a head that was parsed line by line, and expect others to be like it."""
        lines = field_lines(request.head)
        name = (request.method, request.version, *[line.partition(":")[0] for line in lines])
        kind = self._kinds.pop(name, None)
        if kind is None:
            if len(self._kinds) >= KINDS:
                del self._kinds[next(iter(self._kinds))]
            kind = Kind(lines, [False] * len(lines))
        self._kinds[name] = kind
        kind.learn(request, lines, self._base)
        if kind.mould is not None:
            if len(self._moulds) >= KINDS:
                self._moulds.clear()
            self._moulds[_glance(request.head)] = kind.mould


def _glance(text: str) -> tuple[str, int]:
    """How the method begins, and how many lines there are."""
    return text[:4], text.count("\n")


def _has_twins(lines: list[str]) -> bool:
    """Whether a field has several lines."""
    keys = [key for key, _ in map(find_line, lines) if key]
    return len(set(keys)) < len(keys)
