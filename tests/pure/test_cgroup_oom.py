"""The kernel's count of processes killed for want of memory, read from made-up cgroup trees."""

from pathlib import Path

from minicorn.system.cgroup import read_oom_kills


def v2(root: Path, group: str, kills: int) -> None:
    """`oom` counts the times that memory was short, also those that killed nobody."""
    write(root / group / "memory.events", f"low 0\nhigh 7\nmax 9\noom 5\noom_kill {kills}\noom_group_kill 1\n")


def v1(root: Path, group: str, kills: int) -> None:
    write(root / "memory" / group / "memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_counter_of_our_group_is_read_in_both_versions(tmp_path: Path) -> None:
    v2(tmp_path, "app", 3)
    assert read_oom_kills("0::/app\n", tmp_path) == 3
    v1(tmp_path, "docker/x", 4)
    assert read_oom_kills("11:cpuset:/\n4:memory:/docker/x\n", tmp_path) == 4


def test_the_kills_of_the_groups_above_and_beside_are_none_of_ours(tmp_path: Path) -> None:
    v2(tmp_path, "system.slice", 8)
    v2(tmp_path, "system.slice/other.service", 8)
    v2(tmp_path, "system.slice/app.service", 0)
    assert read_oom_kills("0::/system.slice/app.service\n", tmp_path) == 0


def test_the_nearest_group_with_a_counter_speaks_for_one_without(tmp_path: Path) -> None:
    v2(tmp_path, "pod", 2)
    (tmp_path / "pod/app").mkdir()
    assert read_oom_kills("0::/pod/app\n", tmp_path) == 2


def test_a_container_that_does_not_see_its_own_path_reads_the_root(tmp_path: Path) -> None:
    v1(tmp_path, "", 6)
    assert read_oom_kills("4:memory:/docker/not-mounted-here\n", tmp_path) == 6


def test_on_a_hybrid_system_version_1_governs_memory(tmp_path: Path) -> None:
    v1(tmp_path, "x", 5)
    assert read_oom_kills("4:memory:/x\n0::/x\n", tmp_path) == 5


def test_without_a_counter_nobody_was_killed(tmp_path: Path) -> None:
    assert read_oom_kills("", tmp_path) == 0
    assert read_oom_kills("0::/app\n4:memory:/app\n", tmp_path) == 0
    write(tmp_path / "app/memory.events", "low 0\noom 5\n")  # before Linux 4.13
    assert read_oom_kills("0::/app\n", tmp_path) == 0
