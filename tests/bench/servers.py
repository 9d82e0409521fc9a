"""Starting servers for the benchmarks, and reading what they use."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).parent
CHECKOUT = Path(os.environ.get("CHECKOUT", HERE.parent.parent))
LOG = Path(tempfile.gettempdir()) / "minicorn-bench-access.log"
COMMANDS = {
    "minicorn": "{python} -m minicorn {app} --bind 127.0.0.1:{port} --workers {workers}",
    "minicorn-alone": "{python} -m minicorn {app} --bind 127.0.0.1:{port} --workers {workers} --handoff-after 0",
    "minicorn-text": "{python} -m minicorn {app} --bind 127.0.0.1:{port} --workers {workers}"
    f" --access-logfile {LOG}",
    "minicorn-json": "{python} -m minicorn {app} --bind 127.0.0.1:{port} --workers {workers} --access-logformat json"
    f" --access-logfile {LOG}",
    "minicorn-preload": "{python} -m minicorn {app} --bind 127.0.0.1:{port} --workers {workers} --preload",
    "gunicorn-preload": "{python} -m gunicorn {app} --bind 127.0.0.1:{port} --workers {workers} --preload",
    "gunicorn-sync": "{python} -m gunicorn {app} --bind 127.0.0.1:{port} --workers {workers}",
    "granian": "{python} -m granian --interface wsgi {app} --host 127.0.0.1 --port {port} --workers {workers}"
    " --no-access-log",
    "waitress": "{python} -m waitress --listen=127.0.0.1:{port} --threads={workers} {app}",
    "bjoern": f"{{python}} {HERE}/launch.py bjoern {{app}} {{port}} {{workers}}",
    "fastpysgi": f"{{python}} {HERE}/launch.py fastpysgi {{app}} {{port}} {{workers}}",
    "uwsgi": "{prefix}/bin/uwsgi --http11-socket 127.0.0.1:{port} --module {app} --processes {workers} --master"
    " --die-on-term --disable-logging --need-app --pythonpath . --virtualenv {prefix}",
}


class Running:
    """A server that answers on `port`; its log is in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.answered = time.monotonic()  # for the first time
        self.root = psutil.Process(process.pid)

    def processes(self) -> list[int]:
        """The pids of the process tree."""
        return [self.process.pid, *(child.pid for child in self.root.children(recursive=True))]

    def cpu_time(self) -> float:
        """User and system seconds of the process tree so far; those of reaped children are not in it."""
        # CPU clock of a process, as clock_getcpuclockid(3) makes it: nanoseconds, where /proc has ticks of 10 ms
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.processes())

    def wait_log(self, pattern: str, count: int = 1, patience: float = 60.0) -> None:
        """Until `pattern` stands `count` times in the log."""
        await_true(lambda: len(re.findall(pattern, self.log.read_text())) >= count, patience, pattern)


def await_true(condition, patience: float, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {patience:g} s in vain: {what}")
        time.sleep(0.002)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return bool(client.recv(100))
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """As an operator does it; what a server does not end by itself is killed."""
    left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@contextlib.contextmanager
def running(
    name: str, app: str, workers: int = 1, cpu: int | None = None, extra: str = "", cwd: Path = HERE
) -> Iterator[Running]:
    """The server `name` with `app` from `cwd`, pinned to `cpu` where one is given."""
    port = free_port()
    values = {"python": sys.executable, "prefix": sys.prefix, "app": app, "port": port, "workers": workers}
    command = [*COMMANDS[name].format(**values).split(), *extra.split()]
    if cpu is not None:
        command = ["taskset", "-c", str(cpu), *command]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
            process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
            try:
                await_true(lambda: process.poll() is not None or _answers(port), 30, f"{name} answers")
                if process.poll() is not None:
                    raise SystemExit(f"{name} has ended: {log.read_text()}")
                yield Running(process, port, log)
            finally:
                _end(process)


def throughput(port: int, connections: int, seconds: int) -> float:
    """Requests a second that wrk has answered with 2xx, on so many keep-alive connections."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"(\d+) requests in", output)
    if match is None or "Non-2xx" in output:
        raise SystemExit(output)
    return int(match[1]) / seconds
