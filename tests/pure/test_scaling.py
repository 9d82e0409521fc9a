"""The table of deploy/scaling.md: by Erlang's formula, and by a queue that is simulated."""

import heapq
import math
import random
import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "deploy/scaling.md").read_text()
USED = (0.5, 0.7, 0.8, 0.9)


def erlang_c(workers: int, load: float) -> float:
    """The share of requests that wait; by Erlang B's recursion, which does not overflow."""
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    used = load / workers
    return blocked / (1 - used * (1 - blocked))


def waits(workers: int, load: float) -> tuple[float, float]:
    """Mean and 95th percentile of the wait, in service times."""
    share, spare = erlang_c(workers, load), workers - load
    return share / spare, max(0.0, math.log(share / 0.05) / spare)


def simulate(workers: int, load: float, requests: int) -> tuple[float, float]:
    """The same two, of requests that one queue gives to the next free worker."""
    chance = random.Random(workers)
    free = [0.0] * workers
    now = 0.0
    waited = []
    for _ in range(requests):
        now += chance.expovariate(load)
        begun = max(now, heapq.heappop(free))
        waited.append(begun - now)
        heapq.heappush(free, begun + chance.expovariate(1.0))
    return sum(waited) / requests, sorted(waited)[requests * 95 // 100]


ROWS = {
    int(row[1]): [tuple(map(float, cell.split(" / "))) for cell in row[2].split(" | ")]
    for row in re.finditer(r"(?m)^\| (\d+) \| (.*) \|$", TEXT)
}


def test_the_table_is_there() -> None:
    assert sorted(ROWS) == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("workers", sorted(ROWS))
def test_the_table_is_erlangs(workers: int) -> None:
    for used, cell in zip(USED, ROWS[workers], strict=True):
        assert cell == pytest.approx(waits(workers, workers * used), abs=0.0051)


@pytest.mark.parametrize("workers", [1, 4, 8])
def test_a_simulated_queue_agrees(workers: int) -> None:
    for used, cell in list(zip(USED, ROWS[workers], strict=True))[:3]:
        assert simulate(workers, workers * used, 200_000) == pytest.approx(cell, rel=0.1, abs=0.02)


def test_the_example_holds() -> None:
    assert waits(5, 4)[0] == pytest.approx(0.55, abs=0.01)
    assert waits(8, 4)[0] < 0.02
