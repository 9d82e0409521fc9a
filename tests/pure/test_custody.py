"""All connections of a loop at once, as its stance changes: a real loop, a listener and clients, and one thread."""

import socket
import time
from collections.abc import Iterator

import pytest

from minicorn.config.settings import Settings
from minicorn.serving.connection import Connection
from minicorn.serving.custody import Custody
from minicorn.serving.handoff import Handoff
from minicorn.serving.loop import Loop
from minicorn.serving.reception import Reception
from minicorn.serving.seat import Seat
from minicorn.serving.stance import CLOSING, HOLDING, LEAVING, SERVING
from minicorn.serving.state import APP, BODY, HEAD, IDLE, KEPT, REPLY
from minicorn.system import poller
from minicorn.system.listeners import Listener

ASKED = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HALF_HEAD = ASKED[:-2]
HALF_BODY = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo"
SETTINGS = Settings(reload=True, recv_timeout=20.0, keep_alive=60.0)


class House:
    """A loop with custody of its clients; `asked` are the connections whose requests it was to answer."""

    def __init__(self) -> None:
        self.listener = Listener(socket.create_server(("127.0.0.1", 0)))
        reception = Reception(SETTINGS)
        reception.expect(self.listener, {})
        self.handoff = Handoff()
        self.loop = Loop(SETTINGS, reception, Seat(handoff=self.handoff))
        self.loop.listen([self.listener])
        self.custody = Custody(self.loop, SETTINGS)
        self.asked: list[Connection] = []
        self.clients: list[socket.socket] = []

    def knock(self, said: bytes) -> socket.socket:
        """A client that has come, and said this."""
        client = socket.create_connection(("127.0.0.1", self.listener.port), 5)
        self.clients.append(client)
        client.sendall(said)
        return client

    def admit(self, said: bytes) -> tuple[Connection, socket.socket]:
        """A client that was let in, with all that it has said."""
        known, client = len(self.loop.connections), self.knock(said)
        while len(self.loop.connections) == known or (said and not list(self.loop.connections.values())[-1].received):
            self.turn()
        return list(self.loop.connections.values())[-1], client

    def between_requests(self) -> tuple[Connection, socket.socket]:
        connection, client = self.admit(ASKED)
        connection.take_up()
        self.loop.finish(connection, True, True, time.monotonic())
        assert connection.state is IDLE
        return connection, client

    def kept(self) -> tuple[Connection, socket.socket]:
        connection, client = self.admit(ASKED)
        self.custody.keep(connection)
        assert connection.state is KEPT
        return connection, client

    def turn(self) -> None:
        self.loop.step(0, self.asked.append)

    def has(self, connection: Connection) -> bool:
        return connection in self.loop.connections.values()

    def given(self) -> int:
        """How many have gone into the queue."""
        count = 0
        while (taken := self.handoff.take()) is not None:
            taken[0].close()
            count += 1
        return count

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.loop.close()
        self.listener.close()
        self.handoff.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def test_no_stance_is_taken_twice_nor_behind_one_that_is_final(house: House) -> None:
    custody = house.custody
    assert not custody.go_on()
    assert custody.hold() and not custody.hold()
    assert custody.go_on() and not custody.go_on()
    assert custody.leave() and not custody.leave()
    assert not custody.hold() and not custody.go_on()
    assert house.loop.stance is LEAVING
    assert custody.seal() and not custody.seal()
    assert not (custody.hold() or custody.go_on() or custody.leave())
    assert house.loop.stance is CLOSING


@pytest.mark.parametrize("name", ["leave", "seal"])
def test_a_hold_ends_with_each_other_stance(house: House, name: str) -> None:
    house.custody.hold()
    assert getattr(house.custody, name)()


def test_a_hold_takes_and_reads_nothing_but_what_has_begun_and_going_on_answers_all(house: House) -> None:
    idle, idle_client = house.between_requests()
    head, head_client = house.admit(HALF_HEAD)
    body, body_client = house.admit(HALF_BODY)
    kept, _ = house.kept()
    assert house.custody.hold()
    assert house.loop.stance is HOLDING
    for client, rest in ((idle_client, ASKED), (head_client, b"\r\n"), (body_client, b"dy")):
        client.sendall(rest)
    house.knock(ASKED)
    house.asked.clear()
    house.turn()
    assert house.asked == [body]
    assert (idle.state, head.state, kept.state) == (IDLE, HEAD, KEPT)
    assert len(house.loop.connections) == 4
    assert house.custody.go_on()
    assert house.loop.stance is SERVING
    for _ in range(2):
        house.turn()
    assert set(house.asked[1:]) == {idle, head, kept, list(house.loop.connections.values())[-1]}
    assert len(house.asked) == len(house.loop.connections) == 5


