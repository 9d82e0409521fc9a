"""Log lines: a stalled reader loses some, is told how many, and stops nobody; a rotated file is followed."""

import json
import logging
import os
import pty
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minicorn
from minicorn.errors import ConfigError
from minicorn.logs.errorlog import set_up
from minicorn.logs.logger import LOGGER
from minicorn.logs.logs import Logs
from minicorn.logs.output import Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def numbered(number: int) -> bytes:
    return b"line %06d %s\n" % (number, b"x" * 80)


def read_now(fd: int) -> bytes:
    """What is in the pipe, without waiting for more."""
    os.set_blocking(fd, False)
    data = bytearray()
    try:
        while piece := os.read(fd, 65536):
            data += piece
    except BlockingIOError:
        pass
    return bytes(data)


def write_until_lost(output: Output, least: int) -> int:
    """Write numbered lines until `least` are lost; how many were written."""
    written = 0
    while output.lost < least:
        output.write(numbered(written))
        written += 1
    return written


def read_all(fd: int, output: Output) -> bytes:
    """Read and flush in turn until nothing more comes."""
    data = b""
    while piece := read_now(fd):
        data += piece
        output.flush()
    return data


# A stream


def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    output.write(b"hello\n")
    assert read_now(pipe[0]) == b"hello\n"


