"""A load client that believes nothing: each reply's bytes are checked, nothing is sent again.

Keep-alive clients in threads, raw sockets, GET and POST by turns. Counted apart: replies that
are wrong or never come, replies cut short, resets, and connections that the server closed while
they were idle (end-of-file before the first byte of a reply, on a connection used before).
"""

import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

PATIENCE = 30.0


class Cut(Exception):
    """The end of the stream before the end of the reply."""


class IdleClose(Exception):
    """The end of the stream in place of a reply, on a connection that has had one."""


@dataclass
class Tally:
    """What one client, or all of them together, met."""

    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    idle_closes: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    replies: list[tuple[float, str]] = field(default_factory=list)  # when, and the body's first word

    def __iadd__(self, other: "Tally") -> "Tally":
        self.requests += other.requests
        self.wrong += other.wrong
        self.cut += other.cut
        self.resets += other.resets
        self.idle_closes += other.idle_closes
        self.waits += other.waits
        self.replies += other.replies
        return self

    @property
    def failures(self) -> list[str]:
        """Requests that had no right reply, but for idle closes."""
        return self.wrong + self.cut + self.resets

    @property
    def words(self) -> set[str]:
        return {word for _, word in self.replies}

    def percentile(self, share: float) -> float:
        """Seconds; the waits at this share of all, 0 to 1."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Client(threading.Thread):
    """Sends to `path`/<unique> without pause; the reply must be `<word> <unique> <body sent>`."""

    def __init__(
        self, port: int, path: str, number: int, stop: threading.Event, pause: float, body: Callable[[int], bytes]
    ) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.path = path
        self.number = number
        self.stop = stop
        self.pause = pause
        self.body = body
        self.tally = Tally()
        self.sock: socket.socket | None = None

    def run(self) -> None:
        serial = 0
        while not self.stop.is_set():
            serial += 1
            token = f"{self.number}-{serial}"
            began = time.monotonic()
            self._try(token, self.body(serial))
            self.tally.requests += 1
            self.tally.waits.append(time.monotonic() - began)
            if self.pause:
                self.stop.wait(self.pause)
        self.drop()

    def _try(self, token: str, body: bytes) -> None:
        kinds = {Cut: self.tally.cut, IdleClose: self.tally.idle_closes}
        try:
            self.exchange(token, body)
            return
        except (ConnectionError, Cut, IdleClose) as error:
            kinds.get(type(error), self.tally.resets).append(f"{token}: {type(error).__name__} {error}")
        except (OSError, ValueError, KeyError) as error:
            self.tally.wrong.append(f"{token}: {type(error).__name__} {error}")
        self.drop()

    def drop(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def exchange(self, token: str, body: bytes) -> None:
        reused = self.sock is not None
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in _request(f"{self.path}/{token}", body):
            self.sock.sendall(part)
        data = self.sock.recv(65536)
        if not data:
            raise IdleClose if reused else Cut("before its first byte")
        self.check(data, token, body)

    def check(self, data: bytes, token: str, sent: bytes) -> None:
        while b"\r\n\r\n" not in data:
            data = self._more(data)
        head, end, _ = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        begin = len(head + end)
        while len(data) < begin + int(fields[b"content-length"]):
            data = self._more(data)
        body = data[begin:]
        word, _, echoed = body.partition(b" ")
        if not head.startswith(b"HTTP/1.1 200 ") or echoed != f"{token} ".encode() + sent:
            raise ValueError(f"wrong reply {head[:60]!r} {body[:60]!r}")
        self.tally.replies.append((time.monotonic(), word.decode()))
        if fields.get(b"connection") == b"close":
            self.drop()

    def _more(self, data: bytes) -> bytes:
        assert self.sock is not None
        more = self.sock.recv(65536)
        if not more:
            raise Cut(f"within it: {len(data)} bytes, {data[:200]!r}")
        return data + more


def bodies(serial: int) -> bytes:
    """Nothing for a GET; now and then more than the hand-off takes along."""
    if serial % 2:
        return b""
    return random.randbytes(100_000 if serial % 20 == 0 else random.randint(1, 2000))


def _request(target: str, body: bytes) -> list[bytes]:
    """The pieces that are sent one by one."""
    start = f"{target} HTTP/1.1\r\nHost: localhost\r\n"
    if not body:
        return [f"GET {start}\r\n".encode()]
    data = f"POST {start}Content-Length: {len(body)}\r\n\r\n".encode() + body
    split = random.choice([0, random.randrange(len(data))])
    return [data[:split], data[split:]] if split else [data]


class Load:
    """`count` clients against `port`, from `with` to its end; then `tally` is their sum."""

    def __init__(
        self,
        port: int,
        count: int,
        pause: float = 0.0,
        path: str = "/echo",
        body: Callable[[int], bytes] = bodies,
    ) -> None:
        """`body`: what a client's request of that number sends."""
        self._stop = threading.Event()
        self._clients = [Client(port, path, number, self._stop, pause, body) for number in range(count)]
        self.tally = Tally()

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def least_replies(self) -> int:
        """Right replies of the client that has had the fewest."""
        return min(len(client.tally.replies) for client in self._clients)

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()
            self.tally += client.tally
