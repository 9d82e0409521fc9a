"""The package as it is found: not installed, alone, from a script, under other Pythons."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest
from harness import ANY_PORT, CHECKOUT, Server, Starter, free_port, wait_until

FROM_CHECKOUT = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from minicorn.cli import main
assert not any("site-packages" in path for path in sys.path)
sys.exit(main())
"""
SCRIPT = """
from minicorn import serve
if __name__ == "__main__":
    serve("plain:app", port=0, {options})
    print("served")
"""
RUN_SCRIPT = """
from minicorn import run
from plain import app
run(app, port=0)
print("served")
"""


def other_pythons() -> list[Path]:
    """Interpreters that minicorn supports, one of each minor version but ours."""
    found: dict[int, Path] = {}
    for path in sorted(Path.home().glob(".pyenv/versions/*/bin/python3.*")):
        if (match := re.fullmatch(r"python3\.(\d+)", path.name)) and 11 <= int(match[1]) != sys.version_info.minor:
            found[int(match[1])] = path
    return [found[minor] for minor in sorted(found)]


def serves_and_stops(server: Server) -> None:
    server.wait_ready(2)
    assert "Hello from minicorn" in server.get("/").text
    server.hup()
    assert "generation  2" in server.get("/").text
    assert server.stop() == 0


def test_it_runs_from_a_checkout_with_the_standard_library_alone(start: Starter) -> None:
    flags = ("minicorn.demo:app", *ANY_PORT, "--workers", "2")
    serves_and_stops(start.command(sys.executable, "-I", "-S", "-c", FROM_CHECKOUT, *flags))


def test_python_m_minicorn_runs_in_a_checkout_without_packages(start: Starter) -> None:
    flags = ("minicorn.demo:app", *ANY_PORT, "--workers", "2")
    serves_and_stops(start.command(sys.executable, "-E", "-S", "-m", "minicorn", *flags, cwd=CHECKOUT))


def test_it_runs_from_a_zip_file_with_all_its_pages(start: Starter) -> None:
    shutil.make_archive(str(start.cwd / "lib"), "zip", CHECKOUT, "minicorn")
    server = start("plain:app", "--monitor", "127.0.0.1:0", env={"PYTHONPATH": f"{start.cwd}/lib.zip"})
    port = int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)")[1])
    assert server.get("/").status == server.get("/", at=port).status == 200


def test_optimised_python_serves_as_well(start: Starter) -> None:
    """No behaviour hangs on an assert."""
    flags = ("minicorn.demo:app", *ANY_PORT, "--workers", "2")
    serves_and_stops(start.command(sys.executable, "-OO", "-m", "minicorn", *flags))


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: path.name)
def test_other_pythons_serve_as_well(start: Starter, python: Path) -> None:
    flags = ("minicorn.demo:app", *ANY_PORT, "--workers", "2")
    serves_and_stops(start.command(str(python), "-m", "minicorn", *flags))


def test_warnings_as_errors_find_nothing(start: Starter) -> None:
    flags = ("minicorn.demo:app", *ANY_PORT, "--workers", "2")
    server = start.command(sys.executable, "-X", "dev", "-W", "error", "-m", "minicorn", *flags)
    serves_and_stops(server)
    assert "Warning" not in server.log.finish()


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_serve_with_workers_returns_to_its_script_when_stopped(start: Starter, signum: Signals) -> None:
    start.write("script.py", SCRIPT.format(options="workers=2"))
    server = start.command(sys.executable, "script.py")
    server.wait_ready(2)
    assert server.get("/").status == 200
    server.hup()
    assert server.stop(signum) == 0
    assert server.output.finish() == "served\n"
    assert "Traceback" not in server.log.finish()


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
@pytest.mark.parametrize("script", [SCRIPT.format(options="workers=1"), RUN_SCRIPT], ids=["serve", "run"])
def test_one_process_returns_to_its_script_when_stopped(start: Starter, script: str, signum: Signals) -> None:
    start.write("script.py", script)
    server = start.command(sys.executable, "script.py")
    assert server.get("/", at=server.listening_port()).text == str(server.pid)
    assert server.stop(signum) == 0
    assert server.output.finish() == "served\n"
    assert "Traceback" not in server.log.finish()


