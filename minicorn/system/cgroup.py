"""What the control group and the affinity allow: CPUs, memory; and what the group has suffered: OOM kills.

Version 1 and 2 of cgroups; a group is limited by its ancestors too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

ROOT = "/sys/fs/cgroup"
_UNLIMITED = 1e9
_NO_LIMIT = 2**63
# Bytes: less than a worker of a small application takes, with its share of the arbiter
_WORKER_MEMORY = 64 << 20


def count_workers(wanted: int | Literal["auto"]) -> int:
    """How many workers --workers asks for: with "auto" one for each CPU, as far as the group's memory goes."""
    if wanted != "auto":
        return wanted
    return max(1, min(count_cpus(), int(read_memory_limit(_membership(), ROOT) // _WORKER_MEMORY)))


def count_cpus() -> int:
    """CPUs within affinity and quota, rounded down, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1  # macOS
    return max(1, min(allowed, int(read_quota(_membership(), ROOT))))


def count_oom_kills() -> int:
    """Processes of our group that the kernel has killed for want of memory, as far as it tells."""
    return read_oom_kills(_membership(), ROOT)


def _membership() -> str:
    return _read("/proc/self/cgroup") or ""  # no Linux


def read_quota(membership: str, root: str) -> float:
    """CPUs that the cgroups named in `membership` (/proc/self/cgroup) and those above them grant."""
    quotas = [
        (_read_quota_2 if version == 2 else _read_quota_1)(directory)
        for version, directory in _directories(membership, root, "cpu")
    ]
    return min(quotas, default=_UNLIMITED)


def read_memory_limit(membership: str, root: str) -> int:
    """Bytes that the cgroups named in `membership` and those above them grant."""
    return min(
        (_read_memory_limit(directory) for _, directory in _directories(membership, root, "memory")),
        default=_NO_LIMIT,
    )


def read_oom_kills(membership: str, root: str) -> int:
    """The `oom_kill` counter of our group, or of the nearest above that has one. Whoever's limit was hit, the
    kill is counted where the victim was; further up others' are counted as well."""
    counters = (_read_oom_kills(directory) for _, directory in _directories(membership, root, "memory"))
    return next((kills for kills in counters if kills is not None), 0)


def _directories(membership: str, root: str, controller: str) -> Iterator[tuple[int, str]]:
    """The version and folder of each group that governs `controller`, and of those above it."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            hierarchies = [(2, root)]
        elif controller in controllers.split(","):
            hierarchies = [(1, f"{root}/{controllers}"), (1, f"{root}/{controller}")]
        else:
            continue
        for version, hierarchy in hierarchies:
            group = path.strip("/")
            while group:
                yield version, f"{hierarchy}/{group}"
                group = group.rpartition("/")[0]
            yield version, hierarchy


def _read_quota_2(directory: str) -> float:
    text = _read(f"{directory}/cpu.max")
    return _ratio(*text.split()) if text else _UNLIMITED


def _read_quota_1(directory: str) -> float:
    quota, period = _read(f"{directory}/cpu.cfs_quota_us"), _read(f"{directory}/cpu.cfs_period_us")
    return _ratio(quota, period) if quota and period else _UNLIMITED


def _ratio(quota: str, period: str) -> float:
    return _UNLIMITED if quota == "max" or int(quota) < 0 else int(quota) / int(period)


def _read_memory_limit(directory: str) -> int:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _read(f"{directory}/{name}")
        if text and text.strip() != "max":
            return int(text)
    return _NO_LIMIT


def _read_oom_kills(directory: str) -> int | None:
    for name in ("memory.events", "memory.oom_control"):
        for line in (_read(f"{directory}/{name}") or "").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return None


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None  # the root group has no such file
