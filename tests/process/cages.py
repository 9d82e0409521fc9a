"""A control group that limits the memory of what is in it, of either version."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import wait_until
from turns import take_turn

CGROUPS = Path("/sys/fs/cgroup")


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
    """The step for the `prelude` of a server, which must have ended before: into a group that may have so much
    memory and no swap. Skips where none can be made."""
    group = _place() / f"minicorn-test-{os.getpid()}"

    def remove() -> bool:
        with contextlib.suppress(OSError):
            group.rmdir()
        return not group.exists()

    with take_turn():
        try:
            group.mkdir()
            _limit(group, mebibytes)
        except OSError as error:
            remove()
            pytest.skip(f"no memory control group can be made here: {error}")
        yield f"cgroup={group}"
        wait_until(remove, "the group is empty")
