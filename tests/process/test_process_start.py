"""A start that cannot succeed: one line that says why, and an exit code for the supervisor."""

import socket

import pytest
from harness import MINICORN, Server, Starter, wait_until

WRONG_NAMES = {
    "nosuch:app": "nosuch",
    "plain:nosuch": "nosuch",
    "plain:VERSION": "cannot be called",
    "plain.py:app": "without .py",
    "plain:": "module:attribute",
    ":app": "module:attribute",
    "json": "application",
    "plain:app(": "neither an attribute nor a call",
}
WRONG_FLAGS = [
    ("plain:app", "--workers", "0"),
    ("plain:app", "--workers", "many"),
    ("plain:app", "--timeout", "-1"),
    ("plain:app", "--timeout", "nan"),
    ("plain:app", "--bind", "127.0.0.1:99999"),
    ("plain:app", "--log-level", "loud"),
    ("plain:app", "--no-such-flag"),
    ("plain:app", "another:app"),
    ("--workers", "2"),
]
# Flags that cannot be met, by what the line must name
UNUSABLE = {
    "--chdir": ("--chdir", "missing"),
    "--pid": ("--pid", "missing/server.pid"),
    "--pid, a directory": ("--pid", "."),
    "--worker-tmp-dir": ("--worker-tmp-dir", "missing"),
    "--worker-tmp-dir, a file": ("--worker-tmp-dir", "plain.py"),
    "--error-logfile": ("--error-logfile", "missing/error.log"),
    "--access-logfile": ("--access-logfile", "missing/access.log"),
    "--access-logformat": ("--access-logformat", "%(nothing)s", "--access-logfile", "-"),
    "--bind unix": ("--bind", "unix:missing/server.sock"),
    "--bind fd": ("--bind", "fd://99"),
}


def complaint(server: Server, code: int) -> str:
    """The one line that a failed start leaves besides what it had begun."""
    assert server.wait() == code, server.log.text
    log = server.log.finish()
    lines = [line for line in log.splitlines() if not line.startswith("INFO:")]
    assert len(lines) == 1, log
    assert "Traceback" not in log
    return lines[0]


@pytest.mark.parametrize("workers", ["1", "4"])
@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_application_name_is_one_line_and_exit_code_3(start: Starter, name: str, workers: str) -> None:
    server = start(name, "--workers", workers, ready=0)
    assert WRONG_NAMES[name] in complaint(server, 3)


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=str)
def test_an_application_that_closes_what_is_ours_at_its_import_is_told_so(start: Starter, flags) -> None:
    start.write("site_app.py", "import os\nos.closerange(3, 4096)\nfrom plain import app\n")
    server = start("site_app:app", *flags, ready=0)
    assert server.wait() == 3
    assert "its import has closed all descriptors" in server.log.finish()


@pytest.mark.parametrize("flags", WRONG_FLAGS, ids=" ".join)
def test_a_wrong_flag_is_one_line_and_exit_code_2(start: Starter, flags: tuple[str, ...]) -> None:
    server = start.command(*MINICORN, *flags)
    assert "minicorn" in complaint(server, 2)
    assert "INFO" not in server.log.text


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_one_line_and_exit_code_1(start: Starter, name: str) -> None:
    bind = not name.startswith("--bind")
    server = start("plain:app", *UNUSABLE[name], ready=0, bind=bind)
    complaint(server, 1)
    assert "Listening" not in server.log.text


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "PORT"])
def test_a_wrong_variable_is_one_line_and_exit_code_1(start: Starter, name: str) -> None:
    server = start.command(*MINICORN, "plain:app", env={name: "lots"})
    assert name in complaint(server, 1)


def test_an_address_in_use_is_one_line_and_exit_code_1_soon(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("plain:app", "--bind", f"127.0.0.1:{port}", ready=0, bind=False)
        assert f"127.0.0.1:{port}" in complaint(server, 1)


def test_a_failed_start_leaves_no_heartbeats(start: Starter) -> None:
    beats = start.cwd / "beats"
    beats.mkdir()
    server = start("nosuch:app", "--worker-tmp-dir", str(beats), ready=0)
    assert server.wait() == 3
    assert not list(beats.iterdir())


def test_version_and_help_work_without_an_application(start: Starter) -> None:
    for flag, expected in (("--version", "minicorn "), ("--help", "--workers")):
        server = start.command(*MINICORN, flag)
        assert server.wait() == 0
        assert expected in server.output.finish()


# Heartbeats


def test_the_heartbeat_directory_is_private_and_goes_with_the_server(start: Starter) -> None:
    beats = start.cwd / "beats"
    beats.mkdir()
    server = start("plain:app", "--worker-tmp-dir", str(beats))
    (directory,) = beats.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert not list(beats.iterdir())


def test_a_dead_servers_heartbeats_are_removed_at_the_next_start_and_a_live_ones_stay(start: Starter) -> None:
    beats = start.cwd / "beats"
    beats.mkdir()
    flags = ("plain:app", "--worker-tmp-dir", str(beats))
    live, dead = start(*flags), start(*flags)
    left = dead.heartbeats()
    dead.kill_arbiter()
    wait_until(lambda: not dead.family(), "the orphan has gone")
    assert left.exists()
    after = start(*flags)
    assert set(beats.iterdir()) == {live.heartbeats(), after.heartbeats()}


def test_a_cleaned_heartbeat_directory_harms_nobody(start: Starter) -> None:
    """Somebody's cleaner of old files has been here: workers live on, new ones can be started."""
    beats = start.cwd / "beats"
    beats.mkdir()
    server = start("plain:app", "--worker-tmp-dir", str(beats))
    for entry in server.heartbeats().iterdir():
        entry.unlink()
    server.heartbeats().rmdir()
    server.hup()
    assert server.get("/").status == 200
