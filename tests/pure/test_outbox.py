"""The unsent part of a reply, over a real pair of sockets whose other end reads when it likes."""

import errno
import os
import random
import socket
import ssl
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from minicorn.errors import ClientGone
from minicorn.serving.outbox import FULL, GATHERED, MEMORY_MOST, Outbox
from minicorn.serving.tls import TlsOutbox, TlsSocket
from minicorn.system import scratch

MIB = 2**20


class Client:
    """The other end: it takes what it is told to take."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.taken = bytearray()

    def take(self, most: int = 2**30) -> int:
        """Read what is there, `most` bytes at most."""
        before = len(self.taken)
        try:
            while len(self.taken) - before < most and (data := self.socket.recv(min(most, 65536))):
                self.taken += data
        except BlockingIOError:
            pass
        return len(self.taken) - before

    def take_all(self, outbox: Outbox) -> bytes:
        """Read until the outbox is empty."""
        while outbox.size:
            taken = self.take()
            assert outbox.flush() or taken, "neither side gets on"
        self.take()
        return bytes(self.taken)


Pair = tuple[Outbox, Client]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        outbox = Outbox(ours)
        yield outbox, Client(theirs)
        outbox.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file of 300,000 known bytes."""
    path = tmp_path / "file"
    path.write_bytes(pattern(300_000, seed=9))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that tell their order."""
    return random.Random(seed).randbytes(size)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def stuff(pair: Pair) -> bytes:
    """Send until the socket takes no more; what was sent."""
    sent = bytearray()
    while not pair[0].size:
        pair[0].send(data := pattern(5000, seed=len(sent)))
        sent += data
    return bytes(sent)


def test_what_the_socket_takes_is_not_kept(pair: Pair) -> None:
    outbox, client = pair
    outbox.send(b"hello")
    outbox.send(memoryview(b" world"))
    assert outbox.size == 0
    assert not outbox._queue
    assert client.take_all(outbox) == b"hello world"


def test_what_the_socket_does_not_take_is_kept_and_sent_later(pair: Pair) -> None:
    outbox, client = pair
    data = pattern(500_000)
    outbox.send(data)
    assert 0 < outbox.size < len(data)
    assert client.take_all(outbox) == data


def test_behind_what_is_kept_everything_waits_its_turn(pair: Pair) -> None:
    outbox, client = pair
    sent = stuff(pair)
    client.take(3000)
    outbox.send(b"after")
    assert outbox.size >= len(b"after")
    assert client.take_all(outbox) == sent + b"after"


def test_size_is_what_is_unsent(pair: Pair) -> None:
    outbox, client = pair
    total = len(stuff(pair))
    outbox.send(pattern(2 * MIB))
    total += 2 * MIB
    while outbox.size:
        client.take()
        outbox.flush()
        assert outbox.size <= total - len(client.taken)
    client.take()
    assert len(client.taken) == total


def test_flush_tells_whether_anything_went(pair: Pair) -> None:
    outbox, client = pair
    assert not outbox.flush()
    stuff(pair)
    while outbox.flush():
        pass
    assert not outbox.flush()
    client.take()
    assert outbox.flush()


def test_no_bytes_are_no_send(pair: Pair) -> None:
    outbox, client = pair
    outbox.send(b"")
    sent = stuff(pair)
    outbox.send(b"")
    assert client.take_all(outbox) == sent


# Memory and disk


def test_beyond_a_mebibyte_it_lies_on_disk(pair: Pair) -> None:
    outbox, client = pair
    random_bytes = pattern(MIB // 4)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(32):
            outbox.send(random_bytes[number:] + random_bytes[:number])
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outbox.size > 7 * MIB
    assert now - before < 2 * MEMORY_MOST
    expected = b"".join(random_bytes[number:] + random_bytes[:number] for number in range(32))
    assert client.take_all(outbox) == expected


def test_small_blocks_are_sent_together_and_take_no_more_memory_than_their_bytes() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)  # each send is a message of its own
    with ours, theirs:
        ours.setblocking(False)
        outbox = Outbox(ours)
        alone = 0
        while not outbox.size:
            outbox.send(bytes(1000))
            alone += 1
        tracemalloc.start()
        try:
            for number in range(100_000):
                outbox.send(number.to_bytes(5, "big"))
            assert tracemalloc.get_traced_memory()[0] < 2 * outbox.size
        finally:
            tracemalloc.stop()
        came = []
        while outbox.size:
            came.append(theirs.recv(MIB))
            outbox.flush()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                came.append(theirs.recv(MIB))
        assert b"".join(came)[alone * 1000 :] == b"".join(number.to_bytes(5, "big") for number in range(100_000))
        assert len(came) - alone < 20
        outbox.close()


def test_small_blocks_beyond_a_mebibyte_lie_on_disk_too(pair: Pair) -> None:
    outbox, client = pair
    expected = stuff(pair)
    for number in range(3000):
        outbox.send(data := pattern(1000, seed=number))
        expected += data
        assert outbox.memory <= MEMORY_MOST + GATHERED
    assert outbox.size > outbox.memory > MEMORY_MOST - 2 * GATHERED
    assert client.take_all(outbox) == expected
    assert outbox.memory == 0


def test_small_blocks_are_written_together(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, client = pair
    monkeypatch.setattr(os, "pwrite", write := mock.Mock(wraps=os.pwrite))
    blocks = [pattern(MEMORY_MOST), *[pattern(1000, seed) for seed in range(500)]]
    for block in blocks:
        outbox.send(block)
    assert 0 < write.call_count <= 500_000 / GATHERED
    assert client.take_all(outbox) == b"".join(blocks)


def test_what_is_written_in_part_is_sent_from_memory(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, client = pair
    data, write = pattern(2 * MIB), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, piece, at: write(fd, piece[:1000], at))
    outbox.send(data)
    assert outbox.memory == outbox.size
    monkeypatch.undo()
    outbox.send(data[::-1])
    assert outbox.size - outbox.memory == len(data)
    assert client.take_all(outbox) == data + data[::-1]


def test_an_emptied_outbox_holds_no_file(pair: Pair) -> None:
    outbox, client = pair
    before = descriptors()
    for _ in range(2):
        outbox.send(pattern(3 * MIB))
        assert descriptors() == before + 1
        client.take_all(outbox)
        assert descriptors() == before


def test_each_file_is_closed_when_it_has_been_read(pair: Pair) -> None:
    outbox, client = pair
    before = descriptors()
    for _ in range(4):
        outbox.send(pattern(3 * MIB))
    assert descriptors() == before + 2  # each has been written to until it was larger than SPOOL_MOST
    while outbox.size > 6 * MIB:
        client.take()
        outbox.flush()
    assert descriptors() == before + 1
    client.take_all(outbox)
    assert bytes(client.taken) == pattern(3 * MIB) * 4


def test_without_room_on_disk_it_stays_in_memory(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, client = pair
    monkeypatch.setattr(scratch, "directory", lambda: str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    data = pattern(3 * MIB)
    outbox.send(data)
    outbox.send(b"after")
    assert client.take_all(outbox) == data + b"after"


def test_the_last_of_the_disk_is_left_to_others(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, client = pair
    monkeypatch.setattr(scratch, "LEFT_PART", 1)
    monkeypatch.setattr(scratch, "LEFT_MOST", 2**62)
    data = pattern(3 * MIB)
    outbox.send(data)
    assert outbox.memory == outbox.size
    monkeypatch.undo()
    outbox.send(data)
    assert outbox.size - outbox.memory == len(data)
    assert client.take_all(outbox) == data * 2


def test_it_is_full_at_its_bound_and_not_when_it_has_been_read(pair: Pair) -> None:
    outbox, client = pair
    piece = pattern(MIB)
    pieces = 0
    while not outbox.full:
        assert outbox.size < FULL
        outbox.send(piece)
        pieces += 1
    assert FULL <= outbox.size < FULL + MIB
    while outbox.full:
        client.take()
        outbox.flush()
    assert client.take_all(outbox) == piece * pieces


# Files


def test_a_span_of_a_file_is_sent(pair: Pair, file: int) -> None:
    outbox, client = pair
    outbox.send_file(file, 1000, 250_000)
    assert client.take_all(outbox) == pattern(300_000, seed=9)[1000:251_000]


def test_the_caller_may_close_its_file_at_once(pair: Pair, tmp_path: Path) -> None:
    outbox, client = pair
    before = descriptors()
    with (tmp_path / "other").open("w+b") as file:
        file.write(pattern(200_000))
        file.flush()
        outbox.send_file(file.fileno(), 0, 200_000)
    assert client.take_all(outbox) == pattern(200_000)
    assert descriptors() == before


def test_the_position_of_the_file_is_not_moved(pair: Pair, file: int) -> None:
    outbox, client = pair
    os.lseek(file, 77, os.SEEK_SET)
    outbox.send_file(file, 0, 200_000)
    client.take_all(outbox)
    assert os.lseek(file, 0, os.SEEK_CUR) == 77


def test_head_file_and_what_follows_keep_their_order(pair: Pair, file: int) -> None:
    outbox, client = pair
    content = pattern(300_000, seed=9)
    sent = stuff(pair)
    outbox.send(b"head")
    outbox.send_file(file, 0, 300_000)
    outbox.send(b"between")
    outbox.send_file(file, 5, 10)
    outbox.send(pattern(2 * MIB))  # to disk
    outbox.send(b"in memory")
    outbox.send(pattern(2 * MIB, seed=2))  # to disk, behind
    outbox.send_file(file, 299_999, 1)
    outbox.send(b"end")
    expected = [sent, b"head", content, b"between", content[5:15], pattern(2 * MIB), b"in memory"]
    expected += [pattern(2 * MIB, seed=2), content[-1:], b"end"]
    assert client.take_all(outbox) == b"".join(expected)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_sent_and_read_in_whatever_turn_the_order_is_kept(seed: int, pair: Pair, file: int) -> None:
    outbox, client = pair
    content = pattern(300_000, seed=9)
    rng = random.Random(seed)
    expected = bytearray()
    for number in range(60):
        turn = rng.randrange(5)
        if turn == 0:
            data = pattern(rng.choice([1, 100, 5000, 70_000, 700_000]), seed=number)
            outbox.send(data)
            expected += data
        elif turn == 1:
            offset, count = rng.randrange(200_000), rng.choice([1, 300, 60_000, 100_000])
            outbox.send_file(file, offset, count)
            expected += content[offset : offset + count]
        elif turn == 2:
            client.take(rng.choice([1, 1000, 100_000]))
        elif turn == 3:
            outbox.flush()
        else:
            data = pattern(rng.randrange(1, 3000), seed=number)
            outbox.send(memoryview(data))
            expected += data
    assert client.take_all(outbox) == expected


def without_sendfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some file systems."""
    monkeypatch.setattr(os, "sendfile", mock.Mock(side_effect=OSError(errno.EINVAL, os.strerror(errno.EINVAL))))


