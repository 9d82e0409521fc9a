"""The body of a request on its way: where its bytes go, and until when more must have come."""

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicorn.config.settings import Settings
from minicorn.errors import ProtocolError
from minicorn.http.request import Framing, Request
from minicorn.serving.upload import MEMORY_LEAST, MEMORY_MOST, Upload
from minicorn.system import scratch

BEHIND = b"GET / HTTP/1.1\r\n"

Begin = Callable[..., Upload]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins uploads at second 100: of `length` bytes, or chunked without one."""
    begun = []

    def begin(length: int | None = None, **changed: object) -> Upload:
        request = Request("POST", "/", "HTTP/1.1", {})
        request.framing = Framing.CHUNKED if length is None else Framing.LENGTH
        request.content_length = length or 0
        settings = Settings(**{"max_body_size": 0, "recv_timeout": 10.0, "min_body_rate": 0, **changed})  # type: ignore[arg-type]
        begun.append(Upload(request, settings, 100.0))
        return begun[-1]

    yield begin
    for upload in begun:
        upload.close()


def files() -> int:
    return len(os.listdir("/dev/fd"))


def fill_up_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LEFT_PART", 1)
    monkeypatch.setattr(scratch, "LEFT_MOST", 2**62)


# Where it goes


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("length", "sent", "content"),
    [(30, b"0123456789" * 3, b"0123456789" * 3), (None, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde")],
    ids=["length", "chunked"],
)
def test_it_is_handed_over_from_its_beginning_with_what_came_behind(
    begin: Begin, length: int | None, sent: bytes, content: bytes, step: int
) -> None:
    upload = begin(length)
    at = 0
    while not upload.take(sent[at : at + step]):
        at += step
        assert at < len(sent)
    body, size, behind = upload.hand_over()
    assert (body.read(), size, behind) == (content, len(content), b"")


def test_what_comes_behind_it_is_not_part_of_it(begin: Begin) -> None:
    for length, sent in ((3, b"abc"), (None, b"3\r\nabc\r\n0\r\n\r\n")):
        upload = begin(length)
        assert upload.take(sent + BEHIND)
        body, size, behind = upload.hand_over()
        assert (body.read(), size, behind) == (b"abc", 3, BEHIND)


@pytest.mark.parametrize(("size", "spilt"), [(MEMORY_MOST, 0), (MEMORY_MOST + 1, 1)])
@pytest.mark.parametrize("pieces", [1, 4])
def test_one_larger_than_memory_has_for_it_goes_to_a_file(begin: Begin, size: int, spilt: int, pieces: int) -> None:
    before, content = files(), os.urandom(size)
    upload, step = begin(size), size // pieces + 1
    for at in range(0, size, step):
        upload.take(content[at : at + step])
    assert files() == before + spilt
    assert upload.held == (0 if spilt else size)
    body, length, _ = upload.hand_over()
    assert (body.read(), length) == (content, size)
    body.close()
    assert files() == before


@pytest.mark.parametrize(("size", "spilt"), [(MEMORY_LEAST - 1, False), (MEMORY_LEAST, True)])
def test_where_memory_is_short_a_large_one_goes_to_a_file_once(begin: Begin, size: int, spilt: bool) -> None:
    before, content = files(), os.urandom(size + 10)
    upload = begin(size + 10)
    upload.take(content[:size])
    assert upload.spill() is spilt
    assert not upload.spill()
    assert (files() - before, upload.held) == ((1, 0) if spilt else (0, size))
    assert upload.take(content[size:])
    body, length, _ = upload.hand_over()
    assert (body.read(), length) == (content, size + 10)


def test_what_is_held_is_in_memory_and_the_decoders_as_well(begin: Begin) -> None:
    upload = begin()
    upload.take(b"5\r\nhello\r\n1234")
    assert upload.held == len(b"hello" + b"1234")


def test_without_room_on_disk_it_is_told_503(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_up_the_disk(monkeypatch)
    upload = begin(MEMORY_MOST + 2)
    assert not upload.take(b"x" * MEMORY_MOST)
    with pytest.raises(ProtocolError, match="503"):
        upload.take(b"x")


def test_one_in_a_file_leaves_the_last_of_the_disk_as_well(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begin(MEMORY_MOST + 2)
    assert not upload.take(b"x" * (MEMORY_MOST + 1))
    fill_up_the_disk(monkeypatch)
    with pytest.raises(ProtocolError, match="503"):
        upload.take(b"x")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file takes more than a small part beyond what goes into one at first, as on a disk that others fill."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_MOST + 2, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("last", [True, False])
def test_one_whose_file_cannot_grow_is_told_503_and_forgotten(begin: Begin, small_files: None, last: bool) -> None:
    before = files()
    upload = begin(MEMORY_MOST + (100 if last else 100_000))
    assert not upload.take(b"x" * MEMORY_MOST)
    with pytest.raises(ProtocolError, match="503"):
        for _ in range(1000):
            upload.take(b"x" * 100)
    upload.close()
    assert files() == before


def test_without_a_directory_for_files_it_is_told_503(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scratch, "directory", lambda: str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ProtocolError, match="503"):
        begin(MEMORY_MOST + 2).take(b"x" * (MEMORY_MOST + 1))


def test_where_memory_is_short_and_the_disk_is_full_it_stays_where_it_is(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_up_the_disk(monkeypatch)
    upload = begin(MEMORY_LEAST + 1)
    upload.take(b"x" * MEMORY_LEAST)
    assert not upload.spill()
    assert upload.take(b"y")
    assert upload.hand_over()[0].read() == b"x" * MEMORY_LEAST + b"y"


def test_one_that_is_forgotten_leaves_no_file(begin: Begin) -> None:
    before = files()
    upload = begin(MEMORY_MOST + 2)
    upload.take(b"x" * (MEMORY_MOST + 1))
    upload.close()
    assert files() == before


# How large it may be


def test_one_that_is_announced_as_too_large_is_413_before_it_comes(begin: Begin) -> None:
    with pytest.raises(ProtocolError, match="413"):
        begin(11, max_body_size=10)
    assert begin(10, max_body_size=10).take(b"x" * 10)


def test_one_that_grows_too_large_is_413(begin: Begin) -> None:
    upload = begin(max_body_size=10)
    upload.take(b"a\r\n0123456789\r\n")
    with pytest.raises(ProtocolError, match="413"):
        upload.take(b"1\r\n")


# How long it may take


def test_each_wait_has_its_patience(begin: Begin) -> None:
    upload = begin(1000)
    assert upload.due(100) == 110
    upload.take(b"x")
    assert upload.due(500) == 510


def test_the_whole_of_it_has_the_least_rate(begin: Begin) -> None:
    upload = begin(1000, min_body_rate=20)
    assert upload.due(100) == 110
    upload.take(b"x" * 100)
    assert upload.due(101) == 111  # no more patience than with any wait
    assert upload.due(109) == 115
    upload.take(b"x" * 100)
    assert upload.due(119) == 120


def test_its_framing_counts_as_having_come(begin: Begin) -> None:
    upload = begin(min_body_rate=20)
    upload.take(b"1\r\nx\r\n" * 10)
    assert upload.due(109) == 100 + 10 + 60 / 20
