"""Where the microseconds of a hello-world request go, in one worker with everything on.

Shares are counted by samples (see `profiled`): each belongs to the first part below that names its function.
The kernel's part is the worker's system time; the functions that call it are all in the last part, and that
has so much less. What heartbeat and counters cost is measured once more by leaving them out.
"""

import json
import statistics
import urllib.request
from collections import Counter

import psutil
from servers import Running, running
from workloads import Workload, cost, saturate, wrk

PARTS = {
    "head, environ": (
        "request line and eleven field lines, checked, in a dictionary for the application",
        ("minicorn.http.heads.", "minicorn.http.mould.", "minicorn.http.request.", "minicorn.http.body."),
    ),
    "application": ("hello-world", ("hello.", "profiled.")),
    "reply": ("start_response, the head, their checks", ("minicorn.serving.wsgi.", "minicorn.http.reply.")),
    "heartbeat": (
        "promises, the request in hand, counters",
        ("minicorn.figures.heartbeat.", "minicorn.figures.counters."),
    ),
    "bookkeeping": ("loop, states, deadlines, Python's side of the system calls", ("",)),
}
HELLO = Workload("", saturate)


def _times(server: Running) -> tuple[float, float]:
    each = [psutil.Process(pid).cpu_times() for pid in server.processes()]
    return sum(times.user for times in each), sum(times.system for times in each)


def _cost(app: str, seconds: int) -> float:
    with running("minicorn", app, cpu=0) as server:
        wrk(server, 1)
        return cost(server, seconds, HELLO)["cpu_us"]


def profile(seconds: int) -> tuple[float, Counter[str]]:
    """The kernel's share of the time, and samples by function."""
    with running("minicorn", "profiled:app", cpu=0) as server:
        wrk(server, 1)
        before = _times(server)
        wrk(server, seconds)
        user, system = (now - earlier for now, earlier in zip(_times(server), before, strict=True))
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/samples") as reply:
            return system / (user + system), Counter(json.load(reply))


def part_of(function: str) -> str:
    return next(part for part, (_, prefixes) in PARTS.items() if function.startswith(prefixes))


def measure(rounds: int, seconds: int) -> dict[str, object]:
    """The parts in microseconds; what the page costs by leaving it out; the functions that take most."""
    costs: dict[str, list[float]] = {"hello:app": [], "uncounted:app": []}
    kernel, samples = [], Counter[str]()
    for _ in range(rounds):
        for app, figures in costs.items():
            figures.append(_cost(app, seconds))
        share, seen = profile(seconds)
        kernel.append(share)
        samples += seen
    total, without = (statistics.median(figures) for figures in costs.values())
    system = total * statistics.median(kernel)
    each = total / samples.total()
    parts = {"system calls": (round(system, 2), "epoll_wait, recv and send, inside the kernel")}
    for part, (what, _) in PARTS.items():
        count = sum(count for function, count in samples.items() if part_of(function) == part)
        if not count:
            raise SystemExit(f"no sample belongs to {part}: have its functions moved?")
        parts[part] = (round(count * each - (system if part == "bookkeeping" else 0), 2), what)
    parts["in all"] = (round(total, 2), f"{total - without:.1f} less where heartbeat and counters are left out")
    most = {function: round(count * each, 2) for function, count in samples.most_common(25)}
    return {"samples": samples.total(), "parts": parts, "functions": most}
