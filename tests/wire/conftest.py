"""One real server in a thread of this process, and raw sockets to talk to it.

`serve(app, **settings)` starts a server on a free port; `server.connect()` gives a `Client`,
which sends bytes and reads whole replies. `spawn(script)` runs a server in a process of its
own, for what belongs to a process: signals, descriptor limits. All end with the test.
"""

import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicorn.config.settings import Settings
from minicorn.figures.heartbeat import Page
from minicorn.logs.output import Output
from minicorn.server import Server
from minicorn.serving.seat import Seat
from minicorn.system.listeners import Listener

ROOT = Path(__file__).parents[2]
PATIENCE = 5.0
# Long enough that only a test about them meets them
DEFAULTS = {"recv_timeout": 5.0, "keep_alive": 5.0, "send_timeout": 5.0, "graceful_timeout": 5.0}


def _wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return once `condition()` is true; fail when it does not come true in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.005)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return _wait_until


class Reply:
    """One reply as it came; `chunks` are the sizes of its chunks, None when it was not chunked."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.version, status, self.reason = status_line.split(" ", 2)
        self.status = int(status)
        self.fields = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines)]
        self.body = b""
        self.chunks: list[int] | None = None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.reason} {self.body[:60]!r}>"


class Client:
    """A raw client: it sends what it is told and believes nothing.

    EOFError: the connection ended inside a reply; ConnectionResetError: it was reset;
    TimeoutError: nothing came for five seconds.
    """

    def __init__(self, address: object, family: int, receive_buffer: int = 0) -> None:
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE)
        if receive_buffer:  # before connect: the window is offered then
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    @staticmethod
    def render(
        target: str = "/", *lines: str, method: str = "GET", version: str = "HTTP/1.1", body: bytes | None = None
    ) -> bytes:
        """The bytes of a request; Host and Content-Length are added, `lines` are further field lines."""
        fields = ["Host: test", *lines]
        if body is not None:
            fields.append(f"Content-Length: {len(body)}")
        head = f"{method} {target} {version}\r\n" + "".join(f"{line}\r\n" for line in fields) + "\r\n"
        return head.encode("latin-1") + (body or b"")

    def ask(self, *parts: str, method: str = "GET", **more: object) -> Reply:
        """Send the request that `render` makes of these arguments; its reply."""
        self.send(self.render(*parts, method=method, **more))
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """The next reply, interim ones included."""
        reply = Reply(bytes(self.until(b"\r\n\r\n")[:-4]))
        if method == "HEAD" or reply.status < 200 or reply.status in (204, 304):
            return reply
        if "Transfer-Encoding" in reply:
            assert reply["Transfer-Encoding"] == "chunked" and "Content-Length" not in reply
            self._read_chunks(reply)
        elif "Content-Length" in reply:
            reply.body = self.read(int(reply["Content-Length"]))
        else:
            reply.body = self.rest()
        return reply

    def _read_chunks(self, reply: Reply) -> None:
        reply.chunks = []
        body = bytearray()
        while True:
            size = int(self.until(b"\r\n"), 16)
            body += self.read(size)
            assert self.read(2) == b"\r\n"
            if not size:
                break
            reply.chunks.append(size)
        reply.body = bytes(body)

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        while len(self._buffer) < count:
            self._receive()
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return data

    def until(self, mark: bytes) -> bytes:
        """All up to `mark`, and `mark`."""
        while (found := self._buffer.find(mark)) < 0:
            self._receive()
        return self.read(found + len(mark))

    def _receive(self) -> None:
        data = self.sock.recv(262144)
        if not data:
            raise EOFError(f"the connection ended; unread: {bytes(self._buffer[-60:])!r}")
        self._buffer += data

    def rest(self) -> bytes:
        """All that comes until the server closes; b"" when it has closed without a further byte."""
        try:
            while True:
                self._receive()
        except EOFError:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data

    def half_close(self) -> None:
        """Nothing more will be sent; replies are still read."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    @property
    def port(self) -> int:
        return self.sock.getsockname()[1]


