"""The queue of connections: what is put into it comes out as it was, or stays with its giver."""

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from minicorn.record import replace
from minicorn.serving.handoff import INPUT_MOST, VERSION, Handoff, Parcel
from minicorn.system import rights

PARCEL = Parcel(2, 7, 12.5, 11.25, "2001:db8::1", "4711", b"GET / HTTP/1.1\r\n")


@pytest.fixture
def queue() -> Iterator[Handoff]:
    made = Handoff()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection's end that is given away, which is non-blocking, and its client's."""
    ours, client = socket.socketpair()
    ours.setblocking(False)
    with ours, client:
        client.settimeout(5)
        yield ours, client


Pair = tuple[socket.socket, socket.socket]


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, INPUT_MOST, INPUT_MOST + 1, 2**20])
@pytest.mark.parametrize(("peer", "port", "secure"), [("", "", False), ("192.0.2.1", "1", True)])
def test_a_connection_comes_out_as_it_went_in(
    queue: Handoff, pair: Pair, size: int, peer: str, port: str, secure: bool
) -> None:
    ours, client = pair
    parcel = Parcel(255, 2**32 - 1, 1.5, 2.5, peer, port, os.urandom(size), secure)
    before = count_descriptors()
    assert queue.give(ours.fileno(), parcel)
    taken = queue.take()
    assert taken is not None
    sock, came = taken
    assert came == parcel
    assert count_descriptors() == before + 1  # the file that held what was long is gone
    with sock:
        assert not sock.getblocking()
        sock.sendall(b"here")
    assert client.recv(10) == b"here"
    assert queue.take() is None


def test_who_has_waited_longest_comes_first_and_those_the_queue_refuses_stay(queue: Handoff, pair: Pair) -> None:
    ours, _ = pair
    count = 0
    while queue.give(ours.fileno(), replace(PARCEL, served=count, input=bytes(1000))):
        count += 1
    assert count > 1
    for number in range(count):
        taken = queue.take()
        assert taken is not None
        taken[0].close()
        assert taken[1].served == number
    assert queue.take() is None


def test_both_ends_go_by_their_descriptors_to_the_next_image(queue: Handoff, pair: Pair) -> None:
    ours, _ = pair
    giving, taking = queue.ends
    assert queue.fd == taking
    adopted = Handoff((os.dup(giving), os.dup(taking)))
    assert queue.give(ours.fileno(), PARCEL)
    taken = adopted.take()
    assert taken is not None and taken[1] == PARCEL
    taken[0].close()
    adopted.close()
    assert adopted.ends == (-1, -1)


def test_what_the_disk_has_no_room_for_stays_with_its_giver(
    queue: Handoff, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    parcel = replace(PARCEL, input=bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 65536):  # for none, and for a part: that is no error
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            given = queue.give(ours.fileno(), parcel)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (given, queue.take()) == (False, None)


@pytest.mark.parametrize("message", [bytes([VERSION + 1]), bytes([VERSION - 1]) * 100], ids=["short", "long"])
def test_a_message_of_another_version_is_passed_over_with_all_its_descriptors(
    queue: Handoff, pair: Pair, message: bytes
) -> None:
    ours, _ = pair
    giving = socket.socket(fileno=os.dup(queue.ends[0]))
    before = count_descriptors()
    giving.sendmsg([message], rights.pack([ours.fileno(), ours.fileno()]))
    assert queue.give(ours.fileno(), PARCEL)
    taken = queue.take()
    assert taken is not None and taken[1] == PARCEL
    taken[0].close()
    assert count_descriptors() == before
    giving.close()


@pytest.fixture
def few() -> Iterator[int]:
    """So many descriptors are free, and no more."""
    free = 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + free, hard))
    try:
        while len(taken) < 1000:
            taken.append(os.dup(0))
    except OSError:
        pass
    for _ in range(free):
        os.close(taken.pop())
    yield free
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)


def test_without_a_free_descriptor_a_connection_stays_in_the_queue(queue: Handoff, pair: Pair, few: int) -> None:
    ours, _ = pair
    assert queue.give(ours.fileno(), PARCEL)
    filler = os.dup(0)
    with pytest.raises(OSError, match="Too many open files"):
        queue.take()
    os.close(filler)
    taken = queue.take()
    assert taken is not None
    taken[0].close()


def test_a_request_that_has_lost_what_it_said_ends_its_connection(pair: Pair, request: pytest.FixtureRequest) -> None:
    """There was no descriptor for it: its client need not wait for an answer."""
    ours, client = pair
    queue = request.getfixturevalue("queue")
    assert queue.give(ours.fileno(), replace(PARCEL, input=bytes(INPUT_MOST + 1)))
    ours.close()
    request.getfixturevalue("few")
    assert queue.take() is None
    assert client.recv(10) == b""
