"""A mould: what the heads of one kind of client have in common, with gaps for the rest.

It reads a head that fits in one step, and refuses none: what does not fit is parsed line by line.
It lets nothing through that this would not, for its own lines have been parsed so, and its gaps
take only what may be a target, and values of visible ASCII with spaces within.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from minicorn.http.request import Framing, Request, find_line, judge, resolve_target
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# RFC 9112 3.2; no "#" (RFC 3986)
_TARGET = r'([!"$-~]++)'
# Fields whose value decides more than itself
_DECISIVE = frozenset(["HTTP_HOST", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_EXPECT"])


class Mould:
    """A head whose target, and the values of some of whose field lines, may be others."""

    __slots__ = ("_aside", "_match", "_meta", "_model", "_settled", "_texts")

    def __init__(self, model: Request, varies: Sequence[bool], base: Mapping[str, Any]) -> None:
        """`model` is such a request, without two lines of one field, as it was parsed; `varies` tells which
        of its lines may have another value, `base` what the meta-variables are put upon."""
        self._model = model.again("", {}, "", ())  # its own become an environ, with all that is put into it
        self._meta = {**base, "REQUEST_METHOD": model.method, "SERVER_PROTOCOL": model.version}
        self._aside: list[tuple[str, str]] = []  # the name of each line set aside, and its key until then
        self._settled = True  # all but the target, for all such heads
        gaps, texts = [_TARGET], [f" {model.version}\r\n"]
        for line, gap in zip(field_lines(model.head), varies, strict=True):
            name, _, rest = line.partition(":")
            key, value = find_line(line)
            pattern = rf" *+(?P<{key}>[ -~]*+)(?<! )"
            if not key:
                key, value = f"aside{len(self._aside)}", rest
                pattern = rf"(?P<{key}>[ -~]*+)"  # as it came
                self._aside.append((f"{name}:", key))
            self._meta[key] = value
            if gap and key.isidentifier():  # as the name of a group has to be
                texts[-1] += f"{name}:"
                texts.append("\r\n")
                gaps.append(pattern)
                self._settled = self._settled and key not in _DECISIVE
            else:
                texts[-1] += f"{line}\r\n"
        texts[-1] += "\r\n"
        if self._settled and model.framing is Framing.CHUNKED:
            del self._meta["HTTP_TRANSFER_ENCODING"]  # as `judge` does
        # The texts by their lengths, to be compared afterwards: quicker than to match them, and shorter
        pattern = "".join(f"{gap}(.{{{len(text)}}})" for gap, text in zip(gaps, texts, strict=True))
        self._match = re.compile(f"{re.escape(model.method)} {pattern}", re.DOTALL).match
        self._texts = tuple(texts)

    def recall(self, text: str) -> Request | None:
        """The request whose head `text` begins with, if it fits. ProtocolError for one that is refused by its target
        or by what is in a gap."""
        match = self._match(text)
        if match is None or match.groups()[1::2] != self._texts:
            return None
        model, meta = self._model, self._meta | match.groupdict()
        aside = tuple([name + meta.pop(key) for name, key in self._aside]) if self._aside else ()
        target = meta["RAW_URI"] = meta["REQUEST_URI"] = match[1]
        if self._settled:
            request = model.again(target, meta, match[0], aside)
            resolve_target(request)
        else:
            request = Request(model.method, target, model.version, meta, match[0], aside)
            judge(request)
        return request


def field_lines(head: str) -> list[str]:
    """The field lines of a head, as they came."""
    return head.split("\r\n")[1:-2]
