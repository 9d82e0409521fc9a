"""What the system tells of a process: memory, CPU, kin. Read from /proc; psutil is asked where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable

from minicorn.record import Value
from minicorn.typed import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def read_rss(pid: int) -> int:
    """Resident memory in bytes, shared pages included; 0 when the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except FileNotFoundError:
        return _ask_psutil(pid, lambda process: int(process.memory_info().rss))
    except OSError:
        return 0  # EMFILE: psutil could not look either, nor even be imported


class Memory(Value):
    """The memory of one process in bytes. Of several, `pss` and `private` add up; the others count pages again."""

    rss: int = 0  # shared pages are counted whole
    pss: int = 0  # each page divided by how many processes map it; `rss` where the system does not tell
    shared: int = 0  # mapped by others as well
    private: int = 0  # its end would free so much


def read_memory(pid: int) -> Memory:
    """Read what the system tells of a process's memory: RSS alone for another user's, or where there is no Linux.

    Costs the kernel a walk over the process's pages: ask rarely.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        rss = read_rss(pid)
        return Memory(rss, rss)
    kilobytes = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines)}
    shared = kilobytes["Shared_Clean"] + kilobytes["Shared_Dirty"]
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Memory(*(1024 * each for each in (kilobytes["Rss"], kilobytes["Pss"], shared, private)))


def read_pss(pid: int) -> int:
    """Proportional memory (PSS) in bytes: its own, and its share of the shared. As dear as `read_memory`."""
    return read_memory(pid).pss


def read_cpu(pid: int, reaped: bool = False) -> float:
    """CPU time in seconds, user and system, of all its threads, and of the children that it has `reaped`;
    0.0 when the system does not tell."""
    try:
        fields = _read_stat(pid)
        return sum(map(int, fields[11 : 15 if reaped else 13])) / _TICKS
    except FileNotFoundError:
        return _ask_psutil(pid, lambda process: sum(process.cpu_times()[:2]))
    except OSError:
        return 0.0


def read_parent(pid: int) -> int:
    """The pid of its parent; 0 when the system does not tell."""
    try:
        return int(_read_stat(pid)[1])
    except OSError:
        return 0


def is_stopped(pid: int) -> bool:
    """Whether it is held by SIGSTOP or its like, or by a debugger; False when the system does not tell."""
    try:
        return _read_stat(pid)[0] in ("T", "t")
    except OSError:
        return False


def read_children(pid: int) -> set[int]:
    """The pids of its children; none where the system does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return set(map(int, file.read().split()))
    except OSError:
        return set()


def _read_stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat from the third on: the second, a name, may hold anything but ends it
    with the last bracket."""
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _ask_psutil(pid: int, question: Callable[[psutil.Process], T]) -> T | int:
    try:
        import psutil
    except ImportError:
        return 0
    try:
        return question(psutil.Process(pid))
    except psutil.Error:
        return 0
