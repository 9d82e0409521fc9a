"""How much memory a process uses, read from /proc; psutil where there is none."""

from __future__ import annotations

import os

from minicorn.record import Value

_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_rss(pid: int) -> int:
    """Resident bytes, shared ones included; 0 when the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except FileNotFoundError:
        return _ask_psutil(pid)
    except OSError:
        return 0  # EMFILE: psutil could not look either, nor even be imported


class Memory(Value):
    """One process's, in bytes; of several, `pss` and `private` add up, the others count pages many times."""

    rss: int = 0  # shared pages are counted whole
    pss: int = 0  # each page divided by how many processes map it; `rss` where the system does not tell
    shared: int = 0  # mapped by others as well
    private: int = 0  # its end would free so much


def read_memory(pid: int) -> Memory:
    """All that the system tells of it: RSS alone of another user's process, or where there is no Linux.

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
    """Bytes of its own and its share of the shared ones, as dear as `read_memory`."""
    return read_memory(pid).pss


def _ask_psutil(pid: int) -> int:
    try:
        import psutil
    except ImportError:
        return 0
    try:
        rss: int = psutil.Process(pid).memory_info().rss
        return rss
    except psutil.Error:
        return 0
