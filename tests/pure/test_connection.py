"""A connection over a real socket: what of a body goes with it to another worker, and how it ends."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from costs import FACTOR, growth

from minicorn.config.settings import Settings
from minicorn.errors import ClientGone
from minicorn.serving.connection import LINGER_BYTES, LINGER_TIME, RELOAD_MOST, Connection
from minicorn.serving.handoff import INPUT_MOST
from minicorn.serving.reception import Reception
from minicorn.serving.state import APP, BODY, CLOSED, HEAD, IDLE, KEPT, LINGER, REPLY, State
from minicorn.serving.upload import MEMORY_MOST
from minicorn.system import poller
from minicorn.system.listeners import Listener

Welcome = Callable[[Settings], tuple[Connection, socket.socket]]


@pytest.fixture
def welcome() -> Iterator[Welcome]:
    """Makes connections, each with its client's end."""
    opened: list[Connection | socket.socket | Listener] = []

    def welcome(settings: Settings) -> tuple[Connection, socket.socket]:
        ours, client = socket.socketpair()
        ours.setblocking(False)
        listener = Listener(socket.create_server(("127.0.0.1", 0)))
        reception = Reception(settings)
        reception.expect(listener, {})
        connection = reception.welcome(ours, ("192.0.2.1", "4711"), listener, 0.0)
        opened.extend((connection, client, listener))
        return connection, client

    yield welcome
    for thing in opened:
        thing.close()


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length


def send(connection: Connection, client: socket.socket, data: bytes) -> None:
    """As much at once as the sockets take."""
    for at in range(0, len(data), 65536):
        client.sendall(data[at : at + 65536])
        connection.receive(0.0)


# In the middle of a body


