"""nginx and HAProxy, real ones with the files of `deploy/`, in front of a server that is replaced under load."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CHECKOUT, Server, Starter, wait_until
from load import Load

DEPLOY = CHECKOUT / "deploy"
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
needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="NOT TESTED: nginx is not installed")
needs_haproxy = pytest.mark.skipif(not shutil.which("haproxy"), reason="NOT TESTED: haproxy is not installed")
needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="NOT TESTED: wrk is not installed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def change(text: str, **places: str) -> str:
    """`text` with each pattern, which must be there, replaced."""
    for name, new in places.items():
        pattern = {"listen": r"listen 80;", "path": r"/run/minicorn-shop/http\.sock(?= fail)", "bind": r"bind :80"}
        pattern |= {"server": r"127\.0\.0\.1:8000(?= send)"}
        text, count = re.subn(pattern[name], new, text)
        assert count == 1, name
    return text


class Proxy:
    """A proxy in the foreground, and its error log."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, f"{command[0]} listens")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(15)

    @property
    def errors(self) -> str:
        return (self.folder / "error.log").read_text()


@pytest.fixture
def nginx(start: Starter) -> Iterator[Proxy]:
    port = free_port()
    site = change((DEPLOY / "nginx.conf").read_text(), listen=f"listen 127.0.0.1:{port};", path=f"{start.cwd}/s")
    (start.cwd / "main.conf").write_text(
        f"daemon off; master_process off; pid {start.cwd}/nginx.pid; error_log {start.cwd}/error.log notice;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{ access_log off; {site} }}\n"
    )
    (start.cwd / "error.log").touch()
    proxy = Proxy(["nginx", "-p", str(start.cwd), "-c", str(start.cwd / "main.conf")], port, start.cwd)
    yield proxy
    proxy.end()


def serve(start: Starter, *flags: str) -> Server:
    start.write("shop.py", APP)
    return start("shop:app", "--workers", "2", *flags, bind=False)


def roll(server: Server, load: Load, times: int) -> None:
    """So many rolls, with requests served in each."""
    for number in range(times):
        before = load.least_replies()
        server.hup(number + 1)
        wait_until(lambda before=before: load.least_replies() > before + 10, "all are served")


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\[(warn|error|crit|alert|emerg)\]", line)]


@needs_nginx
def test_nginx_sees_nothing_of_rolls_under_load(start: Starter, nginx: Proxy) -> None:
    server = serve(start, "--bind", f"unix:{start.cwd}/s")
    with Load(nginx.port, 16) as load:
        roll(server, load, 4)
    assert (load.tally.failures, load.tally.idle_closes) == ([], [])
    assert len(load.tally.words) >= 10
    assert complaints(nginx.errors) == []
    reply = server.get("/who", at=nginx.port)
    assert reply.text == "127.0.0.1 http"


@needs_haproxy
def test_haproxy_sees_nothing_of_rolls_under_load_and_tells_the_client(start: Starter) -> None:
    server = serve(start, "--bind", "127.0.0.1:0", "--proxy-protocol")
    port = free_port()
    text = change(
        (DEPLOY / "haproxy.cfg").read_text(), bind=f"bind 127.0.0.1:{port}", server=f"127.0.0.1:{server.port}"
    )
    (start.cwd / "haproxy.cfg").write_text(text)
    proxy = Proxy(["haproxy", "-db", "-f", str(start.cwd / "haproxy.cfg")], port, start.cwd)
    try:
        wait_until(lambda: server.get("/who", at=port).text == "127.0.0.1 http", "the check has found the server")
        with Load(port, 16) as load:
            roll(server, load, 4)
        assert (load.tally.failures, load.tally.idle_closes) == ([], [])
    finally:
        proxy.end()


@pytest.mark.slow
@pytest.mark.timeout(180)
@needs_nginx
@needs_wrk
def test_a_minute_of_hups_behind_nginx_shows_200_clients_nothing_but_200(start: Starter, nginx: Proxy) -> None:
    server = serve(start, "--bind", f"unix:{start.cwd}/s")
    url = f"http://127.0.0.1:{nginx.port}/echo/t"
    wrk = subprocess.Popen(["wrk", "-t2", "-c200", "-d60s", "--timeout", "20s", url], stdout=subprocess.PIPE, text=True)
    while wrk.poll() is None:
        os.kill(server.pid, signal.SIGHUP)
        time.sleep(1)
    report = wrk.communicate()[0]
    print(report)
    assert "requests in" in report
    assert "Non-2xx" not in report and "Socket errors" not in report, report
    assert complaints(nginx.errors) == []