@pytest.mark.parametrize("read", [False, True], ids=["sent", "read"])
def test_a_file_that_was_cut_short_ends_the_reply(
    read: bool, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if read:
        without_sendfile(monkeypatch)
    outbox, client = pair
    path = tmp_path / "shrinking"
    path.write_bytes(pattern(200_000))
    with path.open("r+b") as file:
        outbox.send_file(file.fileno(), 0, 200_000)
        file.truncate(100_000)
    with pytest.raises(ClientGone, match="cut short"):
        client.take_all(outbox)


def test_a_file_of_a_file_system_without_sendfile_is_read(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_sendfile(monkeypatch)
    outbox, client = pair
    path = tmp_path / "file"
    path.write_bytes(pattern(200_000))
    with path.open("rb") as file:
        outbox.send(b"head")
        outbox.send_file(file.fileno(), 5, 199_990)
    outbox.send(b"tail")
    assert client.take_all(outbox) == b"head" + pattern(200_000)[5:199_995] + b"tail"


def test_a_file_that_cannot_be_read_under_tls_ends_the_reply(tmp_path: Path) -> None:
    path = tmp_path / "unreadable"
    path.write_bytes(b"x")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    ours, theirs = socket.socketpair()
    with theirs, path.open("ab") as file, context.wrap_socket(ours, True, do_handshake_on_connect=False) as secure:
        assert isinstance(secure, TlsSocket)
        outbox = TlsOutbox(secure)
        with pytest.raises(ClientGone):
            outbox.send_file(file.fileno(), 0, 1)
        outbox.close()


# The end


def test_a_client_that_has_closed_is_gone_for_send(pair: Pair) -> None:
    outbox, client = pair
    client.socket.close()
    with pytest.raises(ClientGone):
        outbox.send(b"x")


def test_a_client_that_has_closed_is_gone_for_flush(pair: Pair) -> None:
    outbox, client = pair
    stuff(pair)
    client.socket.close()
    with pytest.raises(ClientGone):
        outbox.flush()


def test_a_client_that_has_closed_is_gone_for_a_file(pair: Pair, file: int) -> None:
    outbox, client = pair
    client.socket.close()
    with pytest.raises(ClientGone):
        outbox.send_file(file, 0, 1000)


def test_a_closed_outbox_holds_nothing(pair: Pair, file: int) -> None:
    outbox, _ = pair
    before = descriptors()
    outbox.send(pattern(3 * MIB))
    outbox.send_file(file, 0, 1000)
    outbox.send_file(file, 0, 1000)
    assert descriptors() == before + 3
    outbox.close()
    assert descriptors() == before
    assert outbox.size == 0
    assert not outbox.full
    assert not outbox.flush()
    outbox.close()
    assert descriptors() == before
