"""The arbiter's own page: the counters of the workers that have gone, and where the server stands.

Totals are its block and the blocks on all pages of the directory. As a worker goes, its counters
move from its page to this one; a reader who looks meanwhile would count them twice or not at
all. So the arbiter makes a number odd before it writes, and even after: a reader starts again
when he has seen it odd, or changed at his end. (A reader can wait; the arbiter never does.)
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from minicorn.figures.counters import BLOCK, Counters
from minicorn.figures.heartbeat import Page
from minicorn.pool.standing import Standing, from_json

VERSION = 2  # of the workers' pages as well: who looks from outside asks for this one
SIZE = 65536
_VERSION, _SEQUENCE, _BEAT, _LENGTH = range(4)
_COUNTERS = 128
_TEXT = 4096
TEXT_MOST = SIZE - _TEXT


class Ledger:
    """Written by the arbiter, read by anybody whom the directory's mode lets in."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._numbers = memoryview(memory)[:_COUNTERS].cast("Q")
        self._times = memoryview(memory)[:_COUNTERS].cast("d")
        self._written: Standing | None = None

    # The arbiter's

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._numbers[_SEQUENCE] |= 1
        yield
        self._numbers[_SEQUENCE] += 1

    def beat(self, now: float) -> None:
        """Note that the arbiter is alive at `now` (monotonic seconds)."""
        self._numbers[_VERSION] = VERSION
        self._times[_BEAT] = now

    def fold(self, page: Page) -> None:
        """Take over what the worker of `page`, who has gone, has counted."""
        total = self.counters + page.read_counters()
        with self._writing():
            self._memory[_COUNTERS : _COUNTERS + BLOCK.size] = total.pack()
            page.vacate()

    def write(self, standing: Standing) -> None:
        """Write where the server stands now."""
        if standing == self._written:
            return
        data = standing.to_json().encode("utf-8", "replace")
        if len(data) > TEXT_MOST:  # what is known of old stays true enough
            return
        self._written = standing
        with self._writing():
            self._memory[_TEXT : _TEXT + len(data)] = data
            self._numbers[_LENGTH] = len(data)

    # Looking

    @property
    def sequence(self) -> int:
        """The number of writes so far, times two; odd while one is under way."""
        return self._numbers[_SEQUENCE]

    @property
    def heard(self) -> float:
        """When the arbiter last said that it was alive, in monotonic seconds."""
        return self._times[_BEAT]

    @property
    def counters(self) -> Counters:
        """What the workers that have gone had counted."""
        return Counters.unpack(self._memory[_COUNTERS : _COUNTERS + BLOCK.size])

    @property
    def standing(self) -> Standing:
        """Read where the server stands; ValueError before anything was written, or where another version has."""
        if self._numbers[_VERSION] != VERSION:
            raise ValueError("of another version")
        return from_json(self._memory[_TEXT : _TEXT + min(self._numbers[_LENGTH], TEXT_MOST)].decode("utf-8"))
