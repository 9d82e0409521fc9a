"""How a server reads its clients' heads: line by line, and by moulds once it knows them.

A client sends much the same head again and again, with another target and another cookie. Heads of
one kind, which is of the same fields, are kept when they are parsed line by line; when there have
been a few, the lines in which they differ become the gaps of a mould, which reads the next ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from minicorn.http.mould import Mould, field_lines
from minicorn.http.request import Request, find_line, parse_head
from minicorn.record import Record, fresh
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from minicorn.config.settings import Settings

# A mould is dear to make (half a millisecond): not before so many heads could have been read by it
ENOUGH = 8
# Clients choose what is kept, so there is a bound to it: what is in use comes back soon
KINDS, LONGEST = 32, 8192


class Kind(Record):
    """Heads of the same fields: those of late that no mould has read, and in which lines any have differed."""

    heads: list[str] = fresh(list)
    varies: list[bool] = fresh(list)
    mould: Mould | None = None

    def learn(self, model: Request, base: Mapping[str, Any]) -> None:
        """Make a mould, or one with further gaps if the heads need them."""
        columns = zip(*[field_lines(head) for head in self.heads], strict=True)
        varies = [len(set(column)) > 1 for column in columns]
        if self.mould is not None:
            varies = [now or before for now, before in zip(varies, self.varies, strict=True)]
        if self.mould is None or varies != self.varies:
            self.mould, self.varies = Mould(model, varies, base), varies
        self.heads = [model.head]  # with which those to come are compared


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
        self._kinds: dict[tuple[object, ...], Kind] = {}
        self._moulds: dict[tuple[str, int], Mould] = {}  # by what is quickly seen of a head: the latest for each
        self._last: Mould | None = None  # what has read the last head that any has

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
            if len(request.head) <= self._short:
                self._note(request)
            request.meta = {**self._base, **request.meta}
        return parsed

    def _try_another(self, text: str) -> Request | None:
        """By the mould that is most likely to fit, if it is not the last one."""
        mould = self._moulds.get(_glance(text))
        request = mould.recall(text) if mould is not self._last and mould is not None else None
        if request is not None:
            self._last = mould
        return request

    def _note(self, request: Request) -> None:
        """Keep a head that was parsed line by line, until there are enough of its kind for a mould."""
        look = _glance(request.head)
        keys = [find_line(line)[0] for line in field_lines(request.head)]
        named = [key for key in keys if key]
        if len(set(named)) < len(named):
            return  # a field has several lines
        name = (*look, request.version, *keys)
        kind = self._kinds.get(name)
        if kind is None:
            if len(self._kinds) >= KINDS:
                self._kinds.clear()
                self._moulds.clear()
            kind = self._kinds[name] = Kind()
        kind.heads.append(request.head)
        if len(kind.heads) >= ENOUGH:
            kind.learn(request, self._base)
        if kind.mould is not None:
            self._moulds[look] = kind.mould


def _glance(text: str) -> tuple[str, int]:
    """How the method begins, and how many lines there are."""
    return text[:4], text.count("\n")