def test_serve_says_the_same_with_one_worker_and_with_two(start: Starter) -> None:
    """Where it listens, what its options ask for, and where the environment mounts the application."""
    for workers in (1, 2):
        access = start.cwd / f"access-{workers}.log"
        start.write("script.py", SCRIPT.format(options=f"workers={workers}, access_logfile={str(access)!r}"))
        server = start.command(sys.executable, "script.py", env={"SCRIPT_NAME": "/shop"})
        port = server.listening_port()
        assert server.get("/shop/version", at=port).status == 200
        wait_until(
            lambda access=access: access.exists() and "GET /shop/version" in access.read_text(), "the access log"
        )
        assert f"Listening on http://127.0.0.1:{port}" in server.log.text
        assert server.stop() == 0


SEEN = """
import os, time
def app(environ, start_response):
    time.sleep(60 * (environ["PATH_INFO"] == "/nap"))
    start_response("200 OK", [])
    return [f"{os.getpid()} {os.getuid()} {os.environ['A']}".encode()]
"""


def test_serve_with_one_worker_does_all_that_its_options_ask_for(start_in_the_open: Starter) -> None:
    start = start_in_the_open
    start.cwd.chmod(0o755)
    monitor, user = free_port(), 65534 if os.geteuid() == 0 else os.geteuid()
    options = f'workers=1, env=["A=1"], pid="pid", monitor="127.0.0.1:{monitor}", user={user}, timeout=0.5'
    start.write("seen.py", SEEN)
    start.write("script.py", SCRIPT.replace("plain:", "seen:").format(options=options))
    server = start.command(sys.executable, "script.py")
    server.wait_ready()
    assert (start.cwd / "pid").read_text() == f"{server.pid}\n"
    assert server.get("/live", at=monitor).status == 200
    worker, *rest = server.get("/").text.split()
    assert (int(worker) != server.pid, rest) == (True, [str(user), "1"])
    nap = server.send("/nap")
    server.wait_log(rf"worker {worker} .* was late by .* in GET /nap")
    nap.close()
    assert server.stop() == 0
    assert server.output.finish() == "served\n"


def test_one_process_runs_where_and_with_what_its_options_say(start: Starter) -> None:
    start.write("library/extra.py", "NAME = 'extra'")
    start.write("there/fitted.py", "import os, extra\nfrom plain import app\nos.environ['B'] = extra.NAME")
    options = 'chdir="there", pythonpath="../library", env=["A=1"]'
    start.write("script.py", f"from minicorn import serve\nserve('fitted:app', port=0, {options})")
    server = start.command(sys.executable, "script.py")
    seen = json.loads(server.get("/environment", at=server.listening_port()).text)
    assert (seen["A"], seen["B"]) == ("1", "extra")
    assert (start.cwd / "there" / f"boot-{server.pid}").exists()


REFUSING = """
import threading
from minicorn import run, serve
from minicorn.errors import ConfigError
def refused(start):
    try:
        start()
    except ConfigError as error:
        print(error)
refused(lambda: run(print, port=0, user="nobody", timeout=30, reload=False))
refused(lambda: run(print, port=0, workers=2))
thread = threading.Thread(target=refused, args=[lambda: serve("plain:app", port=0, pid="pid", timeout=0)])
thread.start()
thread.join()
"""


def test_what_a_server_in_this_process_cannot_do_is_refused_and_not_dropped(start: Starter) -> None:
    start.write("script.py", REFUSING)
    server = start.command(sys.executable, "script.py")
    assert server.wait() == 0
    assert server.output.finish().splitlines() == [
        "user, timeout: run() serves in this process, which cannot do that; use serve()",
        "workers: run() serves in this process, which cannot do that; use serve()",
        "pid: that takes an arbiter, which forks from the main thread only",
    ]
