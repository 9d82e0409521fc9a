"""CPU quotas, read from made-up cgroup trees of both versions."""

import os
from pathlib import Path

import pytest

from minicorn.system.cgroup import count_cpus, count_workers, read_memory_limit, read_quota

NO_QUOTA = 1000  # more CPUs than any machine has


def v2(root: Path, group: str, text: str) -> None:
    directory = root / group
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cpu.max").write_text(text + "\n")


def v1(root: Path, group: str, quota: int, period: int = 100000) -> None:
    directory = root / group
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (directory / "cpu.cfs_period_us").write_text(f"{period}\n")


# Version 2


@pytest.mark.parametrize(
    ("text", "cpus"), [("200000 100000", 2.0), ("150000 100000", 1.5), ("50000 100000", 0.5), ("10000 5000", 2.0)]
)
def test_cpu_max_is_quota_by_period(text: str, cpus: float, tmp_path: Path) -> None:
    v2(tmp_path, "app", text)
    assert read_quota("0::/app\n", tmp_path) == cpus


def test_max_is_no_quota(tmp_path: Path) -> None:
    v2(tmp_path, "app", "max 100000")
    assert read_quota("0::/app\n", tmp_path) > NO_QUOTA


def test_a_group_above_may_grant_less(tmp_path: Path) -> None:
    v2(tmp_path, "a", "300000 100000")
    v2(tmp_path, "a/b", "100000 100000")
    v2(tmp_path, "a/b/c", "200000 100000")
    assert read_quota("0::/a/b/c\n", tmp_path) == 1.0
    assert read_quota("0::/a\n", tmp_path) == 3.0


def test_the_groups_beside_ours_do_not_count(tmp_path: Path) -> None:
    v2(tmp_path, "a", "300000 100000")
    v2(tmp_path, "b", "100000 100000")
    v2(tmp_path, "a/below", "100000 100000")
    assert read_quota("0::/a\n", tmp_path) == 3.0


def test_a_container_sees_its_own_quota_at_the_root(tmp_path: Path) -> None:
    v2(tmp_path, "", "200000 100000")
    assert read_quota("0::/\n", tmp_path) == 2.0
    assert read_quota("0::/not/mounted/here\n", tmp_path) == 2.0


def test_a_group_without_the_cpu_controller_has_no_quota(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert read_quota("0::/app\n", tmp_path) > NO_QUOTA


def test_nothing_outside_the_tree_is_read(tmp_path: Path) -> None:
    v2(tmp_path, "", "100000 100000")
    root = tmp_path / "cgroup"
    v2(root, "app", "300000 100000")
    assert read_quota("0::/app\n", root) == 3.0


def test_a_colon_in_the_name_of_a_group_is_part_of_it(tmp_path: Path) -> None:
    v2(tmp_path, "a:b", "200000 100000")
    assert read_quota("0::/a:b\n", tmp_path) == 2.0


# Version 1


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_version_1_is_found_under_its_controllers(controllers: str, tmp_path: Path) -> None:
    v1(tmp_path / controllers, "docker/x", 250000)
    assert read_quota(f"11:memory:/docker/x\n4:{controllers}:/docker/x\n", tmp_path) == 2.5


def test_the_short_name_of_joined_controllers_is_looked_at_too(tmp_path: Path) -> None:
    v1(tmp_path / "cpu", "docker/x", 250000)
    assert read_quota("4:cpuacct,cpu:/docker/x\n", tmp_path) == 2.5


def test_a_negative_quota_of_version_1_is_none(tmp_path: Path) -> None:
    v1(tmp_path / "cpu", "docker", -1)
    assert read_quota("4:cpu:/docker\n", tmp_path) > NO_QUOTA


def test_a_group_above_may_grant_less_in_version_1(tmp_path: Path) -> None:
    v1(tmp_path / "cpu", "docker", 100000)
    v1(tmp_path / "cpu", "docker/x", 400000)
    assert read_quota("4:cpu:/docker/x\n", tmp_path) == 1.0


def test_a_container_of_version_1_sees_its_own_quota_at_the_root(tmp_path: Path) -> None:
    v1(tmp_path / "cpu", "", 200000, 50000)
    assert read_quota("4:cpu:/docker/not-mounted-here\n", tmp_path) == 4.0


def test_other_controllers_have_no_say(tmp_path: Path) -> None:
    v1(tmp_path / "cpuset", "x", 100000)
    v1(tmp_path / "cpuacct", "x", 100000)
    assert read_quota("3:cpuset:/x\n2:cpuacct:/x\n1:name=systemd:/x\n", tmp_path) > NO_QUOTA


# Memory


def limit_memory(root: Path, group: str, name: str, text: str) -> None:
    (root / group).mkdir(parents=True, exist_ok=True)
    (root / group / name).write_text(text + "\n")


def test_the_lowest_memory_limit_above_us_counts(tmp_path: Path) -> None:
    limit_memory(tmp_path, "a", "memory.max", "1000")
    limit_memory(tmp_path, "a/b", "memory.max", "max")
    limit_memory(tmp_path, "a/c", "memory.max", "500")
    assert read_memory_limit("0::/a/b\n", tmp_path) == 1000
    assert read_memory_limit("0::/a/c\n", tmp_path) == 500


def test_a_container_of_version_1_sees_its_own_memory_limit_at_the_root(tmp_path: Path) -> None:
    limit_memory(tmp_path, "memory", "memory.limit_in_bytes", "2000")
    assert read_memory_limit("4:memory:/docker/not-mounted-here\n", tmp_path) == 2000


def test_no_memory_limit_is_none(tmp_path: Path) -> None:
    limit_memory(tmp_path, "memory", "memory.limit_in_bytes", "9223372036854771712")
    assert read_memory_limit("4:memory:/\n", tmp_path) > 2**62
    assert read_memory_limit("", tmp_path) > 2**62


def test_auto_is_a_worker_for_each_cpu_where_there_is_memory() -> None:
    assert 1 <= count_workers("auto") <= count_cpus()


# Both


def test_on_a_hybrid_system_the_lower_quota_counts(tmp_path: Path) -> None:
    v1(tmp_path / "cpu", "x", 300000)
    v2(tmp_path, "y", "200000 100000")
    assert read_quota("4:cpu:/x\n0::/y\n", tmp_path) == 2.0
    assert read_quota("4:cpu:/x\n0::/\n", tmp_path) == 3.0


def test_no_membership_is_no_quota(tmp_path: Path) -> None:
    assert read_quota("", tmp_path) > NO_QUOTA


def test_the_count_is_within_affinity_and_at_least_1() -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= count_cpus() <= allowed