def test_a_stalled_pipe_never_blocks_and_its_lost_lines_are_counted(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    written = write_until_lost(output, least=25)
    assert output.lost == 25
    lines = read_all(pipe[0], output).splitlines(keepends=True)
    assert lines[:-1] == [numbered(number) for number in range(written - 25)]
    assert lines[-1] == b"WARNING:  25 log lines were lost: nobody read them in time\n"
    assert output.lost == 0


def test_after_a_stall_lines_flow_again_behind_the_note(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    write_until_lost(output, least=1)
    data = b""
    while b"were lost" not in data:
        data += read_now(pipe[0])
        output.write(b"new\n")
    data += read_all(pipe[0], output)
    output.write(b"newest\n")
    assert (data + read_now(pipe[0])).endswith(b"newest\n")
    note = [line for line in data.splitlines() if b"lost" in line]
    assert len(note) == 1


def test_the_descriptor_that_the_shell_shares_stays_blocking(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    write_until_lost(output, least=1)
    assert os.get_blocking(pipe[1])


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # a log's stream is never closed
def test_a_stalled_socket_never_blocks_and_its_lost_lines_are_counted() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = Output("-", ours.fileno())
        written = write_until_lost(output, least=10)
        assert ours.getblocking()
        lines = read_all(theirs.fileno(), output).splitlines(keepends=True)
        assert lines[:-1] == [numbered(number) for number in range(written - 10)]
        assert b"10 log lines were lost" in lines[-1]


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    os.close(pipe[0])
    for number in range(3):
        output.write(numbered(number))
    output.flush()
    assert output.lost == 0


def test_a_stream_that_was_closed_before_we_started_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    output = Output("-", write_end)
    output.write(b"into the void\n")
    output.flush()
    assert output.lost == 0


def test_in_a_redirected_file_our_lines_and_the_applications_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # as "> out" does, without O_APPEND
    try:
        output = Output("-", fd)
        output.write(b"one\n")
        os.write(fd, b"printed by the application\n")
        output.write(b"two\n")
    finally:
        os.close(fd)
    assert path.read_bytes() == b"one\nprinted by the application\ntwo\n"


def test_a_stream_is_not_reopened(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1])
    output.reopen()
    output.write(b"still\n")
    assert read_now(pipe[0]) == b"still\n"


# A file


def test_lines_are_appended_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    path.write_bytes(b"earlier\n")
    output = Output(str(path), 2)
    output.write(b"one\n")
    output.write(b"two\n")
    assert path.read_bytes() == b"earlier\none\ntwo\n"


def test_a_full_disk_tears_no_line_and_what_it_loses_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = Output(str(path), 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(numbered(0)) * 5 // 2, before[1]))
    try:
        written = write_until_lost(output, least=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    output.flush()
    *lines, note = path.read_bytes().splitlines(keepends=True)
    assert lines == [numbered(number) for number in range(written - 7)]
    assert note == b"WARNING:  7 log lines were lost: there was no room for them\n"


def test_reopening_follows_a_rotated_file(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    output = Output(str(path), 2)
    output.write(b"one\n")
    path.rename(tmp_path / "error.log.1")
    output.write(b"two\n")
    output.reopen()
    output.write(b"three\n")
    assert (tmp_path / "error.log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"


def test_reopening_leaks_no_descriptor(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "error.log"), 2)
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        output.reopen()
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_that_cannot_be_reopened_leaves_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    output = Output(str(directory / "error.log"), 2)
    directory.rename(tmp_path / "gone")
    LOGGER.propagate = True
    output.reopen()
    output.write(b"still\n")
    assert (tmp_path / "gone" / "error.log").read_bytes() == b"still\n"
    output.reopen()
    assert caplog.text.count(f"cannot write the log file {directory}/error.log") == 1
    directory.mkdir()
    output.reopen()
    output.write(b"again\n")
    assert (directory / "error.log").read_bytes() == b"again\n"
    shutil.rmtree(directory)
    output.reopen()
    assert caplog.text.count(f"cannot write the log file {directory}/error.log") == 2


def test_a_relative_file_is_found_again_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = Output("error.log", 2)
    monkeypatch.chdir("/")
    output.reopen()
    output.write(b"here\n")
    assert (tmp_path / "error.log").read_bytes() == b"here\n"


def test_a_file_that_cannot_be_written_is_a_config_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/missing/error.log")):
        Output(str(tmp_path / "missing" / "error.log"), 2)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        Output(str(tmp_path), 2)


def test_a_log_file_is_not_inherited_by_the_applications_children(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    Output(str(path), 2).write(b"x\n")
    opened = [int(fd.name) for fd in Path("/dev/fd").iterdir() if fd.exists() and fd.samefile(path)]
    assert len(opened) == 1
    assert not os.get_inheritable(opened[0])


# The look of a line


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """The logger is the process's: give it back as it was."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate


def test_on_a_stream_a_line_has_its_level_and_its_text(capfd: pytest.CaptureFixture[str]) -> None:
    set_up("-", "debug", "text")
    LOGGER.debug("a")
    LOGGER.info("Started %s", "b")
    LOGGER.warning("c")
    LOGGER.error("d")
    LOGGER.critical("e")
    assert capfd.readouterr().err == "DEBUG:    a\nINFO:     Started b\nWARNING:  c\nERROR:    d\nCRITICAL: e\n"


def test_in_a_file_time_and_process_come_first(tmp_path: Path) -> None:
    set_up(str(tmp_path / "error.log"), "info", "text")
    LOGGER.info("Started")
    line = (tmp_path / "error.log").read_text()
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}} \[{os.getpid()}\] INFO:     Started\n", line)


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", "diwec"), ("info", "iwec"), ("warning", "wec"), ("error", "ec"), ("critical", "c")]
)
def test_what_is_below_the_level_is_not_logged(level: str, shown: str, tmp_path: Path) -> None:
    set_up(str(tmp_path / "error.log"), level, "text")
    for name in ("debug", "info", "warning", "error", "critical"):
        LOGGER.log(logging.getLevelNamesMapping()[name.upper()], name[0])
    lines = (tmp_path / "error.log").read_text().splitlines()
    assert "".join(line[-1] for line in lines) == shown


def test_setting_up_again_replaces_and_does_not_double(tmp_path: Path) -> None:
    set_up(str(tmp_path / "first.log"), "info", "text")
    set_up(str(tmp_path / "second.log"), "info", "text")
    LOGGER.info("once")
    assert (tmp_path / "first.log").read_text() == ""
    assert (tmp_path / "second.log").read_text().count("once") == 1


def test_any_text_can_be_logged(tmp_path: Path) -> None:
    set_up(str(tmp_path / "error.log"), "info", "text")
    LOGGER.info("caf\xe9 € \ud800")
    assert (tmp_path / "error.log").read_text("utf-8").endswith("caf\xe9 € \\ud800\n")


def test_a_traceback_follows_its_line(tmp_path: Path) -> None:
    set_up(str(tmp_path / "error.log"), "info", "text")
    try:
        raise KeyError("gone")
    except KeyError:
        LOGGER.exception("it failed")
    text = (tmp_path / "error.log").read_text()
    assert "ERROR:    it failed\nTraceback (most recent call last):\n" in text
    assert text.endswith("KeyError: 'gone'\n")


PROGRAM = """
from minicorn.logs.errorlog import set_up
from minicorn.logs.logger import LOGGER
set_up('-', 'info', 'text')
LOGGER.info('shown')
"""


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"TERM": "xterm"}, b"\033[32mINFO\033[0m:     shown\r\n"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, b"INFO:     shown\r\n"),
        ({"TERM": "dumb"}, b"INFO:     shown\r\n"),
    ],
)
def test_a_terminal_shows_colours_unless_told_otherwise(variables: dict[str, str], line: bytes) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environ["PYTHONPATH"] = str(Path(minicorn.__file__).parent.parent)
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=slave, env={**environ, **variables}, check=True)
        assert os.read(master, 1000) == line
    finally:
        os.close(slave)
        os.close(master)


# Rotation without a signal


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look with each line, not once a second."""
    monkeypatch.setattr("minicorn.logs.output.LOOK_EVERY", 0.0)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_moved_away_is_followed_without_a_signal(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "error.log"
    output = Output(str(path), 2)
    output.write(b"one\n")
    path.rename(tmp_path / "error.log.1")
    if create:
        path.touch()
    output.write(b"two\n")
    assert (tmp_path / "error.log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


@pytest.mark.usefixtures("often")
def test_a_file_that_is_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    output = Output(str(path), 2)
    path.unlink()
    output.write(b"one\n")
    assert path.read_bytes() == b"one\n"


@pytest.mark.usefixtures("often")
def test_a_directory_that_has_gone_is_complained_of_once_and_costs_no_line(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    output = set_up(str(directory / "error.log"), "info", "text")
    directory.rename(tmp_path / "gone")
    for number in range(3):
        output.write(numbered(number))
    text = (tmp_path / "gone" / "error.log").read_bytes()
    assert text.count(b"cannot write the log file") == 1
    assert [line for line in text.splitlines(keepends=True) if b"line" in line][-3:] == [numbered(n) for n in range(3)]


def test_lines_between_two_looks_go_to_the_file_that_was_moved_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    output = Output(str(path), 2)
    output.write(b"0\n")
    path.rename(tmp_path / "error.log.1")
    written = 1
    while not path.exists():
        output.write(b"%d\n" % written)
        written += 1
    lines = ((tmp_path / "error.log.1").read_bytes() + path.read_bytes()).split()
    assert lines == [b"%d" % number for number in range(written)]


def test_a_reopened_file_keeps_its_descriptor_so_that_no_thread_writes_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    output = Output(str(path), 2)
    before = sorted(os.listdir("/dev/fd"))
    path.rename(tmp_path / "error.log.1")
    output.reopen()
    assert sorted(os.listdir("/dev/fd")) == before
    output.write(b"one\n")
    assert path.read_bytes() == b"one\n"


# JSON


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_as_json_is_one_object_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    set_up(str(path), "info", "json")
    LOGGER.warning('a "%s"\nb \u2028', "quoted", extra={"attributes": {"error.type": "timeout"}})
    (found,) = records(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(found.pop("timestamp")))
    assert found == {
        "severity_text": "WARNING",
        "severity_number": 13,
        "body": 'a "quoted"\nb \u2028',
        "process.pid": os.getpid(),
        "error.type": "timeout",
    }


def test_an_exception_as_json_has_its_type_message_and_stack(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    set_up(str(path), "info", "json")
    try:
        raise KeyError("gone")
    except KeyError:
        LOGGER.exception("it failed")
    (found,) = records(path)
    assert (found["body"], found["exception.type"], found["exception.message"]) == ("it failed", "KeyError", "'gone'")
    assert "test_an_exception_as_json" in str(found["exception.stacktrace"])


def test_the_note_of_lost_lines_is_json_too(pipe: tuple[int, int]) -> None:
    output = Output("-", pipe[1], json=True)
    write_until_lost(output, least=2)
    note = json.loads(read_all(pipe[0], output).splitlines()[-1])
    assert (note["severity_text"], note["body"]) == ("WARNING", "2 log lines were lost: nobody read them in time")


# What the application prints

PRINTS = """
import os, subprocess, sys
from minicorn.logs.capture import capture
from minicorn.logs.errorlog import set_up
capture(set_up(sys.argv[1], "error", sys.argv[2]))
print("one", 2)
print("complaint", file=sys.stderr)
sys.stdout.buffer.write(b"caf\\xc3\\xa9 \\xff\\n")
subprocess.run(["echo", "of a child"])
print("no line end", end="")
sys.stdout.flush()
"""


def printed(path: str, format: str) -> tuple[str, str]:
    """What came to standard output and standard error."""
    environ = os.environ | {"PYTHONPATH": str(Path(minicorn.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", PRINTS, path, format], env=environ, capture_output=True, check=True)
    return done.stdout.decode(), done.stderr.decode()


def test_what_is_printed_becomes_records_whatever_the_level(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    assert printed(str(path), "text") == ("", "")
    lines = [line.partition("] ")[2] or line for line in path.read_text().splitlines()]
    assert lines == [
        "INFO:     one 2",
        "WARNING:  complaint",
        "INFO:     caf\xe9 \\xff",
        "of a child",
        "INFO:     no line end",
    ]


def test_what_is_printed_becomes_json_where_the_log_is(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    printed(str(path), "json")
    lines = [line for line in path.read_text().splitlines() if line != "of a child"]
    assert [json.loads(line)["body"] for line in lines] == ["one 2", "complaint", "caf\xe9 \\xff", "no line end"]


def test_without_a_file_all_that_is_printed_goes_to_standard_error() -> None:
    output, log = printed("-", "text")
    assert output == ""
    assert log.splitlines()[0] == "INFO:     one 2"
    assert "of a child" in log


@pytest.mark.parametrize("logged", [False, True])
def test_a_rotation_reaches_both_logs(tmp_path: Path, logged: bool) -> None:
    paths = [tmp_path / name for name in ("error.log", "access.log")[: 1 + logged]]
    logs = Logs(*(Output(str(path), 2) for path in paths))
    for path in paths:
        path.rename(f"{path}.1")
    logs.reopen()
    logs.error.write(b"wrong\n")
    if logs.access is not None:
        logs.access.write(b"done\n")
    assert [path.read_text() for path in paths] == ["wrong\n", "done\n"][: 1 + logged]
