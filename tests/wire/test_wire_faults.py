"""What the application raises, and when: a 500 before the head, a visible cut behind it, and the server lives."""

import asyncio
import threading

import pytest

from minicorn.figures.heartbeat import Page, private_page
from minicorn.http.heads import Heads
from minicorn.serving.connection import Connection
from minicorn.serving.wsgi import Exchange

TEXT = ("Content-Type", "text/plain")
SECRET = "the reason is nobody's business"


def good(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"good"]


class Body:
    """An iterable that remembers its close()."""

    def __init__(self, blocks, closing=None):
        self._blocks = iter(blocks)
        self._closing = closing
        self.closed = threading.Event()

    def __iter__(self):
        return self._blocks

    def close(self):
        self.closed.set()
        if self._closing is not None:
            raise self._closing


def failing(error, after=(), headers=()):
    """An application whose iterable raises `error` after the blocks `after`."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/good":
            return good(environ, start_response)
        start_response("200 OK", [TEXT, *headers])

        def generate():
            yield from after
            raise error

        return generate()

    return app


def in_the_call(error):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/good":
            return good(environ, start_response)
        raise error

    return app


def behind_start_response(error):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/good":
            return good(environ, start_response)
        start_response("200 OK", [TEXT, ("X-Promise", "1"), ("Content-Length", "5")])
        raise error

    return app


def in_the_first_block(error):
    return failing(error)


def behind_an_empty_block(error):
    return failing(error, after=[b""])


EARLY = [in_the_call, behind_start_response, in_the_first_block, behind_an_empty_block]


class OfItsOwn(BaseException):
    """Timeouts of gevent and cancellations of trio are such."""


@pytest.mark.parametrize("make", EARLY)
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        SystemExit(SECRET),
        SystemExit(3),
        KeyboardInterrupt(SECRET),
        asyncio.CancelledError(SECRET),
        OfItsOwn(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_before_the_first_block_is_500_and_the_server_lives(serve, make, error):
    server = serve(make(error))
    reply = server.ask()
    assert reply.status == 500
    assert reply["Connection"] == "close"
    assert "X-Promise" not in reply
    assert SECRET.encode() not in reply.body and b"Traceback" not in reply.body
    assert len(reply.body) < 100
    assert server.ask("/good").body == b"good"


def test_the_traceback_is_logged_with_the_request(serve, log):
    serve(in_the_call(ValueError(SECRET))).ask("/where?it=was")
    (text,) = [text for text in log if "Traceback" in text]
    assert "GET /where?it=was" in text
    assert f"ValueError: {SECRET}" in text
    assert "minicorn/wsgi.py" not in text


def test_head_gets_its_500_without_a_body(serve):
    client = serve(in_the_call(ValueError())).connect()
    client.send(client.render(method="HEAD"))
    assert client.reply("HEAD").status == 500
    assert client.rest() == b""


def test_nothing_behind_a_request_that_failed_is_parsed(serve):
    seen = []

    def app(environ, start_response):
        seen.append(environ["PATH_INFO"])
        raise ValueError

    client = serve(app).connect()
    client.send(client.render("/1") + client.render("/2"))
    assert client.rest().count(b"HTTP/1.1 ") == 1
    assert seen == ["/1"]


@pytest.mark.parametrize("error", [ValueError(SECRET), SystemExit(3), StopIteration()], ids=repr)
def test_an_error_behind_the_first_block_leaves_a_chunked_reply_without_its_end(serve, error):
    server = serve(failing(error, after=[b"first"]))
    client = server.connect()
    client.send(client.render() + client.render("/good"))
    _, _, body = client.rest().partition(b"\r\n\r\n")
    assert body == b"5\r\nfirst\r\n"
    assert server.ask("/good").body == b"good"


def test_an_error_behind_the_first_block_leaves_a_content_length_short(serve):
    server = serve(failing(ValueError(), after=[b"first"], headers=[("Content-Length", "10")]))
    with pytest.raises(EOFError):
        server.ask()
    assert server.ask("/good").body == b"good"


def test_an_error_behind_the_last_block_does_not_spoil_a_content_length(serve):
    server = serve(failing(ValueError(), after=[b"first"], headers=[("Content-Length", "5")]))
    assert server.ask().body == b"first"


@pytest.mark.parametrize("after", [[b"first"], [b"x" * 300_000]], ids=["short", "long"])
def test_an_error_behind_the_first_block_resets_a_reply_that_only_the_connection_ends(serve, after):
    server = serve(failing(ValueError(), after=after))
    client = server.connect()
    client.send(client.render(version="HTTP/1.0"))
    with pytest.raises(ConnectionResetError):
        client.reply()
    assert server.ask("/good").body == b"good"


# close()


def closing(make):
    """An application that answers with the Body that `make(environ)` gives, and where the bodies are kept."""
    bodies = []

    def app(environ, start_response):
        length = environ["QUERY_STRING"]
        start_response("200 OK", [TEXT, *([("Content-Length", length)] if length else [])])
        bodies.append(make(environ))
        return bodies[-1]

    return app, bodies


def raising(*blocks):
    yield from blocks
    raise ValueError


@pytest.mark.parametrize(
    ("make", "target"),
    [
        (lambda: [b"a", b"b"], "/"),
        (list, "/"),
        (lambda: [b"longer than said"], "/?3"),
        (lambda: [b"shorter than said"], "/?300"),
        (lambda: raising(), "/"),
        (lambda: raising(b"first"), "/"),
        (lambda: ["no bytes"], "/"),
        (lambda: None, "/"),
    ],
    ids=["all", "empty", "too long", "too short", "error first", "error later", "str", "no iterable"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_close_is_called_once_whatever_becomes_of_the_body(serve, make, target, method):
    class Counting(Body):
        count = 0

        def __init__(self):
            blocks = make()
            super().__init__(blocks if blocks is not None else [])
            self.broken = blocks is None

        def __iter__(self):
            if self.broken:
                raise TypeError
            return super().__iter__()

        def close(self):
            self.count += 1
            super().close()

    app, bodies = closing(lambda environ: Counting())
    client = serve(app).connect()
    client.send(client.render(target, "Connection: close", method=method))
    assert client.rest().startswith(b"HTTP/1.1 ")
    (body,) = bodies
    assert body.closed.wait(5)
    assert body.count == 1


@pytest.mark.parametrize("error", [ValueError(), OSError()], ids=repr)
def test_close_is_called_when_start_response_was_not(serve, error):
    body = Body([b"block"])

    assert serve(lambda environ, start_response: body).ask().status == 500
    assert body.closed.is_set()


def test_close_is_called_when_the_client_has_gone_and_its_error_is_logged(serve, log, wait_until):
    inside, go = threading.Event(), threading.Event()

    def generate():
        yield b"first"
        inside.set()
        assert go.wait(5)
        while True:  # until somebody notices
            yield b"x" * 65536

    app, bodies = closing(lambda environ: Body(generate(), closing=ValueError("no rollback")))
    client = serve(app).connect()
    client.send(client.render())
    assert inside.wait(5)
    client.reset()
    go.set()
    assert bodies[0].closed.wait(5)
    wait_until(lambda: any("no rollback" in text for text in log))


def test_an_application_that_passes_over_its_clients_end_meets_it_again_and_is_closed(serve):
    inside, go = threading.Event(), threading.Event()
    ends = []
    body = Body(iter(lambda: ends.append("iterated"), None))

    def app(environ, start_response):
        write = start_response("200 OK", [TEXT])
        inside.set()
        assert go.wait(5)
        while len(ends) < 2:
            try:
                write(b"x" * 65536)
            except Exception as error:
                ends.append(error)
        return body

    client = serve(app).connect()
    client.send(client.render())
    assert inside.wait(5)
    client.reset()
    go.set()
    assert body.closed.wait(5)
    assert len(ends) == 2 and ends[0] is ends[1]


def test_close_is_called_on_a_list_of_the_applications_own_kind(serve):
    closed = threading.Event()

    class Rows(list[bytes]):
        def close(self):
            closed.set()

    assert serve(closing(lambda environ: Rows([b"row"]))[0]).ask().body == b"row"
    assert closed.wait(5)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("target", ["/", "/?4"])
@pytest.mark.parametrize("error", [ValueError(), SystemExit(1)], ids=repr)
def test_an_error_in_close_comes_too_late_to_spoil_the_reply(serve, version, target, error, log, wait_until):
    app, _ = closing(lambda environ: Body([b"go", b"od"], closing=error))
    server = serve(app)
    assert server.ask(target, version=version).body == b"good"
    wait_until(lambda: any(type(error).__name__ in text for text in log))
    assert server.ask(target, version=version).body == b"good"


def test_close_is_called_before_the_client_has_read_its_reply(serve):
    """What the application holds (files, database connections) is not held for a slow client."""
    app, bodies = closing(lambda environ: Body([b"x" * 5_000_000]))
    client = serve(app).connect(receive_buffer=4096)
    client.send(client.render())
    client.until(b"\r\n\r\n")
    assert bodies[0].closed.wait(5)


@pytest.mark.parametrize("name", ["flush", "refuse"])
def test_a_defect_in_sending_or_refusing_costs_one_client(serve, log, monkeypatch, name):
    def fail(*arguments):
        raise RuntimeError("a defect")

    large = b"x" * 5_000_000
    app, _ = closing(lambda environ: [large])
    server = serve(app)
    other = server.connect()
    assert other.ask().body == large
    with monkeypatch.context() as patches:
        patches.setattr(Connection, name, fail)
        client = server.connect(receive_buffer=4096)
        client.send(client.render() if name == "flush" else b"nonsense\r\n\r\n")
        client.rest()  # it comes to its end
    assert any("minicorn has a defect" in line for line in log)
    assert other.ask().body == large


@pytest.mark.parametrize(
    ("owner", "name"), [(Heads, "read"), (Page, "begin"), (Page, "end"), (Connection, "advance"), (Exchange, "run")]
)
def test_a_defect_of_the_servers_own_costs_one_client_and_is_logged(serve, log, monkeypatch, wait_until, owner, name):
    page = private_page()
    server = serve(good, page=page)
    other = server.connect()
    assert other.ask().body == b"good"
    wait_until(lambda: page.requests == 1)  # nothing of it is to be done still

    def fail(*arguments):
        raise RuntimeError("a defect")

    with monkeypatch.context() as patches:
        patches.setattr(owner, name, fail)
        client = server.connect()
        client.send(client.render())
        client.rest()  # it comes to its end
    assert any("minicorn has a defect" in line for line in log)
    assert other.ask().body == b"good"
    assert server.ask().body == b"good"
