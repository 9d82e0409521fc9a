"""--log-config and --log-syslog: the same handlers for workers and for the arbiter, which has none of them itself."""

import json
import os
import re
import socket
import sys
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR1, SIGWINCH

import pytest
from harness import CHECKOUT, Starter, wait_until

from minicorn.figures import survey

HANDLERS = {
    "formatters": {"plain": {"format": "%(name)s %(levelname)s %(process)d %(message)s"}},
    "handlers": {
        "errors": {"class": "logging.FileHandler", "filename": "errors", "formatter": "plain"},
        "requests": {"class": "logging.FileHandler", "filename": "requests", "formatter": "plain"},
    },
}
INI = """
[loggers]
keys=root,error,access
[handlers]
keys=errors,requests
[formatters]
keys=plain
[logger_root]
handlers=
[logger_error]
qualname=gunicorn.error
level=INFO
handlers=errors
propagate=0
[logger_access]
qualname=gunicorn.access
level=INFO
handlers=requests
propagate=0
[handler_errors]
class=FileHandler
args=("errors",)
formatter=plain
[handler_requests]
class=FileHandler
args=("requests",)
formatter=plain
[formatter_plain]
format=%(name)s %(levelname)s %(process)d %(message)s
"""
TOML = """
[formatters.plain]
format = "%(name)s %(levelname)s %(process)d %(message)s"
[handlers.errors]
class = "logging.FileHandler"
filename = "errors"
formatter = "plain"
[handlers.requests]
class = "logging.FileHandler"
filename = "requests"
formatter = "plain"
[loggers.minicorn]
handlers = ["errors"]
[loggers."minicorn.access"]
handlers = ["requests"]
"""


def by_json(error: str, access: str) -> str:
    loggers = {error: {"handlers": ["errors"], "level": "INFO"}, access: {"handlers": ["requests"]}}
    return json.dumps({**HANDLERS, "version": 1, "loggers": loggers})


CONFIGURATIONS = {
    "log.json": by_json("minicorn", "minicorn.access"),
    "gunicorn.json": by_json("gunicorn.error", "gunicorn.access"),
    "log.toml": TOML,
    "log.ini": INI,
}


def has(path: Path, pattern: str) -> bool:
    return path.exists() and re.search(pattern, path.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_records_of_arbiter_and_worker_and_the_access_log_go_where_the_file_says(start: Starter, name: str) -> None:
    start.write(name, CONFIGURATIONS[name])
    server = start("plain:app", "--log-config", name, ready=0)
    errors, requests = start.cwd / "errors", start.cwd / "requests"
    wait_until(lambda: has(errors, r"is ready after"), "the arbiter's record is there")
    assert has(errors, rf"^minicorn INFO {server.pid} Started arbiter")
    (worker,) = [int(pid) for pid in re.findall(r"worker (\d+) \(slot 1", errors.read_text())][:1]
    assert server.get("/fail", at=server.listening_port()).status == 500
    wait_until(lambda: has(errors, rf"^minicorn ERROR {worker} GET /fail: the application raised"), "the worker's too")
    wait_until(lambda: has(requests, rf'^minicorn\.access INFO {worker} .*"GET /fail HTTP/1\.1" 500'), "the request's")
    errors.rename(start.cwd / "errors.1")
    server.signal(SIGUSR1)
    assert server.stop() == 0
    assert has(start.cwd / "errors", "Server stopped") or has(start.cwd / "errors.1", "Server stopped")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("log.json", "{", "log.json: Expecting property name"),
        ("log.toml", "=", "log.toml: Invalid statement"),
        ("log.json", '{"handlers": {"x": {"class": "no.such"}}}', "'x'.*'no'"),
        ("log.ini", "[loggers]", "log.ini"),
        ("log.json", None, "cannot read log.json: No such file or directory"),
    ],
)
def test_a_configuration_that_is_broken_is_one_line(start: Starter, name: str, text: str | None, reason: str) -> None:
    if text is not None:
        start.write(name, text)
    server = start("plain:app", "--log-config", name, ready=0)
    assert server.wait() == 1
    line = server.log.finish()
    assert re.fullmatch(rf"minicorn: error: --log-config: .*{reason}.*\n", line), line


