"""The units of `systemd/`, run by a real systemd manager."""

import gzip
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGSTOP, SIGUSR2

import pytest
from harness import CHECKOUT, Starter, free_port, wait_until
from load import Load
from service_manager import Manager
from service_site import ECHO, UNITS, Site

DEPLOY = CHECKOUT / "deploy"


@pytest.fixture(params=[UNITS / "minicorn@.service", UNITS / "user/minicorn@.service"], ids=["system", "user"])
def site(manager: Manager, request: pytest.FixtureRequest) -> Site:
    return Site(manager, request.param)


def wait_over(seconds: float) -> None:
    """Until a limit of the manager's is over."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "a limit is over")


def test_start_returns_when_requests_are_served_and_not_before(site: Site) -> None:
    gate = "import pathlib, time\nwhile not pathlib.Path('../../go').exists():\n    time.sleep(0.01)\n"
    site.release("2", gate + ECHO)
    site.manager.do("start", "--no-block", site.unit)
    site.manager.wait_status(site.unit, "booting 2 workers")
    assert site.state() == "activating"
    (site.home / "site/go").touch()
    site.do("start")
    assert site.get() == "V t "
    assert "of 2 workers serve generation 1" in site.manager.show(site.unit, "StatusText")


def test_a_first_boot_that_fails_fails_the_start_and_says_why(site: Site) -> None:
    site.release("2", "raise RuntimeError('no such table')")
    site.configure("--bind 127.0.0.1:0", "[Service]\nRestart=no\n")
    assert site.manager.run("start", site.unit).returncode
    assert site.manager.show(site.unit, "ExecMainStatus") == "3"
    assert "RuntimeError: no such table" in site.manager.show(site.unit, "StatusText")


def test_a_reload_serves_the_release_behind_the_symlink(site: Site) -> None:
    site.do("start")
    pid = site.manager.pid(site.unit)
    site.release("2", ECHO.replace("V ", "W "))
    site.do("reload")
    assert site.get() == "W t "  # at once: the reload has waited
    site.manager.wait_status(site.unit, "workers serve generation 2")
    assert site.manager.pid(site.unit) == pid


def test_a_reload_onto_broken_code_fails_and_the_site_serves_on(site: Site) -> None:
    site.do("start")
    site.release("2", "import nothing_of_this_name")
    assert site.manager.run("reload", site.unit).returncode
    status = site.manager.wait_status(site.unit, "the roll to generation 2 failed")
    assert "No module named 'nothing_of_this_name'" in status
    assert status in site.manager.run("status", site.unit).stdout
    assert site.get() == "V t "
    assert site.state() == "active"


def test_an_upgrade_in_place_keeps_the_main_pid(site: Site) -> None:
    site.do("start")
    pid = site.manager.pid(site.unit)
    os.kill(pid, SIGUSR2)
    wait_until(lambda: "generation 2 serves" in site.log, "the upgrade is done")
    site.manager.wait_status(site.unit, "workers serve generation 2")
    assert (site.manager.pid(site.unit), site.get(), site.state()) == (pid, "V t ", "active")


def test_an_arbiter_that_hangs_is_restarted_by_the_watchdog(site: Site) -> None:
    site.configure("--bind 127.0.0.1:0", "[Service]\nWatchdogSec=1\nRestartSec=0\n")
    site.do("start")
    pid = site.manager.pid(site.unit)
    os.kill(pid, SIGSTOP)
    wait_until(lambda: site.manager.pid(site.unit) not in (0, pid) and site.state() == "active", "it is restarted", 30)
    assert site.get() == "V t "
    assert site.manager.show(site.unit, "NRestarts") == "1"


LONG = """
import os, time
def wait_for(name):
    while not os.path.exists("../../" + name):
        time.sleep(0.01)
wait_for("booted")
def app(environ, start_response):
    open("../../begun", "w").close()
    wait_for("end")
    start_response("200 OK", [])
    return [b"done"]
"""


@pytest.mark.slow
def test_a_long_boot_and_a_long_request_outlast_the_managers_limits(manager: Manager) -> None:
    """EXTEND_TIMEOUT_USEC: the arbiter has deadlines of its own, the manager's are for one that hangs."""
    site = Site(manager, UNITS / "minicorn@.service")
    here = site.home / "site"
    site.release("2", LONG)
    site.configure("--bind 127.0.0.1:0", "[Service]\nTimeoutStartSec=5\nTimeoutStopSec=5\n")
    site.manager.do("start", "--no-block", site.unit)
    wait_over(6)
    assert site.state() == "activating"
    (here / "booted").touch()
    site.do("start")
    client = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    client.request("GET", "/")
    wait_until((here / "begun").exists, "it is in hand")
    site.manager.do("stop", "--no-block", site.unit)
    wait_over(7)  # --drain-delay and the limit
    assert site.state() == "deactivating"
    (here / "end").touch()
    assert client.getresponse().read() == b"done"
    wait_until(lambda: site.state() == "inactive", "it has ended well")