class Endpoint:
    """Where a server listens; its clients are closed with it."""

    def __init__(self, address: object, family: int) -> None:
        self.address = address
        self.family = family
        self._clients: list[Client] = []

    def connect(self, receive_buffer: int = 0) -> Client:
        client = Client(self.address, self.family, receive_buffer)
        self._clients.append(client)
        return client

    def ask(self, *parts: str, **more: object) -> Reply:
        """One request on a connection of its own."""
        client = self.connect()
        try:
            return client.ask(*parts, **more)
        finally:
            client.close()

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


class Running(Endpoint):
    """A `Server` that serves in a thread."""

    def __init__(
        self,
        app: object,
        host: str = "127.0.0.1",
        bound: Listener | None = None,
        access: Output | None = None,
        page: Page | None = None,
        **settings: object,
    ) -> None:
        self.server = Server(
            app,
            host,
            0,
            settings=Settings(**(DEFAULTS | settings)),
            bound=[bound] if bound else None,
            access=access,
            seat=Seat(page=page) if page else None,
        )
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, name="server", daemon=True)
        if bound is None:
            super().__init__(None, socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.thread.start()
            _wait_until(lambda: self.server.port or not self.thread.is_alive())
            self.address = (host, self.server.port)
        else:
            super().__init__(bound.socket.getsockname() if bound.port else bound.host, bound.socket.family)
            self.thread.start()

    def _serve(self) -> None:
        try:
            self.server.serve()
        except BaseException as error:
            self.failure = error

    def join(self, patience: float = PATIENCE) -> None:
        """The server has been asked to end, and does."""
        self.thread.join(patience)
        assert not self.thread.is_alive(), f"the server did not end within {patience} s"
        assert self.failure is None, f"the server died of {self.failure!r}"

    def stop(self) -> None:
        self.close_clients()
        self.server.signal_exit()
        self.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """`serve(app, host=…, bound=…, access=…, page=…, **settings)` -> a running server."""
    servers: list[Running] = []

    def start(app: object, **options: object) -> Running:
        server = Running(app, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.thread.is_alive() or server.failure:
            server.stop()
        server.close_clients()


class Spawned(Endpoint):
    """A server in a process of its own. Its script logs "Listening on …" to standard output."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        super().__init__(None, socket.AF_INET)
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def await_port(self) -> None:
        self.address = ("127.0.0.1", int(self.await_line(r"Listening on http://127\.0\.0\.1:(\d+)")))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip())

    def await_line(self, pattern: str) -> str:
        """The first group of the first line of output that matches, once it is there."""

        def find() -> re.Match[str] | None:
            return next((found for line in self.output if (found := re.search(pattern, line))), None)

        _wait_until(lambda: find() or self.process.poll() is not None, 15)
        found = find()
        assert found, f"no line {pattern!r} in {self.output}"
        return found[1] if found.groups() else found[0]

    def say(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def cpu(self) -> float:
        """Seconds of CPU time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_over_a_second(self) -> float:
        """Seconds of CPU time that it takes in the next second, in which it does not end."""
        began = self.cpu()
        with pytest.raises(subprocess.TimeoutExpired):
            self.process.wait(1)
        return self.cpu() - began

    def end(self) -> None:
        self.close_clients()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass  # a line that nobody read


@pytest.fixture
def spawn() -> Iterator[Callable[[str], Spawned]]:
    processes: list[Spawned] = []

    def start(script: str) -> Spawned:
        process = Spawned(script)
        processes.append(process)
        process.await_port()
        return process

    yield start
    for process in processes:
        process.end()


@pytest.fixture
def open_descriptors() -> Callable[[], int]:
    """How many descriptors this process has open."""
    return lambda: len(os.listdir("/proc/self/fd"))


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the logger "minicorn" has written, a text a record."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    texts: list[str] = []
    logger, handler = logging.getLogger("minicorn"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield texts
    logger.removeHandler(handler)
    logger.setLevel(level)