def test_who_is_woken_has_time_to_speak(house: House) -> None:
    head, _ = house.admit(HALF_HEAD)
    house.custody.hold()
    head.deadline = 0.0
    house.custody.go_on()
    assert time.monotonic() + 19 < head.deadline < time.monotonic() + 20
    assert house.loop.deadlines.due(time.monotonic() + 30) == [head]


def test_a_hold_closes_those_between_requests_whom_no_newer_code_can_have(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, _ = house.between_requests()
    monkeypatch.setattr(Connection, "travels", False)
    house.custody.hold()
    assert not house.has(idle)


def test_who_has_not_rested_has_no_more_time_than_before(house: House) -> None:
    head, _ = house.admit(HALF_HEAD)
    replying, client = house.admit(ASKED)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    replying.outbox.send(bytes(2**24))
    house.loop.finish(replying, True, True, time.monotonic())
    assert replying.state is REPLY
    head.deadline = replying.deadline = 1.0
    house.custody.leave()
    assert (head.deadline, replying.deadline, replying.interest) == (1.0, 1.0, poller.WRITE)


def test_what_the_application_has_is_not_woken(house: House) -> None:
    busy, _ = house.admit(ASKED)
    busy.interest = 0  # as in the middle of a reply that is flushed ahead
    house.asked.clear()
    assert house.custody.seal()
    assert (busy.interest, busy.state) == (0, APP)
    assert not house.loop.turns


def test_who_is_kept_and_does_not_wait_is_let_go(house: House) -> None:
    stays, _ = house.kept()
    gone, client = house.kept()
    idle, idle_client = house.between_requests()
    client.close()
    idle_client.close()
    house.custody.dismiss_gone()
    assert (house.has(stays), house.has(gone), house.has(idle)) == (True, False, True)


def test_who_is_held_is_given_away_and_nobody_else_where_nothing_is_held(house: House) -> None:
    house.between_requests()
    house.kept()
    house.custody.give_held()
    assert house.given() == 0
    house.custody.hold()
    house.custody.give_held()
    assert (house.given(), len(house.loop.connections)) == (2, 0)


def test_who_leaves_gives_away_what_can_travel(house: House) -> None:
    house.between_requests()
    busy, _ = house.admit(ASKED)
    busy.take_up()
    house.custody.leave()
    house.custody.give_all()
    assert (house.given(), list(house.loop.connections.values())) == (1, [busy])


def test_only_those_between_requests_are_closed(house: House) -> None:
    idle, _ = house.between_requests()
    head, _ = house.admit(HALF_HEAD)
    body, _ = house.admit(HALF_BODY)
    house.custody.close_idle()
    assert (house.has(idle), house.has(head), house.has(body)) == (False, True, True)
    assert body.state is BODY


def test_between_requests_who_can_travel_stays(house: House) -> None:
    idle, _ = house.between_requests()
    house.custody.end_idle()
    assert house.has(idle)


def test_of_those_nobody_else_can_have_the_idle_go_once_they_are_not_fresh(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = house.between_requests()
    fresh, _ = house.between_requests()
    asks, client = house.between_requests()
    head, _ = house.admit(HALF_HEAD)
    monkeypatch.setattr(Connection, "travels", False)
    now = time.monotonic()
    old.deadline = asks.deadline = now - 7 + SETTINGS.keep_alive  # both were answered 7 seconds ago
    fresh.deadline = now - 3 + SETTINGS.keep_alive
    client.sendall(ASKED)
    house.custody.end_idle(5.0)
    assert [house.has(each) for each in (old, fresh, asks, head)] == [False, True, True, True]
    assert fresh.deadline == pytest.approx(now + 2)
    assert house.loop.deadlines.due(now + 4) == [fresh]


def test_nobody_is_kept_beyond_the_time_between_requests(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    idle, _ = house.between_requests()
    monkeypatch.setattr(Connection, "travels", False)
    deadline = idle.deadline
    house.custody.end_idle(SETTINGS.keep_alive + 5)
    assert idle.deadline == deadline


def test_only_the_silent_are_hastened(house: House) -> None:
    silent, _ = house.admit(b"")
    head, _ = house.admit(HALF_HEAD)
    soon, _ = house.admit(b"")
    now = time.monotonic()
    soon.deadline, told = now + 1, head.deadline
    house.custody.hasten_silent(now + 2)
    assert (silent.deadline, soon.deadline, head.deadline) == (now + 2, now + 1, told)
    assert set(house.loop.deadlines.due(now + 5)) == {silent, soon}
