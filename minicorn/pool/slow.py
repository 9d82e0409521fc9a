"""Requests that take long: of each, once, the stack is asked for and then told. Values in, values out.

The arbiter asks by a signal that faulthandler answers, so that C code that keeps the GIL shows
too, and the request goes on as before. It looks at the workers' pages: they themselves do nothing.
So a request that began since the last look is unknown: looks are no further apart than the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from minicorn.record import Record, fresh

# Seconds between looks at an answer, which is whole when it has not grown between two, and that it may take at most
GLANCE, ANSWER = 0.03, 2.0
# Seconds between looks at least, however low the limit
SHORTEST = 0.1


class _Question(Record):
    """A question to one worker about its request."""

    until: float
    due: float
    size: int = 0  # of the answer, when last looked at


class SlowRequests(Record):
    """Asks the workers of one server for the stacks of their slow requests. Times are monotonic seconds."""

    limit: float  # in the application; 0: nobody asks
    _seen: dict[int, float] = fresh(dict)  # by pid, since when the request ran that was asked about
    _asked: dict[int, _Question] = fresh(dict)
    wake_at: float = math.inf

    @property
    def asked(self) -> list[int]:
        """The pids whose answers are awaited."""
        return list(self._asked)

    def plan(self, now: float, busy: Mapping[int, float], sizes: Mapping[int, int]) -> tuple[list[int], list[int]]:
        """The pids to ask for their stacks, and those whose answers to read now.

        `busy`: by pid, since when its request is in the application; `sizes`: of the answers so
        far. An answer for one that has ended meanwhile shows something else, and is not read.
        """
        for pid, since in list(self._seen.items()):
            if busy.get(pid) != since:
                del self._seen[pid]
                self._asked.pop(pid, None)
        answered = [pid for pid, question in self._asked.items() if self._is_answered(question, sizes[pid], now)]
        for pid in answered:
            del self._asked[pid]
        unseen = {pid: since + self.limit for pid, since in busy.items() if pid not in self._seen}
        slow = [pid for pid, due in unseen.items() if now >= due]
        for pid in slow:
            self._seen[pid] = busy[pid]
            self._asked[pid] = _Question(now + ANSWER, now + GLANCE)
        waiting = [due for pid, due in unseen.items() if pid not in slow]
        glances = [question.due for question in self._asked.values()]
        self.wake_at = min([now + max(self.limit, SHORTEST), *waiting, *glances])
        return slow, answered

    @staticmethod
    def _is_answered(question: _Question, size: int, now: float) -> bool:
        if now < question.due:
            return False
        whole = size > 0 and size == question.size
        question.size, question.due = size, now + GLANCE
        return whole or now >= question.until
