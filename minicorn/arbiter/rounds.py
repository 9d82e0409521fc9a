"""The arbiter's rounds: what it sees of its workers without asking them.

It reads their pages, weighs their processes, and has faulthandler show the stacks of requests
that are slow. The workers themselves do nothing for it.
"""

from __future__ import annotations

import math
import os
import time

from minicorn.figures.directory import Directory
from minicorn.figures.heartbeat import Activity, Beat
from minicorn.logs.logger import LOGGER
from minicorn.pool.exits import trim
from minicorn.pool.notifier import describe
from minicorn.pool.pool import Pool
from minicorn.pool.slow import SlowRequests
from minicorn.system.process import read_pss, read_rss
from minicorn.system.signals import STACKS


class Rounds:
    """Looks at the pages of one arbiter's workers, again and again. Times are monotonic seconds."""

    def __init__(self, pool: Pool, directory: Directory) -> None:
        self._pool = pool
        self._directory = directory
        self._slow = SlowRequests(0.0)
        self._counted: tuple[float, dict[int, int]] = time.monotonic(), {}  # requests by pid, when last described

    def promises(self) -> dict[int, float]:
        """By pid, when each worker and template may be judged late by its own word, in monotonic seconds."""
        return {pid: self._directory.page(child.slot).deadline for pid, child in self._pool.children.items()}

    def doing(self, pid: int) -> str:
        """Describe in words what a worker or template is doing."""
        return self._directory.page(self._pool.children[pid].slot).read().describe(time.monotonic())

    def describe(self, boot_failure: str) -> str:
        """The status line for the service manager."""
        beats = self._beats()
        (before, counted), now = self._counted, time.monotonic()
        self._counted = now, {pid: beat.requests for pid, beat in beats.items()}
        served = sum(beat.requests - counted.get(pid, 0) for pid, beat in beats.items())
        busy = sum(beat.activity is Activity.BUSY for beat in beats.values())
        return describe(self._pool, busy, served / max(now - before, 0.001), boot_failure)

    def tell_lives(self) -> None:
        """Write on each worker's page where it is in its life, for whoever looks from outside."""
        for worker in self._pool.workers.values():
            self._directory.page(worker.slot).live(worker.state)

    def allow(self, pid: int, most: int) -> None:
        """Limit a worker's memory to `most` bytes, and see with how much it begins; 0: no limit."""
        if most:
            self._pool.allow(pid, most, _weigh(pid, most))

    def weigh(self) -> None:
        """Tell the pool how much memory each worker uses."""
        for pid, worker in self._pool.workers.items():
            self._pool.weighed(pid, _weigh(pid, worker.max_memory))

    def count(self) -> None:
        """Tell the pool how many requests each worker has answered."""
        for pid, beat in self._beats().items():
            self._pool.answered(pid, beat.requests)

    def look_for_slow(self, limit: float, now: float) -> None:
        """Log the stack of each request that takes longer than `limit` seconds; 0: of none."""
        self._slow.limit = limit
        if not limit:
            return
        workers = self._pool.workers
        beats = {pid: beat for pid, beat in self._beats().items() if workers[pid].was_ready}
        busy = {pid: beat.since for pid, beat in beats.items() if beat.activity is Activity.BUSY}
        sizes = {pid: self._directory.measure_trace(workers[pid].slot) for pid in self._slow.asked if pid in busy}
        slow, answered = self._slow.plan(now, busy, sizes)
        for pid in slow:
            self._directory.read_trace(workers[pid].slot)  # what others have asked for
            os.kill(pid, STACKS)
        for pid in answered:
            stack = trim(self._directory.read_trace(workers[pid].slot))
            doing = beats[pid].describe(now)
            LOGGER.warning("%s is slow, %s, and goes on; its stack:\n%s", workers[pid], doing, stack or "no answer")

    @property
    def wake_at(self) -> float:
        """When to look for slow requests again, in monotonic seconds."""
        return self._slow.wake_at if self._slow.limit else math.inf

    def _beats(self) -> dict[int, Beat]:
        return {pid: self._directory.page(worker.slot).read() for pid, worker in self._pool.workers.items()}


def _weigh(pid: int, limit: int) -> int:
    """The bytes that a process uses, as PSS where RSS is above `limit`: PSS is dear to ask for, and never more."""
    weight = read_rss(pid)
    return read_pss(pid) if limit and weight > limit else weight