@pytest.mark.parametrize("size", [10, 2 * INPUT_MOST, 2 * MEMORY_MOST])
def test_with_reload_a_half_read_body_goes_to_the_next_worker_with_all_that_has_come(
    welcome: Welcome, size: int
) -> None:
    settings = Settings(reload=True, max_body_size=0)
    content = os.urandom(size)
    giver, client = welcome(settings)
    send(giver, client, post(size) + content[: size // 2])
    send(giver, client, content[size // 2 : -1])
    assert giver.state is BODY
    parcel = giver.parcel()
    assert parcel is not None and parcel.input == post(size) + content[:-1]
    taker, client = welcome(settings)
    assert not taker.resume(parcel, 0.0)
    send(taker, client, content[-1:])
    assert taker.state is APP
    assert taker.body.read() == content


def test_with_reload_a_body_costs_what_it_is_long(welcome: Welcome) -> None:
    def upload(size: int) -> None:
        connection, client = welcome(Settings(reload=True, max_body_size=0))
        send(connection, client, post(size))
        for _ in range(size // 512):
            client.sendall(b"x" * 512)
            connection.receive(0.0)
        assert connection.state is APP

    assert growth(upload, lambda size: size, 2**20) < FACTOR


def test_with_reload_a_body_beyond_measure_stays_and_is_not_kept_in_memory(welcome: Welcome) -> None:
    connection, client = welcome(Settings(reload=True, max_body_size=0))
    send(connection, client, post(RELOAD_MOST) + b"x" * (RELOAD_MOST - 2**16))
    assert connection.parcel() is not None
    send(connection, client, b"x" * (2**16 - 1))
    assert connection.state is BODY
    assert connection.parcel() is None
    assert connection.held < 2 * MEMORY_MOST


# Between requests, and with one of which nothing is done


def test_a_request_that_travels_waits_since_it_was_whole_and_no_less_long(welcome: Welcome) -> None:
    giver, client = welcome(Settings())
    giver.served = 3
    client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert giver.receive(5.0)
    parcel = giver.parcel()
    taker, _ = welcome(Settings())
    assert parcel is not None and taker.resume(parcel, 9.0)
    assert (taker.state, taker.served, taker.since, taker.received) == (APP, 3, 5.0, len(parcel.input))


@pytest.mark.parametrize(("served", "state"), [(0, HEAD), (3, IDLE)])
def test_a_silent_connection_that_travels_has_no_longer_than_it_had(
    welcome: Welcome, served: int, state: State
) -> None:
    giver, _ = welcome(Settings())
    giver.served, giver.state, giver.deadline = served, state, 7.5
    parcel = giver.parcel()
    taker, _ = welcome(Settings())
    assert parcel is not None and not taker.resume(parcel, 5.0)
    assert (taker.state, taker.served, taker.deadline) == (state, served, 7.5)


def test_a_head_that_is_half_here_waits_since_it_goes_on_and_a_long_one_stays(welcome: Welcome) -> None:
    settings = Settings(max_header_size=4 * INPUT_MOST)
    giver, client = welcome(settings)
    send(giver, client, b"GET / HTTP/1.1\r\nX-A: ")
    parcel = giver.parcel()
    taker, _ = welcome(settings)
    assert parcel is not None and not taker.resume(parcel, 9.0)
    assert (taker.state, taker.begun, taker.unparsed) == (HEAD, 9.0, parcel.input)
    send(giver, client, b"x" * INPUT_MOST)
    assert giver.state is HEAD and giver.parcel() is None


def test_a_connection_whose_reply_is_not_all_sent_stays(welcome: Welcome) -> None:
    giver, _ = welcome(Settings())
    giver.state, giver.served = IDLE, 1
    giver.outbox.send(b"x" * 2**20)
    assert giver.outbox.size and giver.parcel() is None


def test_what_is_held_for_a_client_is_counted_wherever_it_is(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    head = post(10)
    send(connection, client, head[:20])
    assert connection.held == 20
    send(connection, client, head[20:] + b"12345")
    assert connection.held == len(head) + 5 + 5  # as it came, for another worker, and what the application will read
    send(connection, client, b"67890GET")
    assert connection.state is APP
    assert connection.held == len(head) + 13 + 10 + 3  # the next request's beginning would travel with it


def test_without_reload_a_half_read_body_stays(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    send(connection, client, post(10) + b"12345")
    assert connection.state is BODY
    assert connection.parcel() is None


@pytest.mark.parametrize("more", [0, 1])
def test_a_whole_request_goes_with_its_body_as_far_as_the_queue_takes_it(welcome: Welcome, more: int) -> None:
    connection, client = welcome(Settings())
    size = INPUT_MOST - len(post(INPUT_MOST)) + more
    send(connection, client, post(size) + b"x" * (size - 1))
    send(connection, client, b"x")
    assert connection.state is APP
    assert (connection.parcel() is None) is bool(more)


def test_who_has_let_go_of_a_half_read_body_keeps_no_file(welcome: Welcome) -> None:
    connection, client = welcome(Settings(reload=True, max_body_size=0))
    before = len(os.listdir("/dev/fd"))
    send(connection, client, post(2 * MEMORY_MOST) + b"x" * (MEMORY_MOST + 1))
    assert len(os.listdir("/dev/fd")) == before + 1
    connection.release()
    assert len(os.listdir("/dev/fd")) == before - 1  # nor the socket
    assert connection.state is CLOSED


# What comes


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("data", [GET, post(3) + b"abc"])
def test_only_what_stays_behind_a_request_is_held(welcome: Welcome, data: bytes) -> None:
    for more in (b"", b"G"):
        connection, client = welcome(Settings())
        send(connection, client, data + more)
        assert (connection.state, connection.holds, connection.unparsed) == (APP, bool(more), more)


def test_the_length_of_a_body_is_told_however_it_was_framed(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    send(connection, client, GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    meta = connection.take_up().meta
    assert (meta["CONTENT_LENGTH"], connection.body.read()) == ("5", b"abcde")
    assert "HTTP_TRANSFER_ENCODING" not in meta


@pytest.mark.parametrize("lingers", [False, True])
def test_a_reset_is_the_end_of_a_client(welcome: Welcome, lingers: bool) -> None:
    connection, client = welcome(Settings())
    connection.outbox.send(b"not read")
    if lingers:
        connection.refuse(408, "", 0.0)
    client.close()
    with pytest.raises(ClientGone, match="reset"):
        connection.receive(0.0)


# After a reply


def answered(connection: Connection, client: socket.socket, said: bytes, reply: bytes, keep_alive: bool = True) -> None:
    """It has sent `reply` to what was `said`, at 50.0."""
    send(connection, client, said)
    assert connection.parcel() is not None
    connection.take_up()
    assert connection.parcel() is None  # nobody else can answer it now
    connection.outbox.send(reply)
    connection.interest = 0  # as while the application works
    connection.finish(keep_alive, 50.0)
    assert connection.request is None and connection.received == 0 and connection.body.closed


def test_between_requests_there_is_a_time_of_its_own(welcome: Welcome) -> None:
    connection, client = welcome(Settings(keep_alive=7, recv_timeout=9))
    answered(connection, client, GET, b"all of it")
    assert (connection.state, connection.deadline, connection.interest) == (IDLE, 57.0, poller.READ)
    client.sendall(GET[:5])
    assert not connection.receive(52.0)
    assert (connection.state, connection.deadline, connection.begun) == (HEAD, 61.0, 52.0)


def test_a_request_that_has_come_already_begins_with_the_end_of_the_reply(welcome: Welcome) -> None:
    connection, client = welcome(Settings(keep_alive=7, recv_timeout=9))
    answered(connection, client, GET + GET[:5], b"all of it")
    assert (connection.state, connection.deadline, connection.begun, connection.lags) == (HEAD, 59.0, 50.0, True)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_client_has_time_for_its_reply_as_long_as_it_takes_some(welcome: Welcome, keep_alive: bool) -> None:
    connection, client = welcome(Settings(keep_alive=7, send_timeout=9))
    answered(connection, client, GET, bytes(2**20), keep_alive)
    assert (connection.state, connection.deadline, connection.interest) == (REPLY, 59.0, poller.WRITE)
    assert connection.holds
    client.recv(2**17)
    connection.expire(60.0)
    assert connection.deadline == 69.0
    with pytest.raises(ClientGone, match="in time in REPLY"):
        connection.expire(70.0)
    while connection.outbox.size:
        client.recv(2**17)
        connection.flush(80.0)
    state, deadline = (IDLE, 87.0) if keep_alive else (LINGER, 80.0 + LINGER_TIME)
    assert (connection.state, connection.deadline, connection.interest) == (state, deadline, poller.READ)


def test_a_flush_that_sends_something_is_progress(welcome: Welcome) -> None:
    connection, client = welcome(Settings(send_timeout=9))
    answered(connection, client, GET, bytes(2**21))
    connection.flush(60.0)  # there was no room
    assert connection.deadline == 59.0
    client.recv(2**20)
    connection.flush(61.0)
    assert (connection.state, connection.deadline) == (REPLY, 70.0)


def test_what_was_refused_is_not_kept(welcome: Welcome) -> None:
    connection, client = welcome(Settings(reload=True))
    send(connection, client, post(10) + b"12345")
    assert connection.held
    connection.refuse(408, "", 0.0)
    assert (connection.held, connection.unparsed) == (0, b"")


def test_a_close_is_the_end_though_a_child_holds_the_socket(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    held = os.dup(connection.fd)
    connection.close()
    client.settimeout(5)
    assert (client.recv(1), connection.state) == (b"", CLOSED)
    os.close(held)


# How it ends


@pytest.mark.parametrize(
    ("line", "behind", "keep_alive", "state"),
    [
        ("keep-alive", b"", True, IDLE),
        ("keep-alive", b"", False, LINGER),  # its next request may be on its way
        ("close", b"", False, CLOSED),
        ("close", b"GET", False, LINGER),
    ],
    ids=["it stays", "it did not ask for the close", "it did", "it did, and sent more"],
)
def test_a_close_lingers_where_the_client_may_be_sending(
    welcome: Welcome, line: str, behind: bytes, keep_alive: bool, state: State
) -> None:
    connection, client = welcome(Settings())
    send(connection, client, f"GET / HTTP/1.1\r\nHost: h\r\nConnection: {line}\r\n\r\n".encode() + behind)
    connection.take_up()
    connection.finish(keep_alive, 0.0)
    assert connection.state is state


def test_a_close_lingers_over_what_has_not_been_read(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    send(connection, client, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    client.sendall(b"x")
    connection.take_up()
    connection.finish(False, 0.0)
    assert connection.state is LINGER


def test_a_refusal_lingers_even_where_the_client_has_asked_for_the_close(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    send(connection, client, post(10)[:-2] + b"Connection: close\r\n\r\n")
    connection.refuse(408, "", 0.0)
    assert connection.state is LINGER


def test_who_lingers_may_send_so_much_and_no_more(welcome: Welcome) -> None:
    connection, client = welcome(Settings())
    send(connection, client, post(10))
    connection.refuse(408, "", 0.0)
    for _ in range(LINGER_BYTES // 65536):
        send(connection, client, b"x" * 65536)
    assert not connection.receive(0.0)
    client.sendall(b"x")
    with pytest.raises(ClientGone):
        connection.receive(0.0)


@pytest.mark.parametrize("bounded", [True, False])
def test_only_a_reply_that_does_not_tell_its_end_can_be_cut_unseen(welcome: Welcome, bounded: bool) -> None:
    connection, client = welcome(Settings())
    send(connection, client, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    connection.take_up()
    connection.outbox.send(b"x" * 8_000_000)
    assert not connection.is_cut  # the application's still
    connection.finish(False, 0.0, bounded=bounded)
    assert connection.is_cut is not bounded


# Left alone for a while


def test_a_request_that_is_kept_travels_as_before_or_goes_on_here_with_time_of_its_own(welcome: Welcome) -> None:
    connection, client = welcome(Settings(recv_timeout=10))
    send(connection, client, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    before = connection.parcel()
    connection.rest()
    assert (connection.state, connection.interest, connection.parcel()) == (KEPT, 0, before)
    connection.expire(100.0)
    assert connection.wake(100.0)
    assert (connection.state, connection.deadline) == (APP, 110.0)
    assert connection.interest


def test_who_rests_between_requests_has_none_when_it_goes_on(welcome: Welcome) -> None:
    connection, _ = welcome(Settings(recv_timeout=10))
    connection.rest()
    assert not connection.wake(100.0)
    assert (connection.state, connection.deadline) == (State.HEAD, 110.0)
