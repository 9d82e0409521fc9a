"""The workloads of the suite: what is served, what is asked, and what is read off.

`measure` starts a server for each figure, so that none profits or suffers from what another left behind.
The server runs on the first core, wrk on the second; where several workers run, both are everybody's.
CPU time is that of the server's process tree, from a warm start; memory is the sum over its processes of
the most that was resident in each.
"""

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mixed
from servers import HERE, Running, running

from minicorn.system.process import read_memory

Figures = dict[str, float]

CONNECTIONS = 32
IDLE = 10_000
GET = b"GET /items/1 HTTP/1.1\r\nHost: shop.example:8000\r\n\r\n"
WITH_WORKERS = ("minicorn", "gunicorn-sync", "granian", "bjoern", "fastpysgi", "uwsgi")
# To hold 10,000 connections for minutes
PATIENT = {
    "minicorn": "--keep-alive 300 --max-keepalive-requests 0 --worker-connections 20000",
    "granian": "--backlog 20000",
}


@dataclass(frozen=True)
class Workload:
    """`run` measures one server for so many seconds; `only` names the servers that can do it at all."""

    what: str
    run: Callable[["Workload", str, float], Figures]
    app: str = "hello:app"
    load: tuple[str, ...] = ()
    connections: int = CONNECTIONS
    workers: int = 1
    only: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)


def wrk(
    server: Running, seconds: int, load: tuple[str, ...] = (), connections: int = CONNECTIONS, cpu: int | None = 1
) -> Figures:
    """What wrk saw: requests, seconds, p50 and p99 in milliseconds."""
    pin = [] if cpu is None else ["taskset", "-c", str(cpu)]
    command = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "load.lua")]
    command += [f"http://127.0.0.1:{server.port}/", "--", *load]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seen: Figures = json.loads(output.splitlines()[-1])
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(output)
    return seen


def cost(server: Running, seconds: int, workload: Workload, cpu: int | None = 1) -> Figures:
    """CPU microseconds and rate of requests, and how long they took."""
    before = server.cpu_time()
    seen = wrk(server, seconds, workload.load, workload.connections, cpu)
    used = server.cpu_time() - before
    rate = seen["requests"] / seen["seconds"]
    return {"cpu_us": used / seen["requests"] * 1e6, "rate": rate, "p50_ms": seen["p50"], "p99_ms": seen["p99"]}


def peak_mb(server: Running) -> float:
    """The most that was resident, in MB."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in server.processes()]
    return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in status) / 1024


def saturate(workload: Workload, name: str, seconds: int) -> Figures:
    """All that it can do."""
    cpu = 0 if workload.workers == 1 else None
    with running(name, workload.app, workload.workers, cpu, workload.extra.get(name, "")) as server:
        wrk(server, 1, workload.load, workload.connections)
        return cost(server, seconds, workload, None if cpu is None else 1) | {"peak_mb": peak_mb(server)}


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """So many that have had a reply and stay open."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.sendall(GET)
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("no reply on a new connection")
        yield


def beside_idle(workload: Workload, name: str, seconds: int) -> Figures:
    """Memory for each idle connection, and what is left of the requests that a second of CPU time answers:
    a rate by the clock would be wrk's as much as the server's."""
    with running(name, workload.app, 1, 0, workload.extra.get(name, "")) as server:
        wrk(server, 1)
        alone = cost(server, seconds, workload)
        before = sum(read_memory(pid).private for pid in server.processes())
        with idle_connections(server.port, IDLE):
            held = sum(read_memory(pid).private for pid in server.processes()) - before
            beside = cost(server, seconds, workload)
    return beside | {"connection_kb": held / IDLE / 1024, "share": alone["cpu_us"] / beside["cpu_us"]}


def fast_and_slow(workload: Workload, name: str, seconds: int) -> Figures:
    """How long instant requests take among those that sleep 0.5 s."""
    with running(name, workload.app, workload.workers, None, workload.extra.get(name, "")) as server:
        wrk(server, 1)
        waits = sorted(mixed.load(server.port, 1, seconds))
    middle, late = statistics.median(waits), waits[int(len(waits) * 0.99)]
    return {"p50_ms": middle * 1e3, "p99_ms": late * 1e3, "late": mixed.late_share(waits)}


def first_reply(workload: Workload, name: str, seconds: int) -> Figures:
    """From exec to the first byte."""
    before = time.monotonic()
    with running(name, workload.app, 1, 0) as server:
        return {"first_ms": (server.answered - before) * 1e3}


def each_worker(workload: Workload, name: str, seconds: int) -> Figures:
    """What three workers more add, after all have worked."""
    totals = []
    for workers in (1, 4):
        with running(name, workload.app, workers, None) as server:
            wrk(server, 1, connections=64)
            totals.append(sum(read_memory(pid).pss for pid in server.processes()) / 2**20)
    return {"total_mb": totals[0], "worker_mb": (totals[1] - totals[0]) / 3}


POST = ("size=10000",)
UPLOAD = ("size=1000000",)
WORKLOADS = {
    "hello": Workload("hello-world, keep-alive", saturate),
    "close": Workload("hello-world, a connection each", saturate, load=("close",)),
    "post": Workload("POST of 10 KB", saturate, "apps:post", POST),
    "upload": Workload("upload of 1 MB", saturate, "apps:upload", UPLOAD, connections=8),
    "reply-100k": Workload("reply of 100 KB", saturate, "apps:hundred_kb"),
    "reply-10m": Workload("reply of 10 MB", saturate, "apps:ten_mb", connections=8),
    "file": Workload("1 MB by wsgi.file_wrapper", saturate, "apps:file", connections=8),
    "stream": Workload("1,000 blocks of 1 KB", saturate, "apps:stream", connections=8),
    "flask": Workload("Flask", saturate, "apps_flask:app"),
    "django": Workload("Django", saturate, "apps_django:app"),
    "two": Workload("hello-world, 2 workers, 2 cores", saturate, workers=2, only=WITH_WORKERS),
    "idle": Workload(
        "beside 10,000 idle connections", beside_idle, only=("minicorn", "granian", "bjoern"), extra=PATIENT
    ),
    "mixed": Workload(
        "instant requests among slow ones, 4 at a time",
        fast_and_slow,
        "mixed:app",
        workers=4,
        extra={"granian": "--blocking-threads 1"},
    ),
    "start": Workload("start-up to first reply", first_reply),
    "memory": Workload("memory of each worker", each_worker, only=WITH_WORKERS),
}


def measure(workload: str, server: str, seconds: int) -> Figures:
    return WORKLOADS[workload].run(WORKLOADS[workload], server, seconds)
