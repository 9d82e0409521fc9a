"""Requests that take long: of each, once, the stack is asked for and then told. Values in, values out.

The arbiter asks by a signal that faulthandler answers, so that C code that keeps the GIL shows
too, and the request goes on as before. It looks at the workers' pages: they themselves do nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# Seconds that an answer may take
ANSWER = 0.2


@dataclass(slots=True)
class SlowRequests:
    """Those of one server. Times are monotonic seconds."""

    limit: float  # in the application; 0: nobody asks
    _seen: dict[int, float] = field(default_factory=dict)  # by pid, since when the request ran that was asked about
    _asked: dict[int, float] = field(default_factory=dict)  # by pid, when the answer is due
    wake_at: float = math.inf

    def plan(self, now: float, busy: Mapping[int, float]) -> tuple[list[int], list[int]]:
        """The pids to ask for their stacks, and those whose answers to read now.

        `busy`: by pid, since when its request is in the application. An answer for one that has
        ended meanwhile shows something else, and is not read.
        """
        for pid, since in list(self._seen.items()):
            if busy.get(pid) != since:
                del self._seen[pid]
                self._asked.pop(pid, None)
        answered = [pid for pid, due in self._asked.items() if now >= due]
        for pid in answered:
            del self._asked[pid]
        unseen = {pid: since + self.limit for pid, since in busy.items() if pid not in self._seen}
        slow = [pid for pid, due in unseen.items() if now >= due]
        for pid in slow:
            self._seen[pid] = busy[pid]
            self._asked[pid] = now + ANSWER
        waiting = [due for pid, due in unseen.items() if pid not in slow]
        self.wake_at = min([*waiting, *self._asked.values()], default=math.inf)
        return slow, answered
