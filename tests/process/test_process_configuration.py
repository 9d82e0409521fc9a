"""The configuration, from each place that it may come from; and bad ones, each of them one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGKILL
from typing import Any

import pytest
from harness import ANY_PORT, MINICORN, Server, Starter, environment, free_port, wait_until

Run = Callable[..., tuple[int, str, str]]
# The command, once it has imported what it does first, which takes longer than all that is looked at here: each
# call is a fork that goes on from there
COMMAND = """
import json, os, sys
from minicorn import app, cli
from minicorn.arbiter import succession
from minicorn.config import configuration

for line in sys.stdin:
    call = json.loads(line)
    pid = os.fork()
    if not pid:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(call["cwd"])
sys.path[0] = call["cwd"]
os.environ.clear()
os.environ.update(call["env"])
for fd, name in enumerate((os.devnull, call["out"], call["err"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
sys.exit(cli.main(call["argv"]))
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Call the command in a directory: exit code, output, errors."""
    out, err = (tmp_path_factory.mktemp("said") / name for name in ("out", "err"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", COMMAND], env=environment(), **pipes) as command:

        def call(argv: tuple[str, ...], cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
            said = {"argv": argv, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err)}
            print(json.dumps(said), file=command.stdin)
            return int(command.stdout.readline()), out.read_text(), err.read_text()

        yield call
        command.stdin.close()


@pytest.fixture
def run(call: Run, tmp_path: Path) -> Run:
    """Write files, set variables, call the command: exit code, output, errors."""

    def run(*argv: str, files: dict[str, str] | None = None, **variables: str) -> tuple[int, str, str]:
        for name, text in (files or {}).items():
            (tmp_path / name).write_text(text)
        return call(argv, tmp_path, environment(PWD=str(tmp_path), **variables))

    return run


def shown(outcome: tuple[int, str, str]) -> dict[str, tuple[str, str]]:
    """What --print-config says of each setting: value and origin."""
    code, out, err = outcome
    assert (code, err) == (0, "")
    lines = [line.partition(" = ") for line in out.splitlines()]
    return {name: (rest.rpartition("  # ")[0].strip(), rest.rpartition("  # ")[2]) for name, _, rest in lines}


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [*MINICORN, "--print-config"]
        done = subprocess.run(command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "minicorn: error: cannot write it: No space left on device\n")


# Places and their order

PLACES = [
    ({"files": {"minicorn.conf.py": "workers = 2"}}, ("2", "minicorn.conf.py: workers")),
    ({"GUNICORN_CMD_ARGS": "--workers 3"}, ("3", "GUNICORN_CMD_ARGS: -w/--workers")),
    ({"MINICORN_WORKERS": "4"}, ("4", "MINICORN_WORKERS")),
    ({"MINICORN_CMD_ARGS": "-w 5"}, ("5", "MINICORN_CMD_ARGS: -w/--workers")),
]


@pytest.mark.parametrize("upto", range(len(PLACES)))
def test_each_place_is_above_those_before_it(run: Run, upto: int) -> None:
    given: dict[str, Any] = {"WEB_CONCURRENCY": "9"}
    for place, _ in PLACES[: upto + 1]:
        given |= place
    assert shown(run("--print-config", **given))["workers"] == PLACES[upto][1]
    assert shown(run("--print-config", "-w", "6", **given))["workers"] == ("6", "-w/--workers")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minicorn.conf.py", "keepalive = 3"),
        ("gunicorn.conf.py", "keepalive = 3"),
        ("minicorn.toml", "keep-alive = 3"),
        ("pyproject.toml", "[tool.minicorn]\nkeepalive = 3"),
    ],
)
def test_a_file_is_found_by_itself_and_when_it_is_named(run: Run, name: str, text: str) -> None:
    for argv in ((), ("-c", name)):
        assert shown(run("--print-config", *argv, files={name: text}))["keepalive"][0] == "3.0"


def test_a_module_is_a_file_too(run: Run) -> None:
    found = shown(run("--print-config", "-c", "python:deployment", files={"deployment.py": "timeout = 7"}))
    assert found["timeout"] == ("7.0", "python:deployment: timeout")


def test_a_files_own_variables_are_its_own(run: Run) -> None:
    text = """
import multiprocessing
cores, env = multiprocessing.cpu_count(), "dev"
LOGO = "corn"
host = "0.0.0.0"
def double(number):
    worker = 2 * number
    return worker
for each in range(2):
    pass
workers = double(2) if env == "dev" else cores
bind = f"{host}:0"
worker_class, threads, daemon = "sync", 1, False
umask = 0o027
raw_env = ["A=1", "B=2"]
"""
    found = shown(run("--print-config", files={"minicorn.conf.py": text}))
    assert found["workers"][0] == "4"
    assert found["bind"][0] == "['0.0.0.0:0']"
    assert found["umask"][0] == "'027'"
    assert found["raw_env"][0] == "['A=1', 'B=2']"


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_setting(run: Run) -> None:
    links = {"MINICORN_PORT": "tcp://10.0.0.1:80", "MINICORN_SERVICE_HOST": "10.0.0.1", "MINICORN_PORT_80_TCP": "x"}
    links |= {"MINICORN_WEB_PORT": "sctp://10.0.0.1:80"}
    assert shown(run("--print-config", **links))["port"] == ("8000", "default")


def test_an_address_with_its_scheme_is_no_link_but_where_a_link_has_its_own(run: Run) -> None:
    said = {"MINICORN_BIND": "tcp://127.0.0.1:9412", "MINICORN_LOG_SYSLOG_TO": "udp://10.0.0.1:514"}
    found = shown(run("--print-config", **said))
    assert found["bind"] == ("['127.0.0.1:9412']", "MINICORN_BIND")
    assert found["syslog_addr"] == ("'udp://10.0.0.1:514'", "MINICORN_LOG_SYSLOG_TO")


@pytest.mark.parametrize("argv", [(), ("m:app", "-m", "027", "--monitor", ":0", "--preload", "--refork-after", "5,9")])
def test_what_is_printed_is_a_file(run: Run, argv: tuple[str, ...]) -> None:
    printed = run("--print-config", *argv)
    again = run("--print-config", "-c", "printed.py", files={"printed.py": printed[1]})
    assert {name: value for name, (value, _) in shown(again).items()} == {
        name: value for name, (value, _) in shown(printed).items()
    }


def test_a_port_above_a_files_bind_replaces_it(run: Run) -> None:
    found = shown(run("--print-config", "--port", "81", files={"minicorn.conf.py": 'bind = "unix:/run/x"'}))
    assert (found["bind"][0], found["port"][0]) == ("[]", "81")


# Bad ones

BAD: dict[str, tuple[tuple[str, ...], dict[str, str], dict[str, str], int, str]] = {}


def bad_file(text: str, mention: str, name: str = "minicorn.conf.py", *argv: str) -> None:
    BAD[f"{name}: {text[:40]!r}"] = (("m:app", *argv), {name: text}, {}, 1, mention)


def bad_argv(argv: str, mention: str, code: int = 2) -> None:
    BAD[argv] = (tuple(argv.split()), {}, {}, code, mention)


def bad_variable(name: str, text: str, mention: str) -> None:
    BAD[f"{name}={text}"] = (("m:app",), {}, {name: text}, 1, mention)


for text, mention in [
    ("workers = 0", "workers"),
    ("workers = 'many'", "many"),
    ("workers = 1.5", "1.5"),
    ("workers = True", "True"),
    ("workers = [2]", "workers"),
    ("timeout = -1", "timeout"),
    ("timeout = float('nan')", "timeout"),
    ("timeout = 'soon'", "soon"),
    ("port = 70000", "port"),
    ("bind = 8000", "8000"),
    ("bind = ['a:b']", "a:b"),
    ("bind = {'a': 1}", "bind"),
    ("umask = 512", "umask"),
    ("umask = 'rwx'", "rwx"),
    ("loglevel = 'loud'", "loud"),
    ("loglevel = 10", "loglevel"),
    ("raw_env = ['A']", "NAME=VALUE"),
    ("raw_env = 'A'", "NAME=VALUE"),
    ("max_body_size = '1X'", "1X"),
    ("warmup = 'health'", "health"),
    ("wsgi_app = 3", "wsgi_app"),
    ("chdir = ''", "chdir"),
    ("worker = 4", "did you mean 'workers'"),
    ("time_out = 4", "did you mean 'timeout'"),
    ("Workers = 4", "did you mean 'workers'"),
    ("WORKERS = 4", "did you mean 'workers'"),
    ("nothing_like_it = 4", "nothing_like_it"),
    ("worker_class = 'gevent'", "--workers"),
    ("threads = 8", "--workers"),
    ("daemon = True", "systemd"),
    ("spew = True", "trace"),
    ("protocol = 'uwsgi'", "proxy"),
    ("http_protocols = 'h2'", "HTTP/1.1"),
    ("dirty_workers = 2", "queue"),
    ("permit_obsolete_folding = True", "RFC"),
    ("def post_forks(server, worker): pass", "post_forks"),
    ("post_fork = 3", "a hook is a function"),
    ("workers = object()", "object"),
    ("1 / 0", "line 1: ZeroDivisionError"),
    ("x = (", "line 1: SyntaxError"),
    ("\n\nimport nosuch", "line 3: ModuleNotFoundError"),
    ("exit(3)", "SystemExit"),
    ("import os; os._exit(7)", "it ended the process"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended the process"),
    ("def f(): f()\nf()", "line 1: RecursionError"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise ValueError('two\\nlines')", "two lines"),
    ("\0", "SyntaxError"),
]:
    bad_file(text, mention)
bad_file(
    "import time\nwhile True: time.sleep(9)", "not read within 0.3 s", "minicorn.conf.py", "--config-timeout", "0.3"
)
bad_file("def ssl_context(conf, default_ssl_context_factory): pass", "ssl_context cannot be honoured: see --certfile")
bad_file("print_config = True", "print_config cannot be honoured: ask for it on the command line")
bad_file("logconfig_dict = {'version': 2}", "--log-config: logconfig_dict")
bad_file("logconfig_dict = {'handlers': print}", "no hook")
bad_file("workers = ", "Invalid value", "minicorn.toml")
bad_file("worker = 2", "did you mean 'workers'", "minicorn.toml")
bad_file("[workers]\na = 1", "workers", "minicorn.toml")
bad_file("[tool.minicorn]\nworkers = 'x'", "pyproject.toml", "pyproject.toml")
bad_file("[project]\n", "[tool.minicorn]", "pyproject.toml", "-c", "pyproject.toml")
for digits in (400, 5000):
    bad_file(f"timeout = 10**{digits}", "timeout" if digits == 400 else "ValueError")
bad_argv(
    "m:app --backlog 2147483648", "--backlog: cannot take '2147483648': it takes a whole number from 1 to 2147483647"
)
bad_argv("m:app --name \udcff", "--name: cannot take '\\udcff'")
bad_argv("\udcff:app", "APP: cannot take '\\udcff:app'")
bad_argv("m:app --monitor \udcff:1", "--monitor: cannot listen on http://\\udcff:1: that is no name of a host", 1)
bad_argv("m:app --user 4294967295", "--user 4294967295: there is no such user", 1)
bad_argv("m:app --group 99999999999999999999", "there is no such group", 1)
bad_argv("m:app --log-syslog --log-syslog-to udp://a..b:1", "--log-syslog-to: cannot take 'udp://a..b:1'", 1)
bad_argv("m:app --log-syslog --log-syslog-to udp://a:99999", "--log-syslog-to: cannot take 'udp://a:99999'", 1)
bad_argv("run m:app", "one APP is served, and m:app is an argument too many: there is no command before it (see")
bad_argv("m:app --nope", "unrecognized arguments: --nope (see")
bad_argv("m:app -c missing.py", "missing.py: cannot be read", 1)
bad_argv("m:app -c .", "cannot be read", 1)
bad_argv("m:app -c python:nosuch", "ModuleNotFoundError", 1)
bad_argv("m:app n:app", "n:app")
bad_argv("", "such as main:app")
bad_argv("m:app -p 8000", "-p/--pid: cannot take '8000': it takes the path of a file for our pid; a port is --port's")
bad_argv("m:app -b 8000", "-b/--bind: cannot take '8000': it takes host:port, :port")
bad_argv("m:app --worker 2", "did you mean --workers")
bad_argv("m:app -k gevent", "--workers")
bad_argv("m:app --threads 8", "--workers")
bad_argv("m:app --daemon", "systemd")
bad_argv("m:app -e A", "NAME=VALUE")
bad_argv("m:app --chdir missing", "--chdir", 1)
bad_argv("m:app --error-logfile missing/log", "missing/log", 1)
bad_argv("m:app --log-config missing.ini", "--log-config: cannot read missing.ini", 1)
bad_argv("m:app --log-syslog --log-syslog-to nonsense", "--log-syslog-to", 1)
bad_argv("m:app --certfile missing.pem", "missing.pem", 1)
bad_argv("m:app --keyfile key.pem", "--keyfile", 1)
bad_argv("m:app --access-logformat %(zz)s", "--access-logformat", 1)
bad_argv("m:app --user nosuch", "there is no such user", 1)
bad_argv("m:app --group nosuch", "there is no such group", 1)
bad_argv("m:app --worker-class=gthread", "--workers")
bad_argv("m:app --max-body-size 1T", "--max-body-size")
bad_argv("m:app --limit-request-line -1", "--limit-request-line")
bad_file("bind = 'a\\0b:80'", "bind")
bad_file("import sys\nlogconfig_dict = {'formatters': {'f': {'()': 'sys.exit'}}}", "--log-config: SystemExit")
bad_file("logconfig_dict = {'formatters': {'f': {'()': 'os._exit', 'status': 7}}}", "ends the process that tries it")
bad_variable("MINICORN_WORKERS", "0", "MINICORN_WORKERS")
bad_variable("MINICORN_WORKRES", "2", "MINICORN_WORKERS")
bad_variable("MINICORN_ENV", "'A=1", "MINICORN_ENV")
bad_variable("MINICORN_CMD_ARGS", "--workers 0", "MINICORN_CMD_ARGS")
bad_variable("MINICORN_CMD_ARGS", "'", "MINICORN_CMD_ARGS")
bad_variable("GUNICORN_CMD_ARGS", "--no-such-flag", "GUNICORN_CMD_ARGS")
bad_variable("MINICORN_CONFIG", "missing.py", "missing.py")
BAD["two files"] = (("m:app",), {"minicorn.conf.py": "", "minicorn.toml": ""}, {}, 1, "both here")


# What a start would take: the place, and whether that is looked at before
PLACES_TAKEN = {
    "--pid missing/pid": "--pid missing/pid: No such file",
    "--pid .": "--pid .: Is a directory",
    "--worker-tmp-dir missing": "/missing: No such file",
    "--access-logfile missing/log": "missing/log",
    "--bind unix:missing/s": "cannot listen on unix:missing/s: No such file",
    "--bind unix:.": "cannot listen on unix:.: a file that is no socket is there",
    f"--bind unix:{'x' * 120}": "AF_UNIX path too long",
    "--bind 203.0.113.7:80": "cannot listen on http://203.0.113.7:80: Cannot assign",
    "--bind 127.0.0.1:0 --monitor 203.0.113.7:80": "--monitor: cannot listen on http://203.0.113.7:80: Cannot assign",
    "--bind 127.0.0.1:0 --monitor 0.0.0.0:0": "--monitor-allow",
}


@pytest.mark.parametrize("check", [(), ("--check-config",)], ids=["at the start", "before"])
@pytest.mark.parametrize("argv", PLACES_TAKEN)
def test_a_place_that_cannot_be_had_is_one_line(run: Run, argv: str, check: tuple[str, ...]) -> None:
    code, out, err = run("m:app", *argv.split(), *check)
    assert (code, out) == (1, ""), err
    assert err.startswith("minicorn: error: ")
    assert err.count("\n") == 1
    assert PLACES_TAKEN[argv] in err


def test_a_descriptor_is_missed_by_a_start_alone(run: Run) -> None:
    """Before it there is no service manager to pass it."""
    good = {"good.py": "def app(environ, start_response): pass"}
    assert run("good:app", "--bind", "fd://99", "--check-config", files=good)[::2] == (0, "")
    code, _, err = run("good:app", "--bind", "fd://99", files=good)
    assert (code, err.count("\n"), "cannot listen on fd://99" in err) == (1, 1, True)


# Root without what makes it root, who owns its files as anybody does
PLAIN_USER = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


@pytest.mark.parametrize(
    ("argv", "mention"),
    [
        ("--bind 127.0.0.1:81", "cannot listen on http://127.0.0.1:81: Permission denied"),
        ("--bind unix:closed/s", "cannot listen on unix:closed/s: Permission denied"),
        ("--pid closed/pid", "--pid closed/pid: Permission denied"),
        ("--pid theirs", "--pid theirs: Permission denied"),
        ("--worker-tmp-dir closed", "/closed: Permission denied"),
        ("--error-logfile closed/log", "closed/log: Permission denied"),
    ],
)
def test_what_one_may_not_have_is_told_before(start: Starter, argv: str, mention: str) -> None:
    (start.cwd / "closed").mkdir(mode=0o555)
    (start.cwd / "theirs").touch(mode=0o444)
    server = start.command(*PLAIN_USER, *MINICORN, "plain:app", *argv.split(), "--check-config")
    assert server.wait() == 1
    assert server.log.finish().startswith("minicorn: error: ")
    assert mention in server.log.text


def listed(directory: Path) -> list[str]:
    """What is there, but for what the application writes itself."""
    return sorted(name for name in os.listdir(directory) if not name.startswith(("boot-", "exit-")))


def test_beside_the_server_that_runs_a_check_finds_nothing_wrong_and_changes_nothing(start: Starter) -> None:
    argv = ("plain:app", "--pid", "pid", "--bind", "unix:s", "--bind", f"127.0.0.1:{free_port()}", "--reuse-port")
    argv += ("--monitor", f"127.0.0.1:{free_port()}", "--worker-tmp-dir", ".", "--access-logfile", "log")
    server = start(*argv, bind=False)
    before = listed(start.cwd)
    checked = start.command(*MINICORN, *argv, "--check-config")
    assert (checked.wait(), checked.log.finish()) == (0, "")
    assert listed(start.cwd) == before
    assert (start.cwd / "pid").read_text() == f"{server.process.pid}\n"
    assert server.get("/").status == 200


def test_there_are_sixty_bad_ones() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", BAD)
def test_a_bad_configuration_is_one_line(run: Run, name: str) -> None:
    argv, files, variables, expected, mention = BAD[name]
    code, out, err = run("--check-config", *argv, files=files, **variables)
    assert (code in (1, 2), code, out) == (True, expected, ""), err
    assert err.startswith("minicorn: error: ")
    assert err.count("\n") == 1
    assert mention in err


def test_a_file_that_runs_itself_is_one_line(start: Starter) -> None:
    start.write("minicorn.conf.py", "exec(open(__file__).read())")
    server = start.command(*MINICORN, "plain:app")
    assert server.wait() == 1
    assert server.log.finish().startswith("minicorn: error: minicorn.conf.py: line 1: RecursionError")


def test_an_unreadable_file_is_one_line_for_whoever_may_not_read_it(start: Starter) -> None:
    start.write("minicorn.conf.py", "workers = 2").chmod(0)
    server = start.command(*PLAIN_USER, *MINICORN, "plain:app")
    assert server.wait() == 1
    assert server.log.finish() == "minicorn: error: minicorn.conf.py: cannot be read: Permission denied\n"


def test_a_check_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    """Root's log, where root has checked, would be closed to the server's own user."""
    places = ("--log-file", "error", "--access-logfile", "access", "--pid", "pid", "--bind", "unix:s")
    good = {"good.py": "def app(environ, start_response): pass"}
    assert run("good:app", *places, "--worker-tmp-dir", ".", "--check-config", files=good)[::2] == (0, "")
    assert os.listdir(tmp_path) == ["good.py"]


def test_a_configuration_is_checked_with_its_application(run: Run) -> None:
    assert run("--check-config", "good:app", files={"good.py": "def app(environ, start_response): pass"})[0] == 0
    code, _, err = run("--check-config", "broken:app", files={"broken.py": "1 / 0"})
    assert (code, "ZeroDivisionError" in err) == (3, True)


# HUP


def test_hup_reads_the_file_again_and_says_what_it_cannot_change(start: Starter) -> None:
    start.write("minicorn.conf.py", "workers = 1")
    server = start("plain:app")
    start.write("minicorn.conf.py", "workers = 3\npidfile = 'new.pid'")
    server.signal(SIGHUP)
    server.wait_log(r"HUP does not change pid")
    server.wait_log(r"generation 2 serves: 3 workers replaced")
    assert len(server.workers()) == 3
    assert not (start.cwd / "new.pid").exists()


@pytest.mark.parametrize("text", ["1 / 0", "workers = 0", "import os; os._exit(0)", "worker = 1"])
def test_a_broken_file_at_hup_changes_nothing(start: Starter, text: str) -> None:
    start.write("minicorn.conf.py", "workers = 1")
    server = start("plain:app")
    before = server.workers()
    start.write("minicorn.conf.py", text)
    server.signal(SIGHUP)
    server.wait_log(r"reload is off, all serve on as before: minicorn.conf.py")
    assert server.get("/").status == 200
    assert server.workers() == before


def test_a_file_that_hangs_at_hup_stops_nothing(start: Starter) -> None:
    start.write("minicorn.conf.py", "workers = 1")
    server = start("plain:app", "--config-timeout", "60")
    start.write("minicorn.conf.py", "open('begun', 'w').close()\nimport time\ntime.sleep(99)")
    server.signal(SIGHUP)
    assert server.get("/").status == 200
    assert server.stop() == 0


SITE = """
import os
from plain import app
assert "BREAK" not in os.environ
"""
SERVING = """
workers = 2
wsgi_app = "site_app:app"
accesslog = "access.log"
timeout = 0.5
"""


def serve(start: Starter, *flags: str) -> Server:
    """Two workers by the file's settings, the application's name among them."""
    start.write("site_app.py", SITE)
    start.write("minicorn.conf.py", SERVING)
    server = start.command(*MINICORN, *ANY_PORT, *flags)
    server.wait_ready(2)
    return server


@pytest.mark.parametrize(
    "bad",
    [
        "certfile = '/nope.pem'",
        "chdir = '/nonexistent'",
        "wsgi_app = 'nosuch:app'",
        "raw_env = ['BREAK=1']",
        "raw_env = ['BREAK=1'] # --preload",
    ],
)
def test_settings_that_no_worker_can_live_by_are_no_ones(start: Starter, bad: str) -> None:
    """Whoever dies of the old generation is replaced by its like, and so is the template."""
    server = serve(start, *bad.split("# ")[1:])
    before = server.workers()
    start.write("minicorn.conf.py", f"{SERVING}\n{bad}\nworkers = 3")
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off.*; generation 1 serves on")
    for pid in before:
        os.kill(pid, SIGKILL)
    server.wait_log(r"\(slot \d, gen 1\) is ready after", count=4)
    assert server.get("/").status == 200
    wait_until(lambda: len(server.workers()) == len(before), "all have been replaced")
    start.write("minicorn.conf.py", f"{SERVING}\nworkers = 3")
    server.signal(SIGHUP)
    server.wait_log("generation 3 serves: 3 workers replaced")


def test_the_arbiter_goes_by_no_settings_but_those_of_what_serves(start: Starter) -> None:
    server = serve(start)
    start.write("minicorn.conf.py", f"{SERVING}\naccess_log_format = '%(h)s %(duration)s'\nloglevel = 'error'")
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off.*; generation 1 serves on")
    server.hold()
    log = start.cwd / "access.log"
    wait_until(lambda: "GET /hold" in log.read_text(), "the request that ran late is in the access log")
    server.wait_ready(3)
    assert server.get("/").status == 200
