"""A control group that limits the memory of what is in it, of either version."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import wait_until

CGROUPS = Path("/sys/fs/cgroup")
# Of version 1. A manager that starts, in another test, takes all that is in its own group here back to its own
# groups elsewhere: who is to stay in the cage leaves that as well
SYSTEMD = CGROUPS / "systemd"


def _place() -> Path:
    """Where a group of ours is made: below our own, of either version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return CGROUPS / "memory" / path.lstrip("/")
    return CGROUPS / path.lstrip("/")


def _limit(group: Path, mebibytes: int) -> None:
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    with (group / name).open("r+") as limit:
        limit.write(str(mebibytes * 2**20))
    for name in ("memory.swap.max", "memory.swappiness"):
        if (group / name).exists():
            (group / name).write_text("0")


@contextmanager
def cage(mebibytes: int) -> Iterator[str]:
    """Steps for the `prelude` of a server, which must have ended before: into a group that may have so much memory
    and no swap. Skips where none can be made."""
    name = f"minicorn-test-{os.getpid()}"
    groups = [_place() / name, *([SYSTEMD / name] if SYSTEMD.is_dir() else [])]

    def remove() -> bool:
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        return not any(group.exists() for group in groups)

    try:
        groups[0].mkdir()
        _limit(groups[0], mebibytes)
    except OSError as error:
        remove()
        pytest.skip(f"no memory control group can be made here: {error}")
    yield " ".join(f"cgroup={group}" for group in groups)
    wait_until(remove, "the groups are empty")
