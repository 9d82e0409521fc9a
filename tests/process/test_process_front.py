"""nginx, HAProxy and Caddy, real ones with the files of `deploy/`, in front of servers that are replaced under load."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fronts import ALL, Front, haproxy, nginx, read_states
from harness import Server, Starter, free_port, wait_until
from load import Load, bodies
from service_manager import Manager
from service_site import UNITS, Site
from test_process_handoff import await_replies

APP = """
import os
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    token = environ["PATH_INFO"].rpartition("/")[2]
    reply = b"%d %s " % (os.getpid(), token.encode()) + body
    if token == "who":
        reply = ("%s %s" % (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"])).encode()
    start_response("200 OK", [("Content-Length", str(len(reply)))])
    return [reply]
"""
PROXY_PROTOCOL = {"nginx": (), "caddy": (), "haproxy": ("--proxy-protocol",)}
# Go's proxy cuts a reply that comes while it still looks whether the request's body has ended: golang/go#40747
BODIES = {"nginx": bodies, "haproxy": bodies, "caddy": lambda serial: b""}


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What is to be ended after the test."""
    with ExitStack() as ends:
        yield ends


@pytest.fixture(params=ALL)
def front(request: pytest.FixtureRequest, start: Starter, ends: ExitStack) -> Front:
    """A proxy in front of the Unix socket `s`."""
    front = ALL[request.param](start.cwd, start.cwd / "s")
    ends.callback(front.end)
    return front


def serve(start: Starter, *flags: str) -> Server:
    start.write("shop.py", APP)
    return start("shop:app", "--workers", "2", *flags, bind=False)


def check(load: Load) -> None:
    assert (load.tally.failures, load.tally.idle_closes) == ([], [])


def test_a_proxy_sees_nothing_of_rolls_under_load_and_tells_the_client(
    start: Starter, front: Front, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["front"]
    server = serve(start, "--bind", f"unix:{start.cwd}/s", *PROXY_PROTOCOL[name])
    with Load(front.port, 16, body=BODIES[name]) as load:
        await_replies(load, 10)
        for roll in range(1, 5):
            server.hup(roll)
            await_replies(load, 10)
    check(load)
    assert len(load.tally.words) >= 5  # of each generation one or more
    assert front.complaints == []
    client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=15, source_address=("127.0.0.9", 0))
    client.request("GET", "/who", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"})
    assert client.getresponse().read() == b"127.0.0.9 http"
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_proxy_sees_nothing_of_restarts_of_the_unit(
    manager: Manager, name: str, start: Starter, ends: ExitStack
) -> None:
    site = Site(manager, UNITS / "minicorn@.service")
    path = manager.home / "shop.sock"
    manager.write("minicorn@.socket", (UNITS / "minicorn@.socket").read_text())
    manager.write("minicorn@.socket.d/here.conf", f"[Socket]\nListenStream=\nListenStream={path}\nSocketGroup=\n")
    site.configure(" ".join(["--workers 2", *PROXY_PROTOCOL[name]]))
    manager.do("start", "minicorn@shop.socket")
    front = ALL[name](start.cwd, path)
    ends.callback(front.end)
    with Load(front.port, 16, body=BODIES[name]) as load:
        for _ in range(3):
            wait_until(lambda: load.least_replies() > 20, "all are served")
            site.do("restart")
            before = load.least_replies()
            wait_until(lambda before=before: load.least_replies() > before + 20, "all are served again")
    check(load)
    assert front.complaints == []


@pytest.mark.slow
def test_haproxy_serves_on_while_one_server_of_two_at_a_time_is_started_anew(start: Starter, ends: ExitStack) -> None:
    ports = [(free_port(), free_port()) for _ in range(2)]

    def begin(port: int, monitor: int) -> Server:
        flags = ("--bind", f"127.0.0.1:{port}", "--monitor", f"127.0.0.1:{monitor}")
        return serve(start, *flags, "--proxy-protocol", "--drain-delay", "5")

    servers = [begin(*each) for each in ports]
    front = haproxy(start.cwd, ports)
    ends.callback(front.end)
    both = {"shop1": "UP", "shop2": "UP"}
    wait_until(lambda: read_states(start.cwd) == both, "both are up")
    with Load(front.port, 8) as load:
        for number, server in enumerate(servers):
            wait_until(lambda: load.least_replies() > 20, "all are served")
            assert server.stop(timeout=30) == 0
            assert read_states(start.cwd)[f"shop{number + 1}"] == "DOWN"
            begin(*ports[number])
            wait_until(lambda: read_states(start.cwd) == both, "both are up again")
    check(load)


needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="NOT TESTED: wrk is not installed")


@pytest.mark.slow
@pytest.mark.timeout(180)
@needs_wrk
def test_a_minute_of_hups_behind_nginx_shows_200_clients_nothing_but_200(start: Starter, ends: ExitStack) -> None:
    server = serve(start, "--bind", f"unix:{start.cwd}/s")
    front = nginx(start.cwd, start.cwd / "s")
    ends.callback(front.end)
    url = f"http://127.0.0.1:{front.port}/echo/t"
    wrk = subprocess.Popen(["wrk", "-t2", "-c200", "-d60s", "--timeout", "20s", url], stdout=subprocess.PIPE, text=True)
    while wrk.poll() is None:
        os.kill(server.pid, signal.SIGHUP)
        time.sleep(1)
    report = wrk.communicate()[0]
    print(report)
    assert "requests in" in report
    assert not re.search("Non-2xx|Socket errors", report), report
    assert front.complaints == []