@pytest.mark.parametrize("access", [True, False])
def test_syslog_gets_what_arbiter_and_worker_say(start: Starter, access: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(10)
        to = f"udp://127.0.0.1:{syslog.getsockname()[1]}"
        flags = [
            "--log-syslog",
            "--log-syslog-to",
            to,
            "--log-syslog-prefix",
            "shop",
            "--log-syslog-facility",
            "local3",
        ]
        if not access:
            flags.append("--disable-redirect-access-to-syslog")
        server = start("plain:app", *flags)
        assert server.get("/fail").status == 500
        assert server.stop() == 0
        said = ""
        while "Server stopped" not in said:
            said += syslog.recv(65536).decode().rstrip("\0") + "\n"
    assert re.search(rf"^<158>minicorn\.shop\.error: \[{server.pid}\] Started arbiter", said, re.MULTILINE)
    assert re.search(r"^<155>minicorn\.shop\.error: \[\d+\] GET /fail: the application raised", said, re.MULTILINE)
    assert bool(re.search(r'^<158>minicorn\.shop\.access: \[\d+\] .*"GET /fail', said, re.MULTILINE)) == access
    assert "Started arbiter" in server.log.finish()  # and the error log as ever


@pytest.mark.parametrize("to", ["unix:///nonexistent", "tcp://127.0.0.1:1"])
def test_a_syslog_that_is_not_there_at_the_start_is_one_line(start: Starter, to: str) -> None:
    server = start("plain:app", "--log-syslog", "--log-syslog-to", to, "--check-config", ready=0)
    assert server.wait() == 1
    assert re.fullmatch(rf"minicorn: error: --log-syslog-to {to}: .*\n", server.log.finish())


def test_a_syslog_that_goes_is_missed_in_a_line_and_found_again(start: Starter) -> None:
    path = start.cwd / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(path))
        server = start("plain:app", "--log-syslog", "--log-syslog-to", f"unix://{path}")
    path.unlink()
    assert [server.get("/fail").status for _ in range(3)] == [500, 500, 500]
    server.hup()  # who boots now has never met it
    assert server.get("/fail").status == 500
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(path))
        second.settimeout(10)
        assert server.get("/fail").status == 500
        while b"GET /fail: the application raised" not in second.recv(65536):
            pass
        assert server.stop() == 0
    missed = re.findall(r"^ERROR:    --log-syslog-to .* has failed, .*$", server.log.finish(), re.MULTILINE)
    assert len(missed) == 3  # in two workers and the logger
    assert "Logging error" not in server.log.text


OWN = """
import logging, os
from shape import SHAPE
class Own(logging.Formatter):
    def format(self, record):
        return SHAPE % (os.environ["PLACE"], record.process, record.getMessage())
"""
OWN_CONFIG = """
chdir, pythonpath, raw_env = "project", "../library", ["PLACE=here"]
errorlog, accesslog, loglevel = "-", None, "info"
logconfig_dict = {
    "formatters": {"own": {"()": "own.Own"}},
    "handlers": {"errors": {"class": "logging.FileHandler", "filename": "errors", "formatter": "own"}},
    "loggers": {"gunicorn.error": {"handlers": ["errors"]}},
}
"""


def test_a_configuration_may_name_classes_of_the_project(start: Starter) -> None:
    """Called as the installed command is, which finds nothing in the current directory by itself."""
    start.write("gunicorn.conf.py", OWN_CONFIG)
    start.write("library/shape.py", "SHAPE = 'own %s %d %s'")
    start.write("project/own.py", OWN)
    (start.cwd / "project/plain.py").symlink_to(start.cwd / "plain.py")
    command = (sys.executable, "-P", "-m", "minicorn", "-c", "gunicorn.conf.py", "plain:app", "--port", "0")
    assert start.command(*command, "--check-config").wait() == 0
    server = start.command(*command)
    errors = start.cwd / "project/errors"
    wait_until(
        lambda: has(errors, rf"^own here {server.pid} worker .* is ready after"), "the arbiter's record is there"
    )
    worker = server.get("/", at=server.listening_port()).text
    assert server.get("/fail", at=server.listening_port()).status == 500
    wait_until(lambda: has(errors, rf"^own here {worker} GET /fail: the application raised"), "the worker's too")
    assert server.stop() == 0


