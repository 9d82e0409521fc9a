"""A real server in a session of its own: started, signalled, asked, read, and always ended.

Nothing here waits for a fixed time: `wait_until` and `wait_log` wait for conditions. Everything
that a server starts stays in its session, by which its survivors are found, orphans included.
"""

import codecs
import contextlib
import fcntl
import http.client
import itertools
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, Signals

import psutil

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
CHECKOUT = HERE.parent.parent
PATIENCE = 15.0

MINICORN = (sys.executable, "-m", "minicorn")
SERVERS = {"gunicorn": (sys.executable, "-m", "gunicorn"), "minicorn": MINICORN}
LISTENING = r"Listening on https?://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)"
ANY_PORT = ("--bind", "127.0.0.1:0")
_PORTS = itertools.count(os.getpid() * 50)  # others for each process of tests
# Run in front of the server, in its process: `limit` descriptors, `affinity`, `subreaper`, `cgroup`, `terminal`
PRELUDE = """
import ctypes, fcntl, os, resource, signal, sys, termios
steps, command = sys.argv[1].split(), sys.argv[2:]
for step in steps:
    name, _, value = step.partition("=")
    if name == "limit":
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, value.split(","))))
    elif name == "affinity":
        os.sched_setaffinity(0, {int(value)})
    elif name == "subreaper":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    elif name == "cgroup":
        with open(value + "/cgroup.procs", "w") as file:
            file.write("0")
    elif name == "terminal":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    elif name == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(command[0], command)
"""


