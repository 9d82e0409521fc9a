"""Percent-encoding (RFC 3986 2.1), without `urllib.parse`, whose import took a twentieth of a start."""

from __future__ import annotations

import re


def unquote(text: str) -> str:
    """Decode `text`, of latin-1, into a character an octet (PEP 3333); a "%" without two hexadecimal digits behind
    it stays as it is."""
    return re.sub("%([0-9A-Fa-f]{2})", _decode, text)


def _decode(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
