"""The idle map: which workers wait for work, in one page of memory that all of them share.

Whoever has more than it can serve looks here before it gives anything away. A mark is a store into
memory, no system call. It may have changed by the time that it is read: nothing but speed depends on it.
"""

from __future__ import annotations

import mmap

SIZE = 4096  # bytes, one a slot


class IdleMap:
    """Which workers wait for work.

    `marks`: a byte a slot, True or False. Set by the slot's worker; cleared by the arbiter when it has gone.
    """

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        """`slots`: the highest number that is looked at."""
        self.marks = memory
        self._slots = min(slots + 1, SIZE)

    def count(self) -> int:
        """How many workers wait for work."""
        return self.marks[: self._slots].count(1)


def private_idle_map() -> IdleMap:
    """A map for a server without siblings."""
    return IdleMap(mmap.mmap(-1, SIZE), 1)
