"""What a worker counts: a block of eight-byte fields, and what it says once it is read.

A request adds one to one cell of a table, status class by latency; its total, its class and its
histogram are sums over cells. So a request costs few stores, and no two of its figures can
disagree. Blocks add up field by field: those of the workers that have gone are one more block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from minicorn.record import Value

# Upper ends of the buckets in seconds, inclusive; a last bucket has no end
BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
BUCKETS = len(BOUNDS) + 1
# "none": the client went before there was a status
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")

# Places in the block: two sums of seconds, then whole numbers
TOOK, WAITED = range(2)
RECEIVED, SENT, ACCEPTED, GIVEN, TAKEN, REFUSED = range(2, 8)
QUEUE = 8
TABLE = QUEUE + BUCKETS
# Where the row of a status begins, by its first digit
ROWS = {name[0]: TABLE + row * BUCKETS for row, name in enumerate(STATUSES)}
ROWS |= dict.fromkeys("6789", ROWS["5"])  # RFC 9110 15: whoever gets one takes it for a 5xx
FIELDS = TABLE + len(STATUSES) * BUCKETS
TOTALS = "ddQQ"  # the first four of the block
BLOCK = struct.Struct(f"@2d{FIELDS - 2}Q")


class Histogram(Value):
    """How many took up to each of BOUNDS, and how many longer than all; `total`: the seconds of all together."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many there were in all."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Seconds that this share (0 to 1) did not exceed, within a bucket by proportion; 0 without any.

        What lies beyond the last bound is told as the last bound.
        """
        rank = share * self.count
        below = 0
        for bucket, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                start = BOUNDS[bucket - 1] if bucket else 0.0
                return start + (BOUNDS[bucket] - start) * max(0.0, rank - below) / count
            below += count
        return BOUNDS[-1] if self.count else 0.0


class Counters(Value):
    """A block as it was read; they add and subtract."""

    values: tuple[float, ...]

    @classmethod
    def unpack(cls, block: bytes) -> Counters:
        """Read a block, as it lies in memory."""
        return cls(BLOCK.unpack(block))

    def pack(self) -> bytes:
        """The block, as it lies in memory."""
        return BLOCK.pack(*self.values)

    def __add__(self, other: Counters) -> Counters:
        return Counters(tuple(a + b for a, b in zip(self.values, other.values, strict=True)))

    def __sub__(self, other: Counters) -> Counters:
        return Counters(tuple(a - b for a, b in zip(self.values, other.values, strict=True)))

    @property
    def requests(self) -> int:
        """Requests that the application has answered, or was answering as their client went."""
        return int(sum(self.values[TABLE:]))

    @property
    def received(self) -> int:
        """Bytes of requests that have come."""
        return int(self.values[RECEIVED])

    @property
    def sent(self) -> int:
        """Bytes of replies to them, heads included."""
        return int(self.values[SENT])

    @property
    def accepted(self) -> int:
        """Connections that have come by a listener."""
        return int(self.values[ACCEPTED])

    @property
    def given(self) -> int:
        """Connections that went to another worker."""
        return int(self.values[GIVEN])

    @property
    def taken(self) -> int:
        """Connections that came from another worker."""
        return int(self.values[TAKEN])

    @property
    def refused(self) -> int:
        """Requests that never reached the application: malformed, too slow, too large, or late."""
        return int(self.values[REFUSED])

    @property
    def by_status(self) -> dict[str, int]:
        """Requests by status class."""
        return {name: sum(self._cells(ROWS[name[0]])) for name in STATUSES}

    @property
    def latency(self) -> Histogram:
        """How long requests took in the application, and in handing its reply over."""
        rows = [self._cells(ROWS[name[0]]) for name in STATUSES]
        return Histogram(tuple(map(sum, zip(*rows, strict=True))), self.values[TOOK])

    @property
    def queue(self) -> Histogram:
        """How long whole requests waited for the application."""
        return Histogram(self._cells(QUEUE), self.values[WAITED])

    def _cells(self, start: int) -> tuple[int, ...]:
        return tuple(map(int, self.values[start : start + BUCKETS]))


NOTHING = Counters((0.0, 0.0) + (0,) * (FIELDS - 2))


def add_up(blocks: Iterable[Counters]) -> Counters:
    """The sum of all `blocks`."""
    return sum(blocks, NOTHING)
