"""How the cost of a request grows: with idle connections, workers, header lines, and the size of its body.

The figure is CPU time of minicorn's process tree for each request; the exponent is that of the least-squares
line through the logarithms, over all sizes and between the last two. A worker is a real process, 64 of
them as well: they share two cores here, but what could grow, waiting, waking and handing over, is there all
the same.
"""

import math
import os
import socket
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from servers import running
from workloads import PATIENT, Workload, cost, idle_connections, saturate, wrk

SENT_MOST = 2**30  # bytes for each figure


@dataclass(frozen=True)
class Growth:
    """`run` measures microseconds of CPU a request at one of the `sizes`, with so many seconds of load."""

    what: str
    run: Callable[[int, int], float]
    sizes: tuple[int, ...]


def with_idle(count: int, seconds: int) -> float:
    started = running("minicorn", "hello:app", cpu=0, extra=PATIENT["minicorn"])
    with started as server, idle_connections(server.port, count):
        wrk(server, 1)
        return cost(server, seconds, Workload("", saturate))["cpu_us"]


def with_workers(count: int, seconds: int) -> float:
    with running("minicorn", "hello:app", workers=count) as server:
        server.wait_log("is ready", count)
        wrk(server, 1, connections=128, cpu=None)
        return cost(server, seconds, Workload("", saturate, connections=128), None)["cpu_us"]


def with_headers(count: int, seconds: int) -> float:
    load = (f"headers={count}",)
    with running("minicorn", "hello:app", cpu=0) as server:
        wrk(server, 1, load)
        return cost(server, seconds, Workload("", saturate, load=load))["cpu_us"]


def with_body(size: int, seconds: int) -> float:
    times = max(1, min(2000, SENT_MOST // size))
    extra = "--max-body-size 0 --max-keepalive-requests 0"
    with running("minicorn", "apps:upload", cpu=0, extra=extra) as server, tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), size)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            before = server.cpu_time()
            for _ in range(times):
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
                client.sendfile(file, 0, size)
                assert client.recv(4096).endswith(b"ok")
            return (server.cpu_time() - before) / times * 1e6


GROWTHS = {
    "idle-connections": Growth("idle connections", with_idle, (1, 10, 100, 1000, 10_000)),
    "workers": Growth("workers", with_workers, (1, 2, 4, 8, 16, 32, 64)),
    "headers": Growth("header lines", with_headers, (5, 10, 20, 50, 100)),
    "body": Growth("bytes of body", with_body, tuple(10**power for power in range(3, 10))),
}


def slope(points: dict[int, float]) -> float:
    """The exponent of the power law nearest to the points."""
    xs, ys = [math.log(size) for size in points], [math.log(figure) for figure in points.values()]
    return statistics.linear_regression(xs, ys).slope


def measure(name: str, rounds: int, seconds: int) -> dict[str, object]:
    """Medians of so many rounds over all sizes, and what they say."""
    growth = GROWTHS[name]
    seen: dict[int, list[float]] = {size: [] for size in growth.sizes}
    for _ in range(rounds):
        for size, figures in seen.items():
            figures.append(growth.run(size, seconds))
    points = {size: round(statistics.median(figures), 2) for size, figures in seen.items()}
    last = dict(list(points.items())[-2:])
    return {"what": growth.what, "points": points, "exponent": round(slope(points), 3), "last": round(slope(last), 3)}
