"""Mutated byte streams over real sockets, cut at random places, against a real arbiter with workers.

Each stream must end with a reply or a close, and a good request on another connection must
work all the time. The caller looks at the log, the workers and their descriptors afterwards.
"""

import random
import socket
import ssl
import threading
from dataclasses import dataclass, field

HANDSHAKE = (b"\x15\x03", b"\x16\x03")  # an alert, or its next step
GOOD = b"GET /good HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
PATIENCE = 30.0


def _head(*lines: str, start: str = "GET / HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (start, "Host: h", *lines, "")).encode("latin-1")


MESSAGES = [
    _head("Cookie: a=1; b=2", "Accept: */*"),
    _head("Content-Length: 5", start="POST /x?y=1 HTTP/1.1") + b"hello",
    _head("Content-Length: 70000", start="POST / HTTP/1.1") + b"x" * 70000,
    _head("Transfer-Encoding: chunked", start="POST / HTTP/1.1") + b"5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    _head(start="HEAD http://h/a?b HTTP/1.1"),
    _head("Expect: 100-continue", "Content-Length: 3", start="PUT /a%20b HTTP/1.1") + b"abc",
    _head("X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X_Y: z"),
    _head(*["X-A: b"] * 120),
]
BITS = [bytes([octet]) for octet in b'\r\n\0 \t:;,\xff\x7f\x85_"\\#[%01g-+/']
BITS += [
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"chunked",
    b"HTTP/1.0",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
]
BITS += [b"0\r\n\r\n", b"99999999999999999999", b"A" * 5000, b"X: y\r\n" * 300]


def hello(context: ssl.SSLContext) -> bytes:
    """What a TLS client says first."""
    said = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="a.test").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return said.read()


def stream(chance: random.Random, messages: list[bytes] = MESSAGES) -> bytes:
    """A few messages, wounded."""
    data = bytearray(b"".join(chance.choices(messages, k=chance.randrange(1, 4))))
    for _ in range(chance.randrange(4)):
        position = chance.randrange(min(len(data), 400) + 1)
        data[position : position + chance.choice([0, 0, 1, 2, 40])] = chance.choice(BITS)
    return bytes(data)


@dataclass
class Outcome:
    """What became of the streams; `hung` and `false` must stay empty, `good` grow."""

    sent: int = 0
    replies: int = 0
    good: int = 0
    hung: list[bytes] = field(default_factory=list)
    false: list[bytes] = field(default_factory=list)


def _send(client: socket.socket, data: bytes, chance: random.Random) -> None:
    """In up to four pieces, cut at random; perhaps not to its end."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(4)))
    end = chance.choice([len(data), len(data), chance.randrange(len(data) + 1)])
    for start, stop in zip([0, *cuts], [*cuts, end], strict=True):
        client.sendall(data[start : max(start, stop)])


def _connect(address: tuple[str, int], context: ssl.SSLContext | None) -> socket.socket:
    client = socket.create_connection(address, PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(client, server_hostname="a.test") if context else client


def _one(
    address: tuple[str, int],
    data: bytes,
    chance: random.Random,
    outcome: Outcome,
    context: ssl.SSLContext | None,
    begins: tuple[bytes, ...] = (b"HTTP/1.1 ",),
) -> None:
    """`begins`: with what a reply may begin."""
    with _connect(address, context) as client:
        try:
            _send(client, data, chance)
            if chance.random() < 0.1:
                return  # gone without a word
            socket.socket.shutdown(client, socket.SHUT_WR)  # ssl's own would leave off decrypting
            raw = b""
            while block := client.recv(65536):
                raw += block
        except TimeoutError:
            outcome.hung.append(data)
            return
        except OSError:
            return  # reset: it was sending to somebody who had refused it
    if raw and not raw.startswith(begins):
        outcome.false.append(data)
    outcome.replies += bool(raw)


def _all_is_well(address: tuple[str, int], context: ssl.SSLContext | None) -> bool:
    with _connect(address, context) as client:
        client.sendall(GOOD)
        raw = b""
        while block := client.recv(65536):
            raw += block
    return raw.startswith(b"HTTP/1.1 200 ") and raw.endswith(b"/good")


def fuzz(
    address: tuple[str, int], count: int, seed: int, threads: int = 4, context: ssl.SSLContext | None = None
) -> Outcome:
    """Send `count` streams; a good request goes between every fifty of each thread. With a `context`,
    under TLS, and every other one is wounded below it."""
    outcome = Outcome()
    lock = threading.Lock()

    def run(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        mine = Outcome()
        for turn in range(count // threads):
            if context and turn % 2:
                _one(address, stream(chance, [hello(context)]), chance, mine, None, HANDSHAKE)
            else:
                _one(address, stream(chance), chance, mine, context)
            mine.sent += 1
            if turn % 50 == 0:
                mine.good += _all_is_well(address, context)
        with lock:
            outcome.sent += mine.sent
            outcome.replies += mine.replies
            outcome.good += mine.good
            outcome.hung += mine.hung
            outcome.false += mine.false

    runners = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return outcome