def test_a_restart_finds_the_listeners_in_the_store(site: Site) -> None:
    site.do("start")
    port = site.port
    with Load(port, 8) as load:
        wait_until(lambda: load.least_replies() > 20, "all are served")
        site.do("restart")
        before = load.least_replies()
        wait_until(lambda: load.least_replies() > before + 20, "all are served again")
    assert (load.tally.failures, load.tally.idle_closes) == ([], [])
    assert site.port == port


def test_a_restart_behind_the_socket_unit_loses_no_request(manager: Manager) -> None:
    site = Site(manager, UNITS / "minicorn@.service")
    manager.write("minicorn@.socket", (UNITS / "minicorn@.socket").read_text())
    manager.write(
        "minicorn@.socket.d/here.conf",
        f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{free_port()}\nListenStream={manager.home}/s\nSocketGroup=\n",
    )
    site.configure("--workers 2")
    manager.do("start", "minicorn@shop.socket")
    port = int(re.findall(r"127.0.0.1:(\d+)", manager.show("minicorn@shop.socket", "Listen"))[0])
    assert site.state() == "inactive"
    with Load(port, 8) as load:  # the first connection starts the service
        wait_until(lambda: load.least_replies() > 20, "all are served")
        for _ in range(3):
            site.do("restart")
            before = load.least_replies()
            wait_until(lambda before=before: load.least_replies() > before + 20, "all are served again")
    assert (load.tally.failures, load.tally.idle_closes) == ([], [])
    assert f"unix:{manager.home}/s" in site.log


@pytest.mark.skipif(not shutil.which("logrotate"), reason="NOT TESTED: logrotate is not installed")
def test_rotation_under_load_loses_no_line(manager: Manager) -> None:
    site = Site(manager, UNITS / "minicorn@.service")
    logs = manager.home / "config/log/minicorn"  # LogsDirectory=, of a user's manager
    log = logs / "shop.access.log"
    site.configure(f"--workers 2 --bind 127.0.0.1:0 --access-logfile {log} --access-logformat %(U)s")
    text = (DEPLOY / "logrotate.conf").read_text()
    for there, here in (
        ("/var/log/minicorn", str(logs)),
        ("su minicorn minicorn", ""),
        ("systemctl", "systemctl --user"),
    ):
        assert there in text
        text = text.replace(there, here)
    (manager.home / "logrotate.conf").write_text(text)
    site.do("start")
    with Load(site.port, 4) as load:
        for rotation in range(1, 5):
            wait_until(lambda: log.exists() and log.stat().st_size > 10_000, "it is written again")
            rotate = ["logrotate", "--force", "--state", f"{manager.home}/rotated", f"{manager.home}/logrotate.conf"]
            subprocess.run(rotate, env=manager.env, check=True)
            assert len(list(logs.iterdir())) >= rotation
    site.do("stop")
    kept = sorted(logs.iterdir())
    assert [path.name for path in kept if path.suffix == ".gz"] == [f"shop.access.log.{n}.gz" for n in (2, 3, 4)]
    lines = [line for path in kept for line in read_lines(path)]
    assert len(lines) == len(set(lines)) == load.tally.requests


def read_lines(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode().splitlines()


# The files themselves

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="NOT TESTED: systemd is not installed")
EXPOSURE = 1.5


def analyze(*words: str | Path, **environ: str) -> str:
    command = [str(ANALYZE), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_the_exposure_of_the_service_is_low() -> None:
    report = analyze("security", "--offline=true", "--no-pager", UNITS / "minicorn@.service")
    assert float(re.search(r"Overall exposure level for .*: ([\d.]+)", report)[1]) <= EXPOSURE


@needs_systemd
@pytest.mark.parametrize("options", [["minicorn@.service", "minicorn@.socket"], ["user/minicorn@.service"]], ids=str)
def test_the_units_verify(options: list[str], tmp_path: Path) -> None:
    for name in options:
        text = (UNITS / name).read_text()
        # The only thing that is not there on a machine without a site
        (tmp_path / Path(name).name).write_text(re.sub(r"(?m)^(ExecStart|ExecReload)=\S+", r"\1=/bin/true", text))
    for name in options:
        unit = tmp_path / Path(name).name.replace("@.", "@shop.")
        scope = ["--user"] if name.startswith("user/") else []
        assert analyze("verify", "--man=no", *scope, unit, XDG_RUNTIME_DIR=str(tmp_path)) == ""


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="NOT TESTED: no systemd-socket-activate")
def test_systemd_socket_activate_passes_several_sockets(start: Starter) -> None:
    """The manual's own tool."""
    first, second = free_port(), free_port()
    server = start.command(
        "systemd-socket-activate",
        *(f"--listen=127.0.0.1:{each}" for each in (first, second)),
        "--fdname=a:b",
        "--setenv=PYTHONPATH",
        sys.executable,
        "-m",
        "minicorn",
        "plain:app",
    )
    server.wait_log("Listening on .*as 4")
    assert server.get("/", at=first).status == server.get("/", at=second).status == 200