BREAKS = """
import logging
class Broken(logging.Handler):
    def emit(self, record):
        1 / 0
    close = flush = lambda self: 1 / 0
"""


def test_a_handler_that_raises_ends_neither_worker_nor_logger_and_is_told_in_a_line_of_each(start: Starter) -> None:
    start.write("breaks.py", BREAKS)
    loggers = {name: {"handlers": ["x", "errors"], "level": "INFO"} for name in ("minicorn", "minicorn.access")}
    handlers = HANDLERS["handlers"] | {"x": {"class": "breaks.Broken"}}
    start.write("log.json", json.dumps(HANDLERS | {"handlers": handlers, "loggers": loggers}))
    server = start("plain:app", "--log-config", "log.json", ready=0, env={"PYTHONPATH": f"{start.cwd}:{CHECKOUT}"})
    port, errors = server.listening_port(), start.cwd / "errors"
    worker = server.get("/", at=port).text
    assert [server.get("/fail", at=port).status for _ in range(2)] == [500, 500]
    server.signal(SIGUSR1)
    assert server.get("/", at=port).text == worker
    assert server.stop() == 0
    assert has(errors, "Server stopped")
    assert has(errors, r"(?s)GET /fail: the application raised.*GET /fail: the application raised")
    assert not has(errors, "logger .* has died")
    line = r"ERROR:    log handler breaks\.Broken has failed, which is told once a minute: ZeroDivisionError: .*\n"
    assert re.fullmatch(f"({line}){{2}}", server.log.finish())


HANGS = """
import logging, os, time
class Hang(logging.Handler):
    def emit(self, record):
        if "MINICORN_WORKER" not in os.environ:
            time.sleep(600)
"""


def test_a_handler_that_hangs_holds_nobody_up_but_the_logger(start: Starter) -> None:
    start.write("hangs.py", HANGS)
    loggers = {"minicorn": {"handlers": ["x"]}}
    start.write("log.json", json.dumps({"handlers": {"x": {"class": "hangs.Hang"}}, "loggers": loggers}))
    server = start("plain:app", "--log-config", "log.json", ready=0, env={"PYTHONPATH": f"{start.cwd}:{CHECKOUT}"})
    port = server.listening_port()
    worker = int(server.get("/", at=port).text)
    os.kill(worker, SIGKILL)
    assert server.get("/", at=port).text != str(worker)
    assert server.stop() == 0


def test_records_that_a_stalled_logger_does_not_take_are_counted_and_told(start: Starter) -> None:
    config = HANDLERS | {"loggers": {"minicorn": {"handlers": ["errors"], "level": "INFO"}}}
    start.write("log.json", json.dumps(config))
    server = start("plain:app", "--log-config", "log.json", ready=0)
    errors = start.cwd / "errors"
    wait_until(lambda: errors.exists() and "is ready after" in errors.read_text(), "the logger writes")
    pages = server.heartbeats()
    server.signal(SIGWINCH)
    wait_until(lambda: len(server.workers()) == 1, "nobody is left but the logger")
    (logger,) = server.workers()

    def obeyed() -> int:
        return survey.look(pages).standing.obeyed.get("SIGWINCH", 0)

    def park() -> int:
        server.signal(SIGWINCH)
        return obeyed()

    def lost() -> int:
        return sum(map(int, re.findall(r"(\d+) log records were lost", errors.read_text())))

    os.kill(logger, SIGSTOP)
    wait_until(lambda: park() > 350, "the arbiter goes on, whoever takes its records", 60)
    assert not lost()
    os.kill(logger, SIGCONT)
    wait_until(lambda: park() and lost(), "the loss is told")
    wait_until(lambda: errors.read_text().count("SIGWINCH: ") + lost() == obeyed(), "all are accounted for")