def wait_until(condition: Callable[[], object], why: str, timeout: float = PATIENCE) -> None:
    """Poll `condition` until it is true; fail with `why` when it is not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {why}"
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on now, nor gets by chance until it is taken: the system hands out higher ones."""
    while True:
        port = 10_000 + next(_PORTS) % 20_000
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environment(**extra: str) -> dict[str, str]:
    """The environment of a server: ours without what would steer it."""
    steering = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "NO_COLOR", "PYTHONUNBUFFERED", "NOTIFY_SOCKET")
    steering += ("PYTHONHOME", "TERM")
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in steering and not k.startswith(("LISTEN_", "MINICORN", "GUNICORN"))
    }
    # A file edited twice within a second, at the same length, has a stale .pyc
    return kept | {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm"} | extra


class Stream:
    """What comes out of a descriptor, read by a thread as it comes, until its last holder has gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._ended = False
        self.text = ""
        self._stop, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            # A blocked read would keep a terminal open that close() means to hang up
            readable, _, _ = select.select([self._fd, self._stop], [], [])
            try:
                data = b"" if self._stop in readable else os.read(self._fd, 65536)
            except OSError:  # EIO: nobody holds the terminal's other side any more
                data = b""
            with self._changed:
                self.text += decoder.decode(data)
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return

    def wait(self, pattern: str, count: int, timeout: float) -> re.Match[str]:
        """The `count`th match of `pattern`, when there is one."""
        compiled = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = list(compiled.finditer(self.text))
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                hope = left > 0 and not self._ended
                assert hope, f"no {pattern!r} (x{count}) {'before the end' if self._ended else 'in time'}:\n{self.text}"
                self._changed.wait(left)

    def finish(self) -> str:
        """All of it, once every writer has gone."""
        self._thread.join(PATIENCE)
        assert self._ended, f"somebody still holds the stream:\n{self.text}"
        return self.text

    def close(self) -> None:
        """Read no more, and close our side."""
        if self._thread.is_alive():
            os.write(self._stop_write, b".")
            self._thread.join()
        for fd in {self._fd, self._stop, self._stop_write} if self._fd >= 0 else ():
            os.close(fd)
        self._fd = -1


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def read(connection: http.client.HTTPConnection) -> Reply:
    """The reply to the request that `connection` has sent."""
    response = connection.getresponse()
    return Reply(response.status, response.headers, response.read())


class Server:
    """A process that should be a server, and all that it starts."""

    def __init__(
        self,
        command: tuple[str, ...],
        cwd: Path,
        *,
        env: dict[str, str] | None = None,
        prelude: str = "",
        stderr: int | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """`prelude`: steps of PRELUDE to take first; `stderr`: a descriptor in place of the pipe that we read."""
        self.cwd = cwd
        self._clients: list[http.client.HTTPConnection] = []
        self._heartbeats: Path | None = None
        if prelude:
            command = (sys.executable, "-c", PRELUDE, prelude, *command)
        self._open_streams("terminal" in prelude)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(PWD=str(cwd)) | (env or {}),
            stdin=self._stdin,
            stdout=self._theirs[0],
            stderr=self._theirs[1] if stderr is None else stderr,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self.pid = self.process.pid
        for fd in {*self._theirs, self._stdin}:
            os.close(fd)

    def _open_streams(self, terminal: bool) -> None:
        if terminal:
            self.master, slave = os.openpty()
            self._theirs = (slave, slave)
            self._stdin = slave
            self.output = self.log = Stream(self.master)
            return
        self._stdin = os.open(os.devnull, os.O_RDONLY)
        (out, their_out), (log, their_log) = os.pipe(), os.pipe()
        self._theirs = (their_out, their_log)
        self.output, self.log = Stream(out), Stream(log)

    # What it says

    def wait_log(self, pattern: str, timeout: float = PATIENCE, count: int = 1) -> re.Match[str]:
        """The `count`th match of `pattern` in the log, when it is there."""
        return self.log.wait(pattern, count, timeout)

    def wait_ready(self, workers: int = 1) -> None:
        """Until so many workers, since the start, have said that they are ready."""
        self.wait_log(r"is ready after", count=workers)
        self.heartbeats()

    def heartbeats(self) -> Path:
        """Its directory of heartbeats, as its open files tell."""
        if self._heartbeats is None:
            links = descriptors(self.pid)
            found = {Path(link).parent for link in links if "/minicorn-" in link}
            assert len(found) == 1, links
            self._heartbeats = found.pop()
        return self._heartbeats

    @property
    def port(self) -> int:
        return int(self.wait_log(LISTENING)[1])

    def listening_port(self) -> int:
        """The TCP port that its first process listens on, as the system tells."""
        found: list[int] = []

        def look() -> list[int]:
            sockets = psutil.Process(self.pid).net_connections("tcp")
            found[:] = [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]
            return found

        wait_until(look, f"it listens:\n{self.log.text}")
        return found[0]

    # Its processes

    def workers(self) -> set[int]:
        """The pids of the arbiter's living children."""
        return {child.pid for child in psutil.Process(self.pid).children() if is_alive(child.pid)}

    def family(self) -> set[int]:
        """All living processes of its session."""
        return {pid for pid in psutil.pids() if _session(pid) == self.pid and is_alive(pid)}

    def signal(self, *signals: Signals) -> None:
        for signum in signals:
            os.kill(self.pid, signum)

    def type(self, keys: bytes) -> None:
        """Press keys on its terminal."""
        os.write(self.master, keys)

    def hup(self, roll: int = 1) -> None:
        """HUP, and wait until the `roll`th roll is complete: workers boot one after the other."""
        self.signal(SIGHUP)
        self.wait_log(r"generation \d+ serves: .* replaced", 4 * PATIENCE, roll)

    # Clients

    def connect(self, timeout: float = PATIENCE, at: Path | int | None = None) -> http.client.HTTPConnection:
        """A connection, closed at the end at the latest; `at` another port or Unix path than the log's."""
        if isinstance(at, Path):
            connection: http.client.HTTPConnection = UnixConnection(at, timeout)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", at or self.port, timeout=timeout)
        self._clients.append(connection)
        return connection

    def send(self, path: str, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A connection that has sent its request for `path`; `read` gives the reply."""
        connection = self.connect(timeout)
        connection.request("GET", path)
        return connection

    def get(self, path: str = "/", timeout: float = PATIENCE, at: Path | int | None = None) -> Reply:
        """The reply to a GET on a connection of its own."""
        connection = self.connect(timeout, at)
        connection.request("GET", path, headers={"Connection": "close"})
        try:
            return read(connection)
        finally:
            connection.close()

    def begin(self, path: str) -> tuple[http.client.HTTPConnection, int]:
        """A request that plain.py has in hand now, and the pid of the worker."""
        before = self._begun()
        connection = self.send(path)
        wait_until(lambda: self._begun() - before, f"the application has {path} in hand")
        (begun,) = self._begun() - before
        return connection, int(begun.name.split("-")[1])

    def _begun(self) -> set[Path]:
        return set(self.cwd.glob("begun-*"))

    def hold(self) -> http.client.HTTPConnection:
        """A request that plain.py has in hand until `release`."""
        return self.begin("/hold")[0]

    def release(self) -> None:
        """Let all held requests go on, and later ones."""
        (self.cwd / "release").touch()

    # Its end

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            standing = "\n".join(map(_standing, self.family()))
            raise AssertionError(f"still running after {timeout:g} s:\n{self.log.text}\n{standing}") from None

    def stop(self, signum: Signals = SIGTERM, timeout: float = PATIENCE) -> int:
        """Its exit code after `signum`."""
        self.signal(signum)
        return self.wait(timeout)

    def kill_arbiter(self) -> None:
        """SIGKILL for the arbiter alone; its workers are orphans."""
        self.heartbeats()
        self.signal(SIGKILL)
        self.wait()

    def kill_all(self) -> None:
        """SIGKILL for all of its processes."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):  # an orphan may leave by itself
                os.kill(pid, SIGKILL)

    def check_end(self) -> None:
        """Stop it if it runs; nothing of it may be left."""
        for connection in self._clients:
            connection.close()
        if self.process.poll() is None:
            assert self.stop() == 0, self.log.text
        wait_until(lambda: not self.family(), f"no process survives:\n{self.log.text}")
        if self.process.returncode >= 0 and self._heartbeats is not None:
            assert not self._heartbeats.exists(), "the heartbeat directory is left"

    def destroy(self) -> None:
        """End by force whatever is left, whatever has happened."""
        self.kill_all()
        self.process.wait()
        for connection in self._clients:
            connection.close()
        for stream in {self.output, self.log}:
            stream.close()
        if self._heartbeats is not None:
            shutil.rmtree(self._heartbeats, ignore_errors=True)


class Starter:
    """Starts servers in one directory, and ends them all."""

    def __init__(self, cwd: Path) -> None:
        """`cwd` is made to hold copies of the applications."""
        self.cwd = cwd
        self._servers: list[Server] = []
        shutil.copytree(APPS, cwd, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))

    def __call__(
        self, app: str = "plain:app", *flags: str, ready: int | None = None, bind: bool = True, **options: object
    ) -> Server:
        """`minicorn app flags`, once its workers (`ready`; else --workers) are ready; ready=0 does not wait."""
        server = self.command(*MINICORN, app, *(ANY_PORT if bind else ()), *flags, **options)
        if ready is None:
            ready = int(flags[flags.index("--workers") + 1]) if "--workers" in flags else 1
        if ready:
            server.wait_ready(ready)
        return server

    def command(self, *command: str, cwd: Path | None = None, **options: object) -> Server:
        """Any command, whose processes are ended with the others."""
        server = Server(command, cwd or self.cwd, **options)  # type: ignore[arg-type]
        self._servers.append(server)
        return server

    def write(self, name: str, text: str) -> Path:
        """Write an application's file, in one step: it may be imported at this moment."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(text)
        return path.with_suffix(".new").replace(path)

    def line(self, path: str, number: int) -> str:
        """A line of a file, as a stack names it."""
        return (self.cwd / path).read_text().splitlines()[number - 1].strip()

    def end(self) -> Iterator[AssertionError]:
        """End all; what was wrong about it."""
        (self.cwd / "release").touch()
        for server in self._servers:
            try:
                server.check_end()
            except AssertionError as error:
                yield error
            finally:
                server.destroy()


def resize_terminal(master: int) -> None:
    """What a terminal emulator does when its window is resized: WINCH for the foreground group."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, b"\x20\0\x60\0\0\0\0\0")


def descriptors(pid: int) -> list[str]:
    """What the open descriptors of `pid` lead to; none of a process that has gone."""
    links = []
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(entry))
    return links


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _standing(pid: int) -> str:
    """What keeps a process, as far as the kernel tells."""
    told = [f"process {pid}"]
    for name in ("comm", "stat", "wchan", "stack"):
        with contextlib.suppress(OSError):  # it ends, or is not ours to look into
            told.append(Path(f"/proc/{pid}/{name}").read_text().strip())
    return "\n".join(told)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
