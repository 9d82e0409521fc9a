"""What the system tells of real processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicorn.system.process import Memory, is_stopped, read_cpu, read_memory, read_parent


def test_what_is_shared_and_private_makes_up_what_is_resident() -> None:
    memory = read_memory(os.getpid())
    assert memory.rss == memory.shared + memory.private
    assert memory.private <= memory.pss <= memory.rss


def test_a_process_that_is_not_there_uses_nothing() -> None:
    assert read_memory(2**22 + 1) == Memory()


@pytest.mark.skipif(sys.platform != "linux", reason="where there is no /proc, psutil is asked")
def test_a_process_has_used_cpu_and_has_a_parent() -> None:
    sum(range(1_000_000))
    assert 0 < read_cpu(os.getpid()) < 3600
    assert read_parent(os.getpid()) == os.getppid()
    assert (read_cpu(2**22 + 1), read_parent(2**22 + 1), is_stopped(2**22 + 1)) == (0.0, 0, False)
    subprocess.run([sys.executable, "-S", "-c", "sum(range(5_000_000))"], check=True)
    times = os.times()
    assert read_cpu(os.getpid()) == pytest.approx(times.user + times.system, abs=0.05)
    reaped = times.children_user + times.children_system
    assert read_cpu(os.getpid(), reaped=True) == pytest.approx(times.user + times.system + reaped, abs=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"a) S 1 \xff")
    shutil.copy(shutil.which("sleep") or "", name)
    with subprocess.Popen([name, "60"]) as process:
        assert read_parent(process.pid) == os.getpid()
        process.kill()
