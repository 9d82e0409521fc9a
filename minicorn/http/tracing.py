"""The id of a request, and how long it has waited, by what a proxy in front says of both.

`X-Request-ID` and `X-Request-Start` count from peers that are trusted to say such things; of
anybody else's request the id is made here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minicorn.http.peers import Peers

ID_MOST = 200
# `t=1700000000.123` (nginx), microseconds (Apache), milliseconds (Heroku): the size tells the unit
_START = r"(?:t=)?([0-9]{1,17}(?:\.[0-9]{1,9})?)"


class Tracing:
    """Makes the ids of requests, unique as far as `prefix` is; takes over those of trusted `peers`."""

    def __init__(self, prefix: str, peers: Peers) -> None:
        self._prefix = prefix
        self._peers = peers
        self._number = 0

    def name(self, fields: Mapping[str, str], peer: str) -> str:
        """The request's id: the one that a trusted peer has given it, or a new one."""
        given = fields.get("HTTP_X_REQUEST_ID")
        if given and self._peers.trusts(peer) and _is_word(given):
            return given
        self._number += 1
        return f"{self._prefix}-{self._number:x}"

    def waited(self, fields: Mapping[str, str], peer: str, now: float, here: float) -> float:
        """Seconds since a trusted proxy took the request on; where none says when, `here`, the seconds for which it has
        waited here. `now` in seconds since 1970."""
        said = fields.get("HTTP_X_REQUEST_START")
        if said is None or not self._peers.trusts(peer):
            return here
        match = re.fullmatch(_START, said)
        if match is None:
            return here
        value = float(match[1])
        # 1e8 of a unit is the year 1973 in that unit; the same number of a smaller one is long before
        unit = next((unit for unit in (1e6, 1e3) if value >= 1e8 * unit), 1.0)
        return max(0.0, now - value / unit)


def _is_word(text: str) -> bool:
    """Whether `text` can end neither a line nor a field of a log. A pattern takes three times as long."""
    if not text.isascii() or len(text) > ID_MOST:
        return False
    return text.isalnum() or (text.isprintable() and not (" " in text or '"' in text or "\\" in text))
