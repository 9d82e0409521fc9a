"""What the table for gunicorn's users calls the same: set by flag and by file, seen in both servers at work."""

import os
import re
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import SERVERS, Server, Starter, wait_until

ROWS = re.findall(
    r"^\| `(\w+)` \| same \|", (Path(__file__).parents[2] / "deploy/from-gunicorn.md").read_text(), re.MULTILINE
)
# It runs as nobody, who may not be able to read what of Python is not imported yet
SITE = """
import os, time
import beside
open(f"boot-{os.getpid()}", "w").close()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        open("held", "w").close()
        while not os.path.exists("release"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.environ.get('STAGE')} {beside.NAME} {os.getgroups()}".encode()]
"""
HOOK = """
def post_worker_init(worker):
    worker.log.debug("a worker is there")
    open(f"init-{worker.pid}", "w").close()
"""
CIPHER = "ECDHE-ECDSA-AES128-GCM-SHA256"
# What is said of each setting, on the command line and in a file; and what is seen of it then
SAID: dict[str, tuple[list[str], object]] = {
    "workers": (["--workers", "2"], 2),
    "raw_env": (["--env", "STAGE=test"], ["STAGE=test"]),
    "pythonpath": (["--pythonpath", "lib"], "lib"),
    "proc_name": (["--name", "shop"], "shop"),
    "limit_request_fields": (["--limit-request-fields", "5"], 5),
    "loglevel": (["--log-level", "debug"], "debug"),
    "graceful_timeout": (["--graceful-timeout", "1"], 1),
    "ca_certs": (["--ca-certs", "client.test.pem"], "client.test.pem"),
    "ciphers": (["--ciphers", CIPHER], CIPHER),
    "initgroups": (["--initgroups"], True),
    "wsgi_app": (["site_app:app"], "site_app:app"),
}
SEEN: dict[str, object] = {
    "workers": 2,
    "raw_env": "test",
    "pythonpath": "lib's",
    "proc_name": "shop",
    "limit_request_fields": [200, 431],
    "loglevel": True,
    "graceful_timeout": True,
    "ca_certs": True,
    "ciphers": CIPHER,
    "initgroups": "[65534]",
    "wsgi_app": True,
    "post_worker_init": 2,
}
AS_ROOT = os.geteuid() == 0


class Client:
    """Of one server that asks for a certificate."""

    def __init__(self, server: Server, own: Any, trusted: Any) -> None:
        self.port = server.listening_port()
        self.context = ssl.create_default_context(cafile=trusted.certificate)
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose ciphers are chosen
        self.context.load_cert_chain(own.certificate, own.key)

    def connect(self) -> HTTPSConnection:
        return HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=15)

    def get(self, fields: int = 0) -> tuple[int, str]:
        connection = self.connect()
        connection.request("GET", "/", headers={f"X-{number}": "x" for number in range(fields)})
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text


def look(server: Server, client: Client) -> dict[str, object]:
    """All that SEEN has, of a server that runs; it is ended, while it holds a request."""
    cwd = server.cwd
    wait_until(lambda: len(list(cwd.glob("init-*"))) == 2, "its workers are there")
    status, text = client.get()
    stage, beside, groups = text.split(" ", 2)
    cipher_of = client.connect()
    cipher_of.connect()
    cipher = cipher_of.sock.cipher()
    cipher_of.close()
    title = " ".join(psutil.Process(server.pid).cmdline())
    found: dict[str, object] = {
        "workers": len(list(cwd.glob("boot-*"))),
        "raw_env": stage,
        "pythonpath": beside,
        "proc_name": "".join(re.findall(r"\[(\w+)\]", title)),
        "limit_request_fields": [client.get(fields=3)[0], client.get(fields=4)[0]],
        "ca_certs": status == 200,
        "ciphers": cipher and cipher[0],
        "initgroups": groups,
        "wsgi_app": status == 200,
        "post_worker_init": len(list(cwd.glob("init-*"))),
    }
    held = client.connect()
    held.request("GET", "/hold")
    wait_until((cwd / "held").exists, "it holds a request")
    found["graceful_timeout"] = server.stop() == 0  # the default is longer than we wait
    held.close()
    found["loglevel"] = "a worker is there" in server.log.finish()
    return found


@pytest.fixture(scope="module")
def seen(open_place: Path, make_pair: Callable[..., Any]) -> Iterator[Callable[[str, str], dict[str, object]]]:
    """`seen(server, way)`: what is seen when all is said at once."""
    start = Starter(open_place)
    start.cwd.chmod(0o777)
    start.write("site_app.py", SITE)
    start.write("lib/beside.py", 'NAME = "lib\'s"')
    own, pair = make_pair(start.cwd, "client.test"), make_pair(start.cwd, "a.test")
    Path(pair.key).chmod(0o644)  # gunicorn's workers read it when they are nobody
    known: dict[tuple[str, str], dict[str, object]] = {}

    def seen(name: str, way: str) -> dict[str, object]:
        if (name, way) not in known:
            for path in [*start.cwd.glob("boot-*"), *start.cwd.glob("init-*"), *start.cwd.glob("held")]:
                path.unlink()
            said = {key: value for key, value in SAID.items() if AS_ROOT or key != "initgroups"}
            values = "".join(f"{key} = {value!r}\n" for key, (_, value) in said.items()) if way == "file" else ""
            start.write("all.conf.py", HOOK + values)
            words = ["-c", "all.conf.py", "--bind", "127.0.0.1:0", *pair.flags, "--cert-reqs", "2"]
            words += ["--user", "nobody", "--group", "nogroup"] if AS_ROOT else []
            words += [word for flags, _ in said.values() for word in flags] if way == "flag" else []
            server = start.command(*SERVERS[name], *words)
            known[name, way] = look(server, Client(server, own, pair))
        return known[name, way]

    yield seen
    assert list(start.end()) == []


def test_every_same_row_is_seen() -> None:
    assert sorted(SEEN) == sorted(ROWS)
    assert {*SAID, "post_worker_init"} == set(SEEN)


@pytest.mark.parametrize("way", ["flag", "file"])
@pytest.mark.parametrize("row", SEEN)
def test_a_same_row_does_the_same_in_both_servers(row: str, way: str, seen: Any) -> None:
    if row == "initgroups" and not AS_ROOT:
        pytest.skip("only root can become another")
    assert seen("gunicorn", way)[row] == SEEN[row]
    assert seen("minicorn", way)[row] == SEEN[row]
