"""wsgi.input: a request's body, in memory or in a file, read in every way PEP 3333 knows."""

import os
import random

import pytest

LINES = random.Random(7)


def lines_of(total):
    """About `total` bytes of lines of many lengths, the last one without its end."""
    blocks = []
    size = 0
    while size < total:
        blocks.append(LINES.randbytes(LINES.randrange(200)).replace(b"\n", b"?") + b"\n")
        size += len(blocks[-1])
    return b"".join(blocks)[:-1] + b"."


BODIES = {"in memory": lines_of(1000), "in a file": lines_of(1_200_000), "at the border": lines_of(2**20)[: 2**20]}


def read_all(stream):
    return [stream.read()]


def read_pieces(stream):
    return list(iter(lambda: stream.read(777), b""))


def read_one_too_many(stream):
    return [stream.read(10**9), stream.read(1), stream.read(), stream.readline()]


def readline(stream):
    return list(iter(stream.readline, b""))


def readline_bounded(stream):
    return list(iter(lambda: stream.readline(50), b""))


def readlines(stream):
    return stream.readlines()


def readlines_hinted(stream):
    return stream.readlines(1000) + stream.readlines()


def iterate(stream):
    return list(stream)


def mixed(stream):
    return [stream.read(3), stream.readline(), stream.read(5), *stream]


WAYS = [
    read_all,
    read_pieces,
    read_one_too_many,
    readline,
    readline_bounded,
    readlines,
    readlines_hinted,
    iterate,
    mixed,
]


class Reader:
    """An application that reads its body in a given way, and keeps what it got."""

    def __init__(self, read):
        self.read = read
        self.got = []
        self.paths = []

    def __call__(self, environ, start_response):
        self.paths.append(environ["PATH_INFO"])
        self.got.append(self.read(environ["wsgi.input"]))
        start_response("200 OK", [])
        return [b"ok"]


def chunked(body, size):
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def send(client, body, framing):
    if framing == "length":
        client.send(client.render("/", method="POST", body=body))
    else:
        client.send(client.render("/", "Transfer-Encoding: chunked", method="POST") + chunked(body, 5000))


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("read", WAYS)
def test_the_body_is_read_as_it_was_sent(serve, read, body, framing):
    reader = Reader(read)
    client = serve(reader, max_body_size=0).connect()
    send(client, body, framing)
    assert client.reply().body == b"ok"
    (got,) = reader.got
    assert b"".join(got) == body
    if read in (readline, readlines, readlines_hinted, iterate):
        *whole, last = body.split(b"\n")
        assert got == [line + b"\n" for line in whole] + [last]


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("body", [None, b""], ids=["no body", "length 0"])
def test_a_request_without_a_body_reads_as_empty(serve, read, body):
    reader = Reader(read)
    client = serve(reader).connect()
    assert client.ask(body=body).body == b"ok"
    assert b"".join(reader.got[0]) == b""


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_may_come_in_pieces_of_any_size(serve, framing):
    reader = Reader(read_all)
    client = serve(reader).connect()
    body = b"0123456789" * 3
    head = "Content-Length: 30" if framing == "length" else "Transfer-Encoding: chunked"
    sent = client.render("/", head, method="POST") + (body if framing == "length" else chunked(body, 7))
    for position in range(len(sent)):
        client.send(sent[position : position + 1])
    assert client.reply().body == b"ok"
    assert reader.got == [[body]]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [100, 500_000])
def test_a_body_that_the_application_ignores_is_not_the_next_request(serve, framing, size):
    reader = Reader(lambda stream: [])
    client = serve(reader).connect()
    evil = client.render("/smuggled")
    send(client, evil * (size // len(evil) + 1), framing)
    client.send(client.render("/next"))
    assert [client.reply().body, client.reply().body] == [b"ok", b"ok"]
    assert reader.paths == ["/", "/next"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("body", [b"short", b"x" * 200_000], ids=["short", "long"])
def test_the_next_request_may_follow_the_body_at_once(serve, framing, body):
    reader = Reader(read_all)
    client = serve(reader).connect()
    for _ in range(3):
        send(client, body, framing)
    client.send(client.render("/last"))
    assert [client.reply().body for _ in range(4)] == [b"ok"] * 4
    assert reader.got == [[body]] * 3 + [[b""]]


def test_a_body_of_exactly_the_limit_is_taken(serve):
    reader = Reader(read_all)
    server = serve(reader, max_body_size=100_000)
    for framing in ("length", "chunked"):
        client = server.connect()
        send(client, b"x" * 100_000, framing)
        assert client.reply().body == b"ok"
    assert reader.got == [[b"x" * 100_000]] * 2


def test_no_limit_is_no_limit(serve):
    reader = Reader(lambda stream: [len(stream.read())])
    server = serve(reader, max_body_size=0)
    for framing in ("length", "chunked"):
        client = server.connect()
        send(client, b"x" * 3_000_000, framing)
        assert client.reply().body == b"ok"
    assert reader.got == [[3_000_000]] * 2


def test_a_view_of_its_body_that_the_application_keeps_costs_nobody_anything(serve):
    reader = Reader(lambda stream: [stream.getbuffer()])
    server = serve(reader)
    client, other = server.connect(), server.connect()
    for body in (b"one", b"two" * 30_000):
        assert client.ask(method="POST", body=body).body == b"ok"
        assert other.ask(method="POST", body=body).body == b"ok"
    assert [bytes(view) for (view,) in reader.got] == [b"one"] * 2 + [b"two" * 30_000] * 2


def test_the_file_of_a_body_is_closed_with_its_request(serve, open_descriptors, wait_until):
    server = serve(Reader(lambda stream: []), max_body_size=0)
    client = server.connect()
    client.ask()
    before = open_descriptors()
    for _ in range(5):
        assert client.ask(method="POST", body=os.urandom(1_100_000)).body == b"ok"
    wait_until(lambda: open_descriptors() == before)
