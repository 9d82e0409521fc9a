"""Blocks of counters: what they say, and that they add up."""

import pytest

from minicorn.figures.counters import BOUNDS, BUCKETS, FIELDS, NOTHING, Counters, Histogram, add_up


def histogram(**counts: int) -> Histogram:
    """By the place of a bucket: `b3=2`."""
    cells = [0] * BUCKETS
    for place, count in counts.items():
        cells[int(place[1:])] = count
    return Histogram(tuple(cells), 0.0)


def block(start: int) -> Counters:
    return Counters((start + 0.5, start + 0.25, *range(start, start + FIELDS - 2)))


def test_a_block_survives_the_memory_that_it_is_written_to() -> None:
    assert Counters.unpack(block(7).pack()) == block(7)


def test_an_empty_memory_is_nothing() -> None:
    assert Counters.unpack(bytes(8 * FIELDS)) == NOTHING
    assert (NOTHING.requests, NOTHING.latency.count, NOTHING.queue.count) == (0, 0, 0)


def test_blocks_add_up_and_a_difference_is_what_came_between() -> None:
    both = add_up([block(1), block(10)])
    assert both == block(1) + block(10)
    assert both - block(10) == block(1)
    assert add_up([]) == NOTHING
    assert both.requests == block(1).requests + block(10).requests


def test_a_request_is_in_its_class_and_in_the_histogram_once() -> None:
    counted = block(3)
    assert sum(counted.by_status.values()) == counted.requests == counted.latency.count


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, {}, 0.0),
        (0.5, {"b0": 10}, BOUNDS[0] / 2),
        (1.0, {"b0": 10}, BOUNDS[0]),
        (0.5, {"b3": 50, "b6": 50}, BOUNDS[3]),
        (0.75, {"b3": 50, "b6": 50}, (BOUNDS[5] + BOUNDS[6]) / 2),
        (0.99, {"b18": 1}, BOUNDS[-1]),  # longer than all bounds
    ],
)
def test_a_quantile_lies_within_its_bucket_by_proportion(share: float, counts: dict[str, int], expected: float) -> None:
    assert histogram(**counts).quantile(share) == pytest.approx(expected)
