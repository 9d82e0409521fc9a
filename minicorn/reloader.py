"""From changed files to one roll: the arbiter's side of --reload. Time is an argument.

Old code stops answering with the first change; the roll begins when the changes have come to
rest, so that a checkout of fifty files is one roll. One file saved by an editor is the usual
case, and waits least.
"""

import math

from minicorn.changes import describe

# Seconds without a further change, after one file and after several
REST_ONE, REST_MANY = 0.02, 0.15
# Changes without end are not waited for longer
REST_MOST = 2.0


class Reloader:
    """The changes that no roll has taken up yet."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._first = math.inf
        self.wake_at = math.inf  # when the changes will have come to rest

    def note(self, kinds: dict[str, str], now: float) -> None:
        """These paths have changed, each in its way."""
        self._first = min(self._first, now)
        self._kinds |= kinds
        rest = REST_ONE if len(self._kinds) == 1 else REST_MANY
        self.wake_at = min(now + rest, self._first + REST_MOST)

    def take(self, now: float) -> str:
        """The line for the log when a roll is due, and nothing is noted any more; else ""."""
        if now < self.wake_at:
            return ""
        kinds, self._kinds = self._kinds, {}
        self._first = self.wake_at = math.inf
        return describe(kinds)
