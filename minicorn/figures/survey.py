"""Servers as they are seen from outside: found by their directories, read by mapping their files.

Nothing is sent, and nothing of a server's is waited for: it does not notice.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from pathlib import Path

from minicorn.figures import heartbeat, ledger
from minicorn.figures.counters import Counters
from minicorn.figures.directory import LEDGER, LOCK, PREFIX, default_base
from minicorn.figures.heartbeat import Activity, Page
from minicorn.figures.ledger import Ledger
from minicorn.figures.snapshot import Condition, Snapshot, WorkerView
from minicorn.pool.life import State
from minicorn.pool.standing import Complaint, Standing
from minicorn.system import scratch

# A look that meets the arbiter writing is taken again; one that always does is taken as it is
_LOOKS = 100
_PAUSE = 0.001


def find(base: str | None = None) -> list[Path]:
    """The directories of living servers below `base`, or where they are by default; those that we may read."""
    bases = {base} if base else {default_base(), scratch.directory()}
    found = [path for each in sorted(bases) for path in _candidates(Path(each)) if is_alive(path)]
    return list({path.resolve(): path for path in found}.values())


def _candidates(base: Path) -> list[Path]:
    try:
        return sorted(base.glob(f"{PREFIX}*"))
    except OSError:
        return []  # we may not look there


def find_by_pid(pid: int) -> Path | None:
    """The directory of the arbiter `pid`, wherever it is."""
    try:
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        links = []
    held = {Path(link).parent for link in links if Path(link).name == LEDGER and f"/{PREFIX}" in link}
    return next((path for path in [*held, *find()] if _is_of(path, pid)), None)


def is_made_up(path: Path, pid: int) -> bool:
    """Whether the process `pid`, which this directory names as its arbiter, does not have its ledger open: then
    somebody who may write there wants a signal to be sent to it. False where we may not look into the process."""
    try:
        ledger, opened = os.stat(path / LEDGER), list(Path(f"/proc/{pid}/fd").iterdir())
        return not any(_is_same(each, ledger) for each in opened)
    except OSError:
        return False


def _is_same(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:  # closed meanwhile
        return False


def is_alive(path: Path) -> bool:
    """Whether the server of this directory lives: it holds the lock."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def look(path: Path) -> Snapshot:
    """Look at a server as it is now, but for what its processes use. OSError when its directory has gone,
    ValueError when it has said nothing yet, or is of another version."""
    with (path / LEDGER).open("rb") as file:
        book = Ledger(mmap.mmap(file.fileno(), ledger.SIZE, prot=mmap.PROT_READ))
    snapshot: Snapshot | ValueError
    for _ in range(_LOOKS):
        before = book.sequence
        try:
            snapshot = _look(path, book)
        except ValueError as error:  # it may be half of what is written at this moment
            snapshot = error
        if not before % 2 and book.sequence == before:
            break
        time.sleep(_PAUSE)
    if isinstance(snapshot, ValueError):
        raise snapshot
    return snapshot


def read_standing(path: Path) -> Standing:
    """Read where the server stands, without its workers; errors as with `look`."""
    return look(path).standing


def _look(path: Path, book: Ledger) -> Snapshot:
    now = time.monotonic()
    slots = sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdigit())
    gone, views = book.counters, []
    for slot in slots:
        with (path / str(slot)).open("rb") as file:
            page = Page(mmap.mmap(file.fileno(), heartbeat.SIZE, prot=mmap.PROT_READ))
        view = _view(slot, page)
        if view.pid:
            views.append(view)
        else:
            gone += view.counters  # of one that has just gone
    return Snapshot(now, book.heard, book.standing, tuple(views), gone)


def _view(slot: int, page: Page) -> WorkerView:
    occupant, beat = page.read_occupant(), page.read()
    counters: Counters = page.read_counters()
    at, error = page.read_error()
    if occupant.life is State.READY:
        state = Condition.BUSY if beat.activity is Activity.BUSY else Condition.IDLE
    else:
        state = Condition(occupant.life.value)
    return WorkerView(
        slot,
        occupant.pid,
        occupant.generation,
        state,
        occupant.born,
        beat.since,
        beat.request,
        beat.client,
        page.connections,
        counters,
        Complaint(at, error) if error else None,
    )


def _is_of(path: Path, pid: int) -> bool:
    try:
        return is_alive(path) and read_standing(path).pid == pid
    except (OSError, ValueError):
        return False
