"""How many CPUs this process may use: its affinity, and its cgroup's quota (v1 and v2)."""

import os
from collections.abc import Callable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def count_cpus() -> int:
    """CPUs within affinity and quota, rounded down, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1  # macOS
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:
        return allowed
    return max(1, min(allowed, int(read_quota(membership, CGROUPS))))


def read_quota(membership: str, root: Path) -> float:
    """CPUs that the cgroups named in `membership` (/proc/self/cgroup) and those above them grant."""
    quota = 1e9
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quota = min(quota, _least(root, path, _read_v2))
        elif "cpu" in controllers.split(","):
            quota = min(quota, _least(root / controllers, path, _read_v1), _least(root / "cpu", path, _read_v1))
    return quota


def _least(root: Path, path: str, read: Callable[[Path], float]) -> float:
    group = root / path.lstrip("/")
    return min(
        (read(directory) for directory in (group, *group.parents) if directory.is_relative_to(root)), default=1e9
    )


def _read_v2(directory: Path) -> float:
    try:
        quota, period = (directory / "cpu.max").read_text().split()
    except OSError:
        return 1e9  # the root has none
    return 1e9 if quota == "max" else int(quota) / int(period)


def _read_v1(directory: Path) -> float:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
    except OSError:
        return 1e9
    return 1e9 if quota < 0 else quota / period
