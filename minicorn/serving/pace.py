"""How quick requests are of late, and so how many may wait here for their turn.

To give a connection to a sibling costs as much as to answer two or three quick requests. So as many
stay as will have been answered within `SLOW`, should each take as long as the longest of late; one
that was long counts less with every request after it.
"""

from __future__ import annotations

SLOW = 0.001  # seconds: beyond it a wait is worth a hand-off
_OVERHEAD = 0.00005  # seconds that a request costs beside its application
_CALM = 0.97  # half a second is forgotten after 200 quick ones


class Pace:
    """How quick the requests of one worker are of late."""

    def __init__(self) -> None:
        self._longest = 1.0  # until we know better

    def note(self, took: float) -> None:
        """Learn from a request that was in the application for so many seconds."""
        remembered = self._longest * _CALM
        self._longest = took if took > remembered else remembered

    @property
    def share(self) -> int:
        """How many connections may wait for their turn here, one at least."""
        return max(1, int(SLOW / (self._longest + _OVERHEAD)))
