"""The private directories of servers, and what becomes of those that were left."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import minicorn
from minicorn.errors import ConfigError
from minicorn.figures import survey
from minicorn.figures.directory import LOCK, PREFIX, Directory, default_base, remove_abandoned
from minicorn.figures.heartbeat import SIZE
from minicorn.pool.standing import Standing

# A directory


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    made = Directory(str(tmp_path))
    yield made
    made.remove()


def directories(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_a_directory_is_private_and_in_its_base(directory: Directory, tmp_path: Path) -> None:
    path = Path(directory.path)
    assert path.parent == tmp_path
    assert path.name.startswith(PREFIX)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert directories(path) == ["arbiter", "idle", LOCK]


def test_a_page_of_a_slot_is_one_file_and_always_the_same(directory: Directory) -> None:
    page = directory.page(3)
    assert directory.page(3) is page
    assert directory.page(4) is not page
    status = (Path(directory.path) / "3").stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (SIZE, 0o644)  # the directory lets nobody in
    assert status.st_blocks > 0  # a store into a hole of a full tmpfs is SIGBUS


def test_a_page_has_its_size_before_its_name(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks from outside maps what has the name of a slot."""
    named: list[bool] = []
    allocate = os.posix_fallocate

    def look(*place: int) -> None:
        named.append((Path(directory.path) / "1").exists())
        allocate(*place)

    monkeypatch.setattr(os, "posix_fallocate", look)
    directory.page(1)
    assert named == [False]


def test_who_looks_while_the_arbiter_writes_looks_again(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = directory.ledger()
    ledger.beat(10.0)
    ledger.write(Standing(size=3))
    with ledger._writing():
        ledger._memory[4096:4097] = b"?"
    ledger._numbers[1] += 1

    def write(seconds: float) -> None:
        ledger.write(Standing(size=4))

    monkeypatch.setattr(survey.time, "sleep", write)
    assert survey.look(Path(directory.path)).standing.size == 4


def test_a_page_is_shared_with_a_child(directory: Directory) -> None:
    page = directory.page(1)
    page.reset(deadline=10.0, now=1.0)
    pid = os.fork()
    if not pid:
        try:
            page.begin("GET", "/from-the-child", "::1", now=2.0, deadline=3.0)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert page.read().request == "GET /from-the-child"


def test_a_directory_that_a_cleaner_took_is_made_again(directory: Directory, tmp_path: Path) -> None:
    page = directory.page(1)
    page.promise(50.0)
    for path in Path(directory.path).iterdir():
        path.unlink()
    Path(directory.path).rmdir()
    directory.page(2).promise(60.0)
    assert (directory.page(1).deadline, directory.page(2).deadline) == (50.0, 60.0)
    assert stat.S_IMODE(Path(directory.path).stat().st_mode) == 0o700


def test_a_link_where_a_file_is_to_be_made_is_not_followed(directory: Directory, tmp_path: Path) -> None:
    """With --user the directory is the workers', and the arbiter root."""
    secret = tmp_path / "secret"
    secret.write_text("kept")
    secret.chmod(0o600)
    for name in ("7", "7.stack", "7.trace"):
        (Path(directory.path) / f"{name}.new").symlink_to(secret)
    directory.page(7)
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("kept", 0o600)
    assert directories(Path(directory.path)) == ["7", "7.stack", "7.trace", "arbiter", "idle", LOCK]


def test_a_file_that_an_earlier_try_has_left_is_no_hindrance(directory: Directory) -> None:
    (Path(directory.path) / "7.stack.new").write_text("half")
    directory.page(7)
    assert directory.read_stack(7) == ""


def test_descriptors_of_a_directory_do_not_reach_the_applications_children(directory: Directory) -> None:
    directory.page(1)
    assert not os.get_inheritable(directory.lock_fd)
    assert not os.get_inheritable(directory.stack_fd(1))


def test_a_stack_is_read_as_it_was_written(directory: Directory) -> None:
    fd = directory.stack_fd(1)
    assert directory.read_stack(1) == ""
    os.write(fd, b"Current thread:\n")
    os.write(fd, b'  File "main.py", line 3\n')
    assert directory.read_stack(1) == 'Current thread:\n  File "main.py", line 3'
    assert directory.read_stack(2) == ""


def test_the_next_worker_of_a_slot_has_an_empty_stack_file(directory: Directory) -> None:
    os.write(directory.stack_fd(1), b"old")
    fd = directory.stack_fd(1)
    assert directory.read_stack(1) == ""
    os.write(fd, b"new")
    assert directory.read_stack(1) == "new"


def test_a_stack_with_broken_text_is_readable(directory: Directory) -> None:
    os.write(directory.stack_fd(1), b"caf\xe9")
    assert directory.read_stack(1) == "caf\ufffd"


def test_a_removed_directory_leaves_nothing(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path))
    directory.page(1)
    directory.remove()
    assert directories(tmp_path) == []


