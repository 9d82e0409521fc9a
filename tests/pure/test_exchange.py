"""One request through an application, in one thread: what passes, what is logged and what is told of the reply."""

import logging
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicorn.config.settings import Settings
from minicorn.errors import ClientGone
from minicorn.http.request import Request
from minicorn.serving.connection import Connection
from minicorn.serving.filewrapper import FileWrapper
from minicorn.serving.outbox import PIECE
from minicorn.serving.reception import Reception
from minicorn.serving.wsgi import Exchange
from minicorn.system.listeners import Listener


class Door:
    """A gateway of a server with nothing else to do; once `gone`, the client takes nothing any more."""

    def __init__(self) -> None:
        self.inside = False
        self.gone = False
        self.willing = True

    def release(self) -> None:
        self.inside = True

    def acquire(self) -> None:
        self.inside = False

    def is_willing(self, connection: Connection) -> bool:
        return self.willing

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        return "text/plain", ""

    def wait_writable(self, connection: Connection) -> None:
        connection.outbox.flush()
        if connection.outbox.size and self.gone:
            raise ClientGone("it took nothing in time")


class House:
    """A connection with its client, and the exchange of the request that has come by it."""

    def __init__(self, said: bytes = b"GET /it HTTP/1.1\r\nHost: h\r\n\r\n") -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.settimeout(5)
        self.listener = Listener(socket.create_server(("127.0.0.1", 0)))
        reception = Reception(Settings())
        reception.expect(self.listener, {})
        self.connection = reception.welcome(ours, ("192.0.2.1", "4711"), self.listener, 0.0)
        self.client.sendall(said)
        assert self.connection.receive(0.0)
        self.door = Door()
        self.exchange = Exchange(self.connection, self.connection.take_up(), "Date: now\r\n", self.door)

    def run(self, app: Callable[..., object]) -> bytes:
        """What the client gets."""
        self.exchange.run(app)
        self.connection.close()
        data = b""
        while piece := self.client.recv(65536):
            data += piece
        return data

    def close(self) -> None:
        self.connection.close()
        self.client.close()
        self.listener.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()
    assert not made.door.inside


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """`said.messages` is what was logged."""
    monkeypatch.setattr(logging.getLogger("minicorn"), "propagate", True)
    return caplog


def giving(result: object, *headers: tuple[str, str]) -> Callable[..., object]:
    def app(environ: dict, start_response: Callable[..., object]) -> object:
        start_response("200 OK", list(headers))
        return result

    return app


def raising(error: BaseException) -> Callable[..., object]:
    def app(environ: dict, start_response: Callable[..., object]) -> object:
        raise error

    return app


class Blocks:
    """An iterable whose close() raises."""

    def __init__(self, error: BaseException, *blocks: bytes) -> None:
        self.error, self._blocks = error, blocks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blocks)

    def close(self) -> None:
        raise self.error


LARGE = bytes(PIECE + 300_000)


@pytest.mark.parametrize("body", [b"", b"one", bytes(PIECE - 1), bytes(PIECE), LARGE], ids=len)
@pytest.mark.parametrize("make", [lambda body: [body], lambda body: iter([body]), lambda body: [b"", body]])
def test_what_is_told_of_a_reply_is_what_was_sent(make: Callable[[bytes], object], body: bytes) -> None:
    house = House()
    exchange = house.exchange
    exchange.run(giving(make(body), ("Content-Length", str(len(body)))))
    assert (exchange.status, exchange.headers) == ("200 OK", [("Content-Length", str(len(body)))])
    assert (exchange.sent, exchange.broken, exchange.keep_alive, exchange.unbounded) == (len(body), False, True, False)
    head = exchange.handed - len(body)
    house.client.settimeout(0)
    data = b""
    while len(data) < exchange.handed:
        data += house.client.recv(65536)
        house.connection.outbox.flush()
    assert data[:head].endswith(b"\r\n\r\n") and data[head:] == body
    house.close()


@pytest.mark.parametrize("willing", [True, False])
def test_a_reply_is_the_last_where_the_server_wants_it(house: House, willing: bool) -> None:
    house.door.willing = willing
    assert (b"Connection: close" in house.run(giving([b"a"]))) is not willing
    assert house.exchange.keep_alive is willing


@pytest.mark.parametrize("nothing", [None, "", b"", 0])
@pytest.mark.parametrize("make", [lambda nothing: [nothing], lambda nothing: iter([nothing, nothing])])
def test_what_is_nothing_is_no_block(
    house: House, said: pytest.LogCaptureFixture, make: Callable[[object], object], nothing: object
) -> None:
    assert house.run(giving(make(nothing))).startswith(b"HTTP/1.1 200 OK\r\n")
    assert house.exchange.keep_alive and not said.messages


