"""The monitor: a real one beside a real server."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, SIGUSR2

import psutil
import pytest
from harness import Reply, Server, Starter, is_alive, read, wait_until
from load import Load
from prometheus_client.parser import text_string_to_metric_families

MONITOR = ("--monitor", "127.0.0.1:0")
UNNAMED = signal.SIGRTMIN + 6  # `signal` knows the first and the last real-time one alone


def port(server: Server, count: int = 1) -> int:
    return int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)", count=count)[1])


def ask(server: Server, path: str) -> Reply:
    return server.get(path, at=port(server))


def metrics(server: Server) -> dict[str, float]:
    families = text_string_to_metric_families(ask(server, "/metrics").text)
    return {f"{s.name}{''.join(s.labels.values())}": s.value for family in families for s in family.samples}


def monitor_pid(server: Server) -> int:
    """The child of the arbiter that is no worker."""
    workers = {each["pid"] for each in json.loads(ask(server, "/status").text)["workers"]}
    (pid,) = server.workers() - workers
    return pid


def test_metrics_equal_the_clients_own_count_across_rolls_and_recycling(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "2", "--max-requests", "60", *MONITOR)
    went_back: list[str] = []
    with Load(server.port, 4) as load:
        before = metrics(server)
        for roll in (1, 2):
            server.hup(roll)
            now = metrics(server)
            grown = [name for name in before if name.split("{")[0].endswith(("_total", "_bucket", "_sum", "_count"))]
            went_back += [name for name in grown if now.get(name, 0) < before[name]]
            before = now
    assert load.tally.failures == [] and load.tally.idle_closes == [] and went_back == []
    wait_until(lambda: metrics(server)["minicorn_requests_total2xx"] == load.tally.requests, "all are counted")
    read = metrics(server)
    assert read["minicorn_request_duration_seconds_count"] == load.tally.requests
    assert read["minicorn_request_queue_seconds_count"] == load.tally.requests


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_promtool_has_nothing_to_say_against_the_metrics(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    server.get("/")
    text = ask(server, "/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_monitor_serves_its_pages_and_nothing_else(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    wait_until(lambda: ask(server, "/ready").text == "ready\n", "it tells")
    assert ask(server, "/live").text == "alive\n"
    told = json.loads(ask(server, "/status").text)
    assert (told["pid"], told["app"], told["ready"]) == (server.pid, "plain:app", True)
    page = ask(server, "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    # No external resources
    assert re.findall(r"""(?:src|href)=["']?([^"' >]+)""", page.text) == ["metrics", "status", "ready"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert ask(server, "/nothing").status == 404
    connection = server.connect(at=port(server))
    connection.request("POST", "/status")
    assert connection.getresponse().status == 405


def ask_as(server: Server, host: str) -> Reply:
    """The monitor's reply to who calls it `host`."""
    connection = server.connect(at=int(server.wait_log(r"Monitor on http://[\d.]+:(\d+)")[1]))
    connection.request("GET", "/status", headers={"Host": host})
    return read(connection)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1:0"])
def test_a_page_whose_name_leads_here_cannot_read_the_monitor(start: Starter, address: str) -> None:
    """DNS rebinding: the browser says the name of the page's host."""
    server = start("plain:app", "--monitor", address)
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "127.2"):
        refused = ask_as(server, host)
        assert (refused.status, refused.text) == (421, "ask by an address, or add --monitor-allow\n"), host
    for host in ("10.1.2.3:80", "[::1]:80", "localhost", "shop.localhost", "shop:9100", address.partition(":")[0]):
        assert ask_as(server, host).status == 200, host
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.sendall(b"GET /live HTTP/1.0\r\n\r\n")  # as HAProxy asks
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:0"])
def test_where_others_may_ask_they_may_call_it_what_they_like(start: Starter, address: str) -> None:
    server = start("plain:app", "--monitor", address, "--monitor-allow")
    assert ask_as(server, "metrics.example").status == 200


def test_ready_says_503_with_the_reason_while_booting_and_draining(start: Starter) -> None:
    start.write(
        "slow_boot.py",
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nfrom plain import app\n",
    )
    server = start("slow_boot:app", "--drain-delay", "60", *MONITOR, ready=0)
    booting = ask(server, "/ready")
    assert (booting.status, booting.text) == (503, "booting\n")
    assert ask(server, "/live").status == 200
    (server.cwd / "go").touch()
    server.wait_ready()
    wait_until(lambda: ask(server, "/ready").status == 200, "it is ready")
    server.signal(SIGTERM)
    wait_until(lambda: ask(server, "/ready").text == "draining\n", "it drains")
    assert server.get("/").status == 200
    server.signal(signal.SIGINT)
    server.wait()