@pytest.mark.parametrize("missing", ["missing", "file"])
def test_a_base_that_cannot_be_used_is_a_config_error_that_names_flag_and_place(missing: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        Directory(str(tmp_path / missing))
    assert str(caught.value).startswith("--worker-tmp-dir: ")
    assert str(tmp_path / missing) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_base_is_memory_where_there_is_any() -> None:
    """A disk may stall a beat for seconds."""
    assert os.access(default_base(), os.W_OK | os.X_OK)
    assert default_base() == "/dev/shm" or not os.access("/dev/shm", os.W_OK | os.X_OK)


# Whose servers have gone

SERVER = """
import sys
from minicorn.figures.directory import Directory
directory = Directory(sys.argv[1])
directory.page(0)
print(directory.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a directory in `tmp_path`, the path of which it has printed."""
    environ = {**os.environ, "PYTHONPATH": str(Path(minicorn.__file__).parent.parent)}
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        yield process
        process.kill()


def test_the_directory_of_a_live_server_stays_and_that_of_a_killed_one_goes(
    server: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert server.stdout is not None
    path = Path(server.stdout.readline().strip())
    os.utime(path, (0, 0))  # its age does not matter
    remove_abandoned(tmp_path)
    assert sorted(file.name for file in path.iterdir()) == ["0", "0.stack", "0.trace", "arbiter", "idle", LOCK]
    server.kill()
    server.wait()
    remove_abandoned(tmp_path)
    assert directories(tmp_path) == []


def test_a_new_server_removes_what_killed_ones_left(server: subprocess.Popen[str], tmp_path: Path) -> None:
    assert server.stdout is not None
    old = Path(server.stdout.readline().strip())
    beside = Directory(str(tmp_path))
    assert old.exists()
    server.kill()
    server.wait()
    beside.remove()
    fresh = Directory(str(tmp_path))
    assert directories(tmp_path) == [Path(fresh.path).name]
    fresh.remove()


def test_a_directory_without_a_lock_is_given_a_minute(tmp_path: Path) -> None:
    young, old = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old"
    young.mkdir()
    old.mkdir()
    now = time.time()
    os.utime(young, (now - 5, now - 5))
    os.utime(old, (now - 120, now - 120))
    remove_abandoned(tmp_path)
    assert directories(tmp_path) == [young.name]


def test_nothing_but_our_directories_is_removed(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    for made in (base, elsewhere, base / "other", elsewhere / "kept"):
        made.mkdir()
    (elsewhere / LOCK).touch()
    (base / "other" / LOCK).touch()
    (base / f"{PREFIX}file").touch()
    (base / f"{PREFIX}link").symlink_to(elsewhere)
    for path in base.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    remove_abandoned(base)
    assert directories(base) == [f"{PREFIX}file", f"{PREFIX}link", "other"]
    assert directories(elsewhere) == ["kept", LOCK]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_directories_of_another_user_stay(tmp_path: Path) -> None:
    other = tmp_path / f"{PREFIX}other"
    other.mkdir()
    os.utime(other, (0, 0))
    os.chown(other, 12345, -1)
    remove_abandoned(tmp_path)
    assert directories(tmp_path) == [other.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give away")
def test_one_that_was_given_to_the_workers_user_is_ours_by_its_lock(tmp_path: Path) -> None:
    given = tmp_path / f"{PREFIX}given"
    given.mkdir()
    (given / LOCK).touch()
    os.chown(given, 12345, -1)
    remove_abandoned(tmp_path)
    assert directories(tmp_path) == []


def test_a_missing_base_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "missing")
    assert directories(tmp_path) == []
