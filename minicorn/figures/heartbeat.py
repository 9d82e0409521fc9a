"""Heartbeats: one mapped page a worker, in memory.

A beat is a store into memory, no system call. The worker writes a promise, not a time stamp:
"judge me late after this monotonic instant". The same page says what it is doing, so that a
kill can name the request, and what it has done, so that whoever looks costs it nothing. Pages
are made by the arbiter before the fork (see `directory`), and mapped by both.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from enum import IntEnum

from minicorn.figures.counters import (
    ACCEPTED,
    BLOCK,
    BOUNDS,
    FIELDS,
    GIVEN,
    QUEUE,
    RECEIVED,
    REFUSED,
    ROWS,
    TABLE,
    TAKEN,
    TOTALS,
    Counters,
)
from minicorn.pool.life import State
from minicorn.record import Value

SIZE = 4096
# Layout: eight-byte fields. First those that the arbiter writes: which worker this is, and where it is in its life
_PID, _GENERATION, _BORN, _LIFE = range(1, 5)
# Those that the worker writes
_CONNECTIONS, _ERROR_AT, _ERROR_LENGTH = range(8, 11)
_LENGTH, _DEADLINE, _SINCE, _ACTIVITY = range(16, 20)
# Then the counters, totals first, so that what a request writes as it ends is one piece, in one cache line
_FIRST = _ACTIVITY + 1
_COUNTERS = 8 * _FIRST
_COUNTERS_END = _COUNTERS + BLOCK.size
_BEGUN, _BEGUN_AT = struct.Struct("@QddQ"), 8 * _LENGTH
_BEGUN_END = _BEGUN_AT + _BEGUN.size
_ENDED, _ENDED_AT = struct.Struct(f"@ddQ{TOTALS}"), 8 * _DEADLINE
_ENDED_END = _ENDED_AT + _ENDED.size
# Then a text: the client, the request, its id, its head, with a line feed after each but the last
_TEXT, _TEXT_MOST = _COUNTERS_END, 2048
# Then its last error
_ERROR, _ERROR_MOST = 3584, 512

_LIVES = list(State)
_NONE = ROWS["n"]
_QUICK = BOUNDS[0]  # most wait for less, and many take less: no search


class Activity(IntEnum):
    """What a worker is doing."""

    BOOTING = 0
    IDLE = 1
    BUSY = 2  # inside the application


_ACTIVITIES = {int(activity): activity for activity in Activity}
_IDLE, _BUSY = int(Activity.IDLE), int(Activity.BUSY)


class Beat(Value):
    """A page as it was read: times are monotonic seconds."""

    activity: Activity
    requests: int
    deadline: float
    since: float
    request: str  # "GET /path", the last one while idle
    client: str
    request_id: str = ""
    head: str = ""  # as it came, cut off where it is long; "" without an access log

    def describe(self, now: float) -> str:
        """What the worker has been doing, and for how long."""
        took = f"{max(0.0, now - self.since):.1f} s"
        if self.activity is Activity.BUSY:
            return f"{took} in {self.request}" + (f" for {self.client}" if self.client else "")
        return f"{took} booting" if self.activity is Activity.BOOTING else f"idle for {took}"


class Occupant(Value):
    """The worker that a page is of, as the arbiter has written there; its pid is 0 while there is none."""

    pid: int
    generation: int
    born: float
    life: State


class Page:
    """The page of one worker, who writes all of it but for what the arbiter says of the worker."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._numbers = memoryview(memory).cast("Q")
        self._times = memoryview(memory).cast("d")
        self._count = self._numbers[_FIRST : _FIRST + FIELDS]
        self.requests = 0  # that the application has answered, in this process
        self._start_totals()

    def _start_totals(self) -> None:
        """Begin the totals at 0. Nobody else adds to a worker's, so they are written and never read back."""
        self._took = self._waited = 0.0
        self._received = self._sent = 0

    # The arbiter's

    def reset(self, deadline: float, now: float) -> None:
        """A new worker is about to be forked: it must be READY by `deadline`."""
        self._memory[:] = bytes(SIZE)
        self._start_totals()
        self._times[_DEADLINE] = deadline
        self._times[_SINCE] = now

    def enter(self, pid: int, generation: int, born: float) -> None:
        """Assign the page to the worker `pid`, forked at `born`."""
        self._numbers[_GENERATION] = generation
        self._times[_BORN] = born
        self._numbers[_PID] = pid

    def live(self, life: State) -> None:
        """Tell where the worker is in its life."""
        self._numbers[_LIFE] = _LIVES.index(life)

    def vacate(self) -> None:
        """Assign the page to nobody: the worker has gone, and its counters are kept elsewhere."""
        self._memory[_COUNTERS:_COUNTERS_END] = bytes(BLOCK.size)
        self._start_totals()
        self._numbers[_CONNECTIONS] = self._numbers[_PID] = 0

    # The worker's

    def promise(self, deadline: float) -> None:
        """Judge me late after `deadline`."""
        self._times[_DEADLINE] = deadline

    def extend(self, seconds: float) -> None:
        """Put the promised deadline off by `seconds`."""
        self._times[_DEADLINE] += seconds

    def begin(
        self, method: str, target: str, client: str, now: float, deadline: float, request_id: str = "", head: str = ""
    ) -> None:
        """The application is called for a request, and answers by `deadline`; its `head` is for the access log."""
        text = f"{client}\n{method} {target}\n{request_id}\n{head}".encode("latin-1", "replace")
        size = len(text)
        if size > _TEXT_MOST:
            text, size = text[:_TEXT_MOST], _TEXT_MOST
        self._memory[_TEXT : _TEXT + size] = text
        # Not pack_into: it clears its place first, and a deadline that is seen as 0 is a killed worker
        self._memory[_BEGUN_AT:_BEGUN_END] = _BEGUN.pack(size, deadline, now, _BUSY)

    def end(
        self, now: float, deadline: float, status: str | None, took: float, waited: float, received: int, sent: int
    ) -> None:
        """The application is done, and whoever called it is heard of again by `deadline`. It `took` so long,
        after its request had `waited` (seconds); `received` and `sent` in bytes. No `status`: its client went
        before there was one."""
        count = self._count
        count[QUEUE + (0 if waited <= _QUICK else bisect_left(BOUNDS, waited))] += 1
        count[(ROWS[status[0]] if status else _NONE) + (0 if took <= _QUICK else bisect_left(BOUNDS, took))] += 1
        self._took += took
        self._waited += waited
        self._received += received
        self._sent += sent
        self.requests += 1
        self._memory[_ENDED_AT:_ENDED_END] = _ENDED.pack(
            deadline, now, _IDLE, self._took, self._waited, self._received, self._sent
        )

    def idle(self, now: float) -> None:
        """Wait for a request from now on."""
        self._times[_SINCE] = now
        self._numbers[_ACTIVITY] = _IDLE

    def refused(self, received: int) -> None:
        """Count a request that never reaches the application, of which so many bytes have come."""
        self._count[REFUSED] += 1
        self._received += received
        self._count[RECEIVED] = self._received

    def accepted(self) -> None:
        """Count a connection that has come by a listener."""
        self._count[ACCEPTED] += 1

    def given(self) -> None:
        """Count a connection that has gone to another worker."""
        self._count[GIVEN] += 1

    def taken(self) -> None:
        """Count a connection that has come from another worker."""
        self._count[TAKEN] += 1

    def holds(self, connections: int) -> None:
        """Tell how many connections are open here."""
        self._numbers[_CONNECTIONS] = connections

    def erred(self, text: str, at: float) -> None:
        """Keep the last error, and when it was logged (seconds since the epoch)."""
        data = text.encode("utf-8", "replace")[:_ERROR_MOST]
        self._numbers[_ERROR_LENGTH] = 0
        self._memory[_ERROR : _ERROR + len(data)] = data
        self._times[_ERROR_AT] = at
        self._numbers[_ERROR_LENGTH] = len(data)

    # Looking

    @property
    def deadline(self) -> float:
        """The instant, by the monotonic clock, until which the worker is not late."""
        return self._times[_DEADLINE]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._numbers[_CONNECTIONS]

    def read(self) -> Beat:
        """Read what the worker is doing."""
        activity = self._numbers[_ACTIVITY]
        text = self._memory[_TEXT : _TEXT + min(self._numbers[_LENGTH], _TEXT_MOST)].decode("latin-1")
        client, request, request_id, head = (text.split("\n", 3) + [""] * 4)[:4]
        return Beat(
            _ACTIVITIES.get(activity, Activity.IDLE),
            sum(self._count[TABLE:]),
            self._times[_DEADLINE],
            self._times[_SINCE],
            request,
            client,
            request_id,
            head,
        )

    def read_occupant(self) -> Occupant:
        """Read which worker this page is of; pid 0 for none."""
        life = _LIVES[min(self._numbers[_LIFE], len(_LIVES) - 1)]
        return Occupant(self._numbers[_PID], self._numbers[_GENERATION], self._times[_BORN], life)

    def read_counters(self) -> Counters:
        """Read what the worker has done."""
        return Counters.unpack(self._memory[_COUNTERS:_COUNTERS_END])

    def read_error(self) -> tuple[float, str]:
        """Read when the last error was logged (seconds since the epoch), and its text; 0.0 and "" without one."""
        length = min(self._numbers[_ERROR_LENGTH], _ERROR_MOST)
        return self._times[_ERROR_AT], self._memory[_ERROR : _ERROR + length].decode("utf-8", "replace")


def private_page() -> Page:
    """A page that nobody else sees, for a server without an arbiter."""
    return Page(mmap.mmap(-1, SIZE))
