"""A load client that believes nothing: each reply's bytes are checked, nothing is retried silently.

Keep-alive clients in threads, raw sockets. Counted apart: replies that are wrong or cut,
resets, and connections that the server closed while they were idle (end-of-file before the
first byte of a reply; the request is then sent again on a new connection).
"""

import socket
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What one client, or all of them together, met."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    idle_closes: int = 0
    waits: list[float] = field(default_factory=list)
    replies: list[tuple[float, bytes]] = field(default_factory=list)  # when, and the body's first word

    def __iadd__(self, other: "Tally") -> "Tally":
        self.requests += other.requests
        self.failures += other.failures
        self.idle_closes += other.idle_closes
        self.waits += other.waits
        self.replies += other.replies
        return self

    def percentile(self, share: float) -> float:
        """Seconds; the waits at this share of all, 0 to 1."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Client(threading.Thread):
    """Sends GET /echo/<unique> without pause; the reply must be `<word> <unique>`."""

    def __init__(self, port: int, number: int, stop: threading.Event, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.number = number
        self.stop = stop
        self.pause = pause
        self.tally = Tally()
        self.sock: socket.socket | None = None

    def run(self) -> None:
        serial = 0
        while not self.stop.is_set():
            serial += 1
            token = f"{self.number}-{serial}"
            began = time.monotonic()
            try:
                self.exchange(token)
            except (OSError, ValueError) as error:
                self.tally.failures.append(f"{token}: {type(error).__name__} {error}")
                self.drop()
            now = time.monotonic()
            self.tally.requests += 1
            self.tally.waits.append(now - began)
            if self.pause:
                self.stop.wait(self.pause)
        self.drop()

    def drop(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def exchange(self, token: str) -> None:
        request = f"GET /echo/{token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        reused = self.sock is not None
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), 60)
        data = b""
        try:
            self.sock.sendall(request)
            data = self.sock.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            if not reused:
                raise
        if not data and reused:
            self.tally.idle_closes += 1
            self.drop()
            self.exchange(token)
            return
        self.check(data, token)

    def check(self, data: bytes, token: str) -> None:
        assert self.sock is not None
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += self._more()
        word, _, echoed = body.partition(b" ")
        if not head.startswith(b"HTTP/1.1 200") or echoed != token.encode():
            raise ValueError(f"wrong reply {head[:60]!r} {body[:60]!r}")
        self.tally.replies.append((time.monotonic(), word))
        if fields.get(b"connection") == b"close":
            self.drop()

    def _more(self) -> bytes:
        assert self.sock is not None
        data = self.sock.recv(65536)
        if not data:
            raise ValueError("the reply was cut short")
        return data


class Load:
    """`count` clients against `port`, from `with` to its end; then `tally` is their sum."""

    def __init__(self, port: int, count: int, pause: float = 0.0) -> None:
        self._stop = threading.Event()
        self._clients = [Client(port, number, self._stop, pause) for number in range(count)]
        self.tally = Tally()

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()
            self.tally += client.tally
