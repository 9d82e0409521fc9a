"""The line between the arbiter and a child: what is said arrives as it was, whole and in order."""

import json
from collections.abc import Iterator

import pytest

from minicorn.system import channel
from minicorn.system.channel import Channel, Message

VALUES = ["", "a\nb \u2028 \u00e9", 4711, None, [1, 2, "", ["host"]], {"/a.py": "modified"}, [7, True]]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_values_arrive_as_they_were(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for value in VALUES:
        assert ours.send("word", value)
    assert theirs.receive() == ([Message("word", value) for value in VALUES], True)


def test_a_message_is_a_line_with_its_value_encoded_once(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("order", [1, "it's"])
    data = theirs._socket.recv(100)
    assert data == b"order " + json.dumps([1, "it's"]).encode() + b"\n"


def test_what_json_does_not_know_arrives_as_text(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("record", {"args": ValueError("odd"), "set": (1, 2)})
    assert theirs.wait() == ([Message("record", {"args": "odd", "set": [1, 2]})], True)


def test_a_message_that_is_longer_than_the_line_has_room_for_spoils_no_other(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    said = [Message("long", "x" * 1_000_000), *(Message("short", number) for number in range(20))]
    heard = []
    for message in said:
        assert ours.send(message.word, message.value)
        heard += theirs.receive()[0]
    assert heard == said


def test_what_was_taken_arrives_and_what_was_not_does_not(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    taken = 0
    while ours.send("again", taken):
        taken += 1
    assert theirs.receive()[0] == [Message("again", number) for number in range(taken)]