def test_what_the_head_has_told_holds(house: House) -> None:
    def app(environ: dict, start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        house.door.willing = False
        yield b"two"

    assert b"Connection: close" not in house.run(app)
    assert house.exchange.keep_alive


def test_a_file_is_counted_as_it_is_handed_over(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb") as file:
        data = house.run(giving(FileWrapper(file)))
    assert data.endswith(b"\r\n\r\ncontent")
    assert (house.exchange.handed, house.exchange.sent) == (len(data), 7)


def test_a_list_may_follow_what_was_written(house: House) -> None:
    def app(environ: dict, start_response: Callable[..., object]) -> object:
        start_response("200 OK", [])(b"one")
        return [b"two"]

    assert house.run(app).partition(b"\r\n\r\n")[2] == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert house.exchange.sent == 6


# What the application raises


def test_what_ctrl_c_raises_passes_where_it_comes_as_an_exception(house: House, said: pytest.LogCaptureFixture) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            house.exchange.run(raising(KeyboardInterrupt()))
        assert not said.messages
        assert house.run(raising(ValueError())).startswith(b"HTTP/1.1 500 ")
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_ctrl_c_comes_otherwise_it_is_the_applications_error(house: House) -> None:
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        assert house.run(raising(KeyboardInterrupt())).startswith(b"HTTP/1.1 500 ")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("result", [[b"a"], [b"a", b"b"], [LARGE], []])
def test_a_body_without_start_response_is_told_as_that(
    house: House, said: pytest.LogCaptureFixture, result: object
) -> None:
    page = house.run(lambda environ, start_response: result).partition(b"\r\n\r\n")[2]
    assert house.exchange.sent == len(page) > 0
    (message,) = said.messages
    assert message.startswith("GET /it: the application broke WSGI: start_response was not called before the body")
    assert (house.exchange.status, house.exchange.headers) == ("500 Internal Server Error", [])
    assert (house.exchange.broken, house.exchange.keep_alive) == (True, False)


@pytest.mark.parametrize(("block", "told"), [("text", "str in it, not bytes: encode it"), (7, "int in it, not bytes")])
def test_what_is_no_block_is_named(house: House, said: pytest.LogCaptureFixture, block: object, told: str) -> None:
    house.run(giving([block]))
    (message,) = said.messages
    assert message.partition(" (")[0] == f"GET /it: the application broke WSGI: the body has {told}"


def test_an_error_in_close_is_told_once(house: House, said: pytest.LogCaptureFixture) -> None:
    house.run(giving(Blocks(ValueError("in close"), b"a")))
    assert [message.count("ValueError: in close") for message in said.messages] == [1]


@pytest.mark.parametrize("traced", [True, False])
def test_an_error_that_comes_too_late_is_raised_in_the_application_and_does_not_live_on(
    house: House, traced: bool
) -> None:
    """A cycle of the exception and its frames would live until the garbage is collected, with all they hold."""

    class Flaw(Exception):
        pass

    seen = []

    def app(environ: dict, start_response: Callable[..., object]) -> object:
        start_response("200 OK", [])(b"begun")
        try:
            try:
                raise Flaw
            except Flaw as flaw:
                start_response("500 Oh", [], sys.exc_info() if traced else (Flaw, flaw, None))
        except Flaw as flaw:
            seen.append(weakref.ref(flaw))
        seen.append(seen[0]() is None)
        return []

    assert house.run(app).startswith(b"HTTP/1.1 200 OK\r\n")
    assert seen[1:] == [True]


# A client that goes


def writing(environ: dict, start_response: Callable[..., object]) -> object:
    write = start_response("200 OK", [])
    for _ in range(2):
        try:
            write(LARGE)
        except ClientGone:
            pass
    return [b"more"]


@pytest.mark.parametrize(
    "app",
    [giving([LARGE]), giving((LARGE, LARGE)), writing],
    ids=["one", "several", "written"],
)
def test_the_end_of_a_client_is_no_error_of_the_applications(
    house: House, said: pytest.LogCaptureFixture, app: Callable[..., object]
) -> None:
    house.door.gone = True
    with pytest.raises(ClientGone, match="in time"):
        house.exchange.run(app)
    assert not said.messages
    assert house.exchange.broken


def test_what_close_raises_then_is_told_once(house: House, said: pytest.LogCaptureFixture) -> None:
    house.door.gone = True
    with pytest.raises(ClientGone, match="in time"):
        house.exchange.run(giving(Blocks(ValueError("in close"), LARGE)))
    assert [message.count("ValueError: in close") for message in said.messages] == [1]


def test_a_close_that_meets_the_same_end_is_no_error(house: House, said: pytest.LogCaptureFixture) -> None:
    house.door.gone = True

    class Writing:
        def __iter__(self) -> Iterator[bytes]:
            return iter([LARGE])

        def close(self) -> None:
            house.exchange.write(b"goodbye")

    with pytest.raises(ClientGone, match="in time"):
        house.exchange.run(giving(Writing()))
    assert not said.messages