def test_a_server_whose_arbiter_hangs_is_not_alive_but_serves(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    wait_until(lambda: ask(server, "/ready").status == 200, "it is ready")
    server.signal(signal.SIGSTOP)
    wait_until(lambda: ask(server, "/live").status == 503, "it is missed")
    assert re.fullmatch(r"the arbiter has not been heard for \d+ s\n", ask(server, "/live").text)
    assert server.get("/").status == ask(server, "/ready").status == 200
    server.signal(signal.SIGCONT)
    wait_until(lambda: ask(server, "/live").text == "alive\n", "it is back")


def test_the_death_of_the_monitor_changes_nothing_for_requests(start: Starter) -> None:
    server = start("handoff_app:app", "--workers", "2", *MONITOR)
    with Load(server.port, 3) as load:
        for signum, name in ((SIGKILL, "SIGKILL"), (UNNAMED, f"signal {UNNAMED}")):
            os.kill(monitor_pid(server), signum)
            server.wait_log(rf"monitor \d+ has died of {name};")
            wait_until(lambda: ask(server, "/live").status == 200, "another serves at the same address")
    assert load.tally.failures == [] and load.tally.idle_closes == []


def test_a_monitor_outlives_a_roll_and_listens_on_across_an_upgrade(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    before, at = monitor_pid(server), port(server)
    server.hup()
    assert monitor_pid(server) == before
    server.signal(SIGUSR2)
    server.wait_log("generation 3 serves")
    assert port(server, count=2) == at
    wait_until(lambda: metrics(server)["minicorn_upgrades_total"] == 1, "the new one answers")
    wait_until(lambda: not is_alive(before), "the old one has gone")


def test_workers_and_application_do_not_hold_the_monitors_port(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    at, worker = port(server), next(iter(json.loads(ask(server, "/status").text)["workers"]))["pid"]
    listening = {each.laddr.port for each in psutil.Process(worker).net_connections("tcp") if each.status == "LISTEN"}
    assert listening == {server.port}
    listening = {
        each.laddr.port
        for each in psutil.Process(monitor_pid(server)).net_connections("tcp")
        if each.status == "LISTEN"
    }
    assert listening == {at}


def test_it_listens_on_a_unix_socket(start: Starter) -> None:
    server = start("plain:app", "--monitor", "unix:monitor.sock")
    server.wait_log(r"Monitor on unix:")
    path = server.cwd / "monitor.sock"
    assert stat.S_ISSOCK(path.stat().st_mode)
    wait_until(lambda: server.get("/live", at=path).status == 200, "it answers")
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_it_never_listens_where_others_reach_it_unless_allowed(start: Starter, address: str) -> None:
    if "[" in address and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    server = start("plain:app", "--monitor", address, ready=0)
    assert server.wait() == 1
    assert re.search(r"^minicorn: error: --monitor: .* add --monitor-allow$", server.log.text, re.MULTILINE)
    allowed = start("plain:app", "--monitor", address, "--monitor-allow")
    assert int(allowed.wait_log(r"Monitor on http://.*:(\d+)")[1])


def test_an_address_in_use_is_one_line(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start("plain:app", "--monitor", f"127.0.0.1:{taken.getsockname()[1]}", ready=0)
        assert server.wait() == 1
    assert server.log.text.startswith("minicorn: error: --monitor: cannot listen on http://127.0.0.1:")


def test_statsd_is_sent_by_the_monitor(start: Starter) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(15)
        to = f"127.0.0.1:{sink.getsockname()[1]}"
        server = start("plain:app", "--statsd-host", to, "--statsd-prefix", "shop", "--dogstatsd-tags", "env:test")
        sink.recv(65536)  # from now on there is one before
        for _ in range(3):
            server.get("/")
        seen, counted = "", 0
        while counted < 3:
            seen = sink.recv(65536).decode()
            counted += sum(map(int, re.findall(r"^shop\.requests:(\d+)\|c\|#env:test$", seen, re.MULTILINE)))
        assert counted == 3
        assert "shop.workers:1|g|#env:test" in seen


def test_statsd_that_cannot_be_sent_is_told(start: Starter) -> None:
    server = start("plain:app", "--statsd-host", "255.255.255.255:9")  # not without SO_BROADCAST
    server.wait_log(r"WARNING: +cannot send to statsd at 255\.255\.255\.255:9: .*denied")


def test_the_server_ends_though_somebody_watches(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    done = threading.Event()

    def watch() -> None:
        connection = server.connect(at=port(server))
        while not done.is_set():
            try:
                connection.request("GET", "/status")
                connection.getresponse().read()
            except OSError:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wait_until(lambda: ask(server, "/live").status == 200, "it answers")
    assert server.stop() == 0
    done.set()
    watcher.join()


def test_a_reload_does_not_start_another_monitor(start: Starter) -> None:
    server = start("plain:app", *MONITOR)
    before = monitor_pid(server)
    server.signal(SIGHUP)
    server.wait_log("generation 2 serves")
    assert monitor_pid(server) == before
