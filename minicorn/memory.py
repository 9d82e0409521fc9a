"""How much memory a process uses, read from /proc; psutil where there is none."""

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_rss(pid: int) -> int:
    """Resident bytes, shared ones included; 0 when the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except FileNotFoundError:
        return _ask_psutil(pid)
    except OSError:
        return 0  # EMFILE: psutil could not look either, nor even be imported


def read_pss(pid: int) -> int:
    """Bytes of its own and its share of the shared ones; RSS where the system does not tell.

    Costs the kernel a walk over the process's pages: ask rarely.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # another user's process, or no Linux
    return read_rss(pid)


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
