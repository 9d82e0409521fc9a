"""nginx, HAProxy and Caddy with the files of `deploy/`, in front of a server.

What is changed of a file is where the proxy listens and where the server does.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CHECKOUT, free_port, wait_until

DEPLOY = CHECKOUT / "deploy"
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log notice;
events {{ worker_connections 1024; }}
http {{ access_log off; {site} }}
"""
CADDY = "{\n\tadmin off\n\tlog {\n\t\toutput file error.log\n\t\tlevel ERROR\n\t}\n}\n"
STATE = "global\n    stats socket {} level user\n"


class Front:
    """A proxy in the foreground, and its error log."""

    def __init__(self, folder: Path, port: int, *command: str) -> None:
        self.port = port
        self._log = folder / "error.log"
        self._log.touch()
        own = os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd=folder, env=own, **quiet)
        try:
            wait_until(self._answers, f"{command[0]} listens")
        except AssertionError:
            self.end()
            raise

    def _answers(self) -> bool:
        assert self._process.poll() is None, "it has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(15)

    @property
    def complaints(self) -> list[str]:
        found = self._log.read_text().splitlines()
        return [line for line in found if not re.search(r"\[(debug|info|notice)\]", line)]


def change(name: str, *pairs: tuple[str, str]) -> str:
    """The file of `deploy/` with each pattern, which must be there once, replaced."""
    text = (DEPLOY / name).read_text()
    for pattern, new in pairs:
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count == 1, pattern
    return text


def require(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"NOT TESTED: {program} is not installed")


def nginx(folder: Path, path: Path) -> Front:
    """In front of the Unix socket `path`."""
    require("nginx")
    port = free_port()
    places = (r"listen 80;", f"listen 127.0.0.1:{port};"), (r"/run/minicorn-shop/http\.sock(?= fail)", str(path))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, site=change("nginx.conf", *places)))
    return Front(folder, port, "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "error.log")


def caddy(folder: Path, path: Path) -> Front:
    """In front of the Unix socket `path`."""
    require("caddy")
    port = free_port()
    here = f"http://localhost:{port}, http://127.0.0.1:{port} {{\n\tbind 127.0.0.1"
    places = (r"^shop\.example\.com {", here), (r"(?<=unix/)/run/minicorn-shop/\S+", str(path))
    (folder / "Caddyfile").write_text(CADDY + change("Caddyfile", *places))
    return Front(folder, port, "caddy", "run", "--config", str(folder / "Caddyfile"))


def haproxy_alone(folder: Path, path: Path) -> Front:
    """In front of the Unix socket `path`, with the line that the file has for one server."""
    (line,) = re.findall(r"(?m)^#   (server .*)$", (DEPLOY / "haproxy.cfg").read_text())
    line = line.replace("/run/minicorn-shop.sock", str(path))
    unchecked = (r"^ +option httpchk.*\n", ""), (r"^ +default-server.*\n", "")
    return _haproxy(folder, *unchecked, (r"^    server shop1.*$", f"    {line}"), (r"^    server shop2.*\n", ""))


def haproxy(folder: Path, servers: list[tuple[int, int]]) -> Front:
    """In front of two servers: their ports and their monitors'."""
    places = [
        (rf"127\.0\.0\.1:800{number} port 910{number}", f"127.0.0.1:{port} port {monitor}")
        for number, (port, monitor) in enumerate(servers, 1)
    ]
    return _haproxy(folder, *places)


def _haproxy(folder: Path, *places: tuple[str, str]) -> Front:
    require("haproxy")
    port = free_port()
    text = change("haproxy.cfg", (r"bind :80", f"bind 127.0.0.1:{port}"), *places)
    (folder / "haproxy.cfg").write_text(STATE.format(folder / "state") + text)
    return Front(folder, port, "haproxy", "-db", "-f", str(folder / "haproxy.cfg"))


def read_states(folder: Path) -> dict[str, str]:
    """What HAProxy thinks of its servers: UP, DOWN, or on the way; nothing while it begins."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile() as answer:
        if sock.connect_ex(str(folder / "state")):
            return {}
        sock.sendall(b"show stat\n")
        names, *rows = [line.split(",") for line in answer.read().splitlines() if line]
    status = names.index("status")
    return {row[1]: row[status] for row in rows if row[1].startswith("shop")}


ALL: dict[str, Callable[[Path, Path], Front]] = {"nginx": nginx, "haproxy": haproxy_alone, "caddy": caddy}
