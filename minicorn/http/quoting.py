"""Percent-encoding (RFC 3986 2.1), without `urllib.parse`, whose import took a twentieth of a start."""

from __future__ import annotations

import re


def unquote(text: str) -> str:
    """What `text`, of latin-1, stands for, an octet a character (PEP 3333); a "%" without two digits behind it
    is itself."""
    return re.sub("%([0-9A-Fa-f]{2})", _decode, text)


def _decode(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
