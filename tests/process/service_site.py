"""A site as `systemd/` expects it, releases behind a symlink, and its unit under a manager of our own.

What is changed of a unit is where the site lives, and what a user instance cannot do (another user's
processes) or what would hide this checkout (ProtectHome=, when its Python lives in a home).
"""

import re
import sys
import urllib.request
from pathlib import Path

from harness import CHECKOUT
from service_manager import Manager

UNITS = CHECKOUT / "systemd"
ECHO = """
import os
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    token = environ["PATH_INFO"].rpartition("/")[2]
    reply = b"V " + token.encode() + b" " + body
    start_response("200 OK", [("Content-Length", str(len(reply)))])
    return [reply]
"""
SITE = """[Service]
EnvironmentFile=
EnvironmentFile={home}/%i.conf
WorkingDirectory=
WorkingDirectory={home}/site/current
ExecStart=
Environment=PYTHONPATH={checkout} PYTHONDONTWRITEBYTECODE=1
StandardError=append:{home}/err
"""
HERE = """User=
Group=
ProtectHome=no
BindPaths={home}
BindReadOnlyPaths={checkout} {environment}
"""


class Site:
    """A site of releases behind a symlink, and its unit."""

    def __init__(self, manager: Manager, unit: Path) -> None:
        self.manager = manager
        self.home = manager.home
        self.unit = "minicorn@shop.service"
        names = {"home": self.home, "python": sys.executable, "checkout": CHECKOUT, "environment": sys.prefix}
        manager.write("minicorn@.service", unit.read_text())
        text = unit.read_text()
        start = re.search(r"(?m)^ExecStart=\S+/minicorn (.*)", text)
        reload = re.search(r"(?m)^ExecReload=\S+/minicornctl (.*)", text)
        assert start is not None and reload is not None
        arguments = re.sub(r"\S+/current", f"{self.home}/site/current", start[1])
        here = f"{SITE}ExecStart={{python}} -m minicorn {arguments}\n"
        here += f"ExecReload=\nExecReload={{python}} -m minicorn.ctl {reload[1]}\n"
        here += HERE if unit.parent == UNITS else ""
        manager.write("minicorn@.service.d/here.conf", here.format(**names))
        self.release("1", ECHO)
        self.configure("--workers 2 --bind 127.0.0.1:0")

    def configure(self, options: str, drop_in: str = "") -> None:
        (self.home / "shop.conf").write_text(f"APP=main:app\nOPTIONS={options}\n")
        if drop_in:
            self.manager.write("minicorn@.service.d/test.conf", drop_in)
        self.manager.do("daemon-reload")

    def release(self, name: str, text: str) -> None:
        """Deploy: a directory of its own, then the symlink in one step."""
        release = self.home / "site/releases" / name
        release.mkdir(parents=True)
        (release / "main.py").write_text(text)
        link = self.home / "site/new"
        link.symlink_to(release)
        link.replace(self.home / "site/current")

    @property
    def port(self) -> int:
        found = re.findall(r"Listening on http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[-1])

    @property
    def log(self) -> str:
        return (self.home / "err").read_text() if (self.home / "err").exists() else ""

    def do(self, verb: str) -> None:
        self.manager.do(verb, self.unit)

    def state(self) -> str:
        return self.manager.show(self.unit, "ActiveState")

    def get(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/echo/t", timeout=15) as reply:
            return str(reply.read().decode())
