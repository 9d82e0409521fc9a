"""How many clients come at once of late, and so how many to accept in one turn.

One accept a turn makes a whole turn of each client of a crowd; an accept too many, which finds nobody,
costs as much as half a request. So the guess doubles while all that were looked for have come, and
falls to those who were there when one has not; then it rests, so that a client alone pays once in `REST`.
"""

from __future__ import annotations

MOST = 16
REST = 16  # turns that go as guessed before another is looked for


class BatchSize:
    """The guess of one process: how many to accept in one turn, 1 to MOST."""

    def __init__(self) -> None:
        self.guess = 1
        self._rest = 0

    def note(self, came: int, wanted: int) -> None:
        """Learn from a turn in which so many came, of so many that were `wanted`: at most as many as the guess."""
        if came < wanted:
            self.guess = max(1, came)
            self._rest = REST
        elif self._rest:
            self._rest -= 1
        elif wanted == self.guess:
            self.guess = min(MOST, 2 * self.guess)
