"""Whatever we accept, h11 and httptools must frame the same way; `parsers.DIFFERENCES` lists what does not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsers import BITS, CORPUS, DIFFERENCES, Difference, judge, mutated, ours


@pytest.mark.parametrize("data", CORPUS, ids=ascii)
def test_each_message_of_the_corpus_is_accepted(data: bytes) -> None:
    message = ours(data)
    assert message is not None and message.size == len(data)
    assert list(judge(data)) == []


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda item: f"{item.who.__name__}: {item.reason[:40]}")
def test_each_listed_difference_is_one(difference: Difference) -> None:
    """A reason that no longer has its case has to go from the list."""
    message = ours(difference.example)
    assert message is not None and difference.applies(message, difference.example)
    theirs = difference.who(difference.example, message.size)
    assert theirs != message
    assert theirs is None or difference.otherwise


def compare(seed: int, count: int) -> int:
    """Judge so many messages; how many of them we accept."""
    chance = random.Random(seed)
    accepted = 0
    for _ in range(count):
        data = mutated(chance)
        assert list(judge(data)) == []
        accepted += ours(data) is not None
    return accepted


def test_what_we_accept_of_mutated_messages_others_frame_alike() -> None:
    assert compare(6, 40_000) > 3000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_we_accept_of_many_mutated_messages_others_frame_alike(seed: int) -> None:
    assert compare(100 + seed, 200_000) > 10_000


PIECES = st.one_of(st.sampled_from(BITS), st.sampled_from(CORPUS), st.binary(max_size=4))


@settings(max_examples=150)
@given(st.sampled_from(CORPUS), st.lists(st.tuples(st.integers(0, 120), st.integers(0, 6), PIECES), max_size=4))
def test_whatever_is_put_where_others_frame_alike_what_we_accept(
    data: bytes, wounds: list[tuple[int, int, bytes]]
) -> None:
    for position, length, piece in wounds:
        data = data[:position] + piece + data[position + length :]
    assert list(judge(data)) == []


_NAMES = st.sampled_from(["Content-Length", "Transfer-Encoding", "Host", "content-length", "X", "Content_Length", "TE"])
_VALUES = st.sampled_from(
    ["5", "05", "+5", "5, 5", "chunked", "Chunked", "gzip, chunked", "chunked, ", "", " 5\t", "0x5"]
)


@settings(max_examples=150)
@given(
    st.sampled_from(["GET / HTTP/1.1", "POST /x HTTP/1.0", "PUT http://h HTTP/1.1"]),
    st.lists(st.tuples(_NAMES, st.sampled_from([":", ": ", " :", ":\t"]), _VALUES), max_size=4),
    st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"]),
)
def test_however_framing_fields_meet_others_frame_alike_what_we_accept(
    start: str, fields: list[tuple[str, str, str]], behind: bytes
) -> None:
    lines = [start, "Host: h", *("".join(field) for field in fields), "", ""]
    assert list(judge("\r\n".join(lines).encode() + behind)) == []
