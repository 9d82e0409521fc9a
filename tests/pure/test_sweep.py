"""Files looked at again and again, in real directories."""

import os
import time
from pathlib import Path

import pytest

from minicorn.reload.changes import Filter
from minicorn.reload.sweep import FRESH, Sweep


@pytest.fixture
def sweep() -> Sweep:
    filter = Filter()
    return Sweep(filter.wants, filter.enters)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def names(sweep: Sweep, folder: Path, recursive: bool = True) -> set[str]:
    return {os.path.relpath(path, folder) for path in sweep.look({str(folder): recursive})}


def age(folder: Path) -> None:
    """Let the directory be old enough to be trusted."""
    long_ago = time.time_ns() - 10 * FRESH
    os.utime(folder, ns=(long_ago, long_ago))


def test_what_counts_is_found(sweep: Sweep, tmp_path: Path) -> None:
    make(tmp_path, "a.py", "b.txt", "p/c.py", "p/q/d.py", "node_modules/e.py", ".#a.py")
    (tmp_path / "gone.py").symlink_to("nowhere")
    assert names(sweep, tmp_path) == {"a.py", "p/c.py", "p/q/d.py"}
    assert names(sweep, tmp_path, recursive=False) == {"a.py"}
    assert sweep.look({}, [str(tmp_path / "b.txt"), "nowhere"]).keys() == {str(tmp_path / "b.txt")}
    assert names(sweep, tmp_path / "nowhere") == set()


def test_an_edit_changes_a_mark_and_nothing_else_does(sweep: Sweep, tmp_path: Path) -> None:
    make(tmp_path, "a.py", "b.py")
    before = sweep.look({str(tmp_path): True})
    assert sweep.look({str(tmp_path): True}) == before
    (tmp_path / "a.py").write_text("xy")
    after = sweep.look({str(tmp_path): True})
    assert {path for path in after if after[path] != before[path]} == {str(tmp_path / "a.py")}


def test_what_comes_and_goes_in_an_old_directory_is_seen(sweep: Sweep, tmp_path: Path) -> None:
    make(tmp_path, "p/a.py")
    age(tmp_path / "p")
    assert names(sweep, tmp_path) == {"p/a.py"}
    make(tmp_path, "p/b.py")
    assert names(sweep, tmp_path) == {"p/a.py", "p/b.py"}
    (tmp_path / "p" / "a.py").unlink()
    assert names(sweep, tmp_path) == {"p/b.py"}


def test_what_comes_within_one_step_of_the_clock_is_seen(sweep: Sweep, tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    status = tmp_path.stat()
    assert names(sweep, tmp_path) == {"a.py"}
    make(tmp_path, "b.py")
    os.utime(tmp_path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert names(sweep, tmp_path) == {"a.py", "b.py"}


def test_a_directory_that_has_not_changed_is_not_listed_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def wants(path: str) -> bool:
        asked.append(path)
        return True

    make(tmp_path, "a.py")
    age(tmp_path)
    sweep = Sweep(wants, lambda path: True)
    assert names(sweep, tmp_path) == names(sweep, tmp_path)
    assert len(asked) == 1
