"""Bodies of requests. Each is split at every byte, and gives the same content."""

from itertools import pairwise

import pytest
from costs import FACTOR, growth
from hypothesis import given, settings
from hypothesis import strategies as st

from minicorn.errors import ProtocolError
from minicorn.http import grammar
from minicorn.http.body import ChunkedDecoder, Decoder, LengthDecoder, decoder_for
from minicorn.http.request import Framing, Request

BEHIND = b"GET / HTTP/1.1\r\n"


def feed(decoder: Decoder, *pieces: bytes) -> tuple[bytes, bytes]:
    """The content of the body in `pieces`, and the bytes behind it; the decoder must be done."""
    content = b""
    for number, piece in enumerate(pieces):
        content += decoder.feed(piece)
        if decoder.done:
            return content, decoder.rest + b"".join(pieces[number + 1 :])
    pytest.fail(f"not done after {b''.join(pieces)!r}")


def singles(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def chunked_content(wire: bytes, limit: int = 0) -> bytes:
    """The content of the chunked body `wire`, however it is cut, and whatever comes behind it."""
    content, rest = feed(ChunkedDecoder(limit), wire)
    assert rest == b""
    assert feed(ChunkedDecoder(limit), wire + BEHIND) == (content, BEHIND)
    assert feed(ChunkedDecoder(limit), *singles(wire + BEHIND)) == (content, BEHIND)
    for cut in range(len(wire)):
        assert feed(ChunkedDecoder(limit), wire[:cut], wire[cut:]) == (content, b"")
    return content


def refused(wire: bytes, limit: int = 0) -> int:
    """The status that refuses `wire`, however it is cut."""
    statuses = []
    for pieces in [[wire], singles(wire), *([wire[:cut], wire[cut:]] for cut in range(1, len(wire)))]:
        with pytest.raises(ProtocolError) as caught:
            feed(ChunkedDecoder(limit), *pieces)
        statuses.append(caught.value.status)
    assert len(set(statuses)) == 1
    return statuses[0]


def labels(value: object) -> str | None:
    return ascii(value)[:60] if isinstance(value, bytes) else None


# Of a known length


@pytest.mark.parametrize("content", [b"x", b"hello", b"\r\n\r\n\0\xff"], ids=labels)
def test_a_body_of_known_length_ends_there_and_leaves_the_rest(content: bytes) -> None:
    wire = content + BEHIND
    assert feed(LengthDecoder(len(content)), *singles(wire)) == (content, BEHIND)
    for cut in range(len(wire) + 1):
        assert feed(LengthDecoder(len(content)), wire[:cut], wire[cut:]) == (content, BEHIND)


def test_a_body_is_not_done_before_its_last_byte() -> None:
    decoder = LengthDecoder(3)
    assert (decoder.feed(b"ab"), decoder.done, decoder.rest) == (b"ab", False, b"")
    assert (decoder.feed(b"c"), decoder.done, decoder.rest) == (b"c", True, b"")


# Chunked


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n", b"hello world"),
        (b"00005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"10\r\n0123456789abcdef\r\n0\r\n\r\n", b"0123456789abcdef"),
        (b"5\r\n\r\n0\r\n\r\n0\r\n\r\n", b"\r\n0\r\n"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    ],
    ids=labels,
)
def test_chunks_are_joined(wire: bytes, content: bytes) -> None:
    assert chunked_content(wire) == content


@pytest.mark.parametrize(
    "extension",
    [b";a", b";a=b", b';a="b; c"', b" ; a = b", b"\t;a;b;c=d", b';a="\\"\xe9"', b';a="\t !\\\t"'],
    ids=labels,
)
def test_chunk_extensions_are_ignored(extension: bytes) -> None:
    wire = b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n"
    assert chunked_content(wire) == b"hello"


@pytest.mark.parametrize(
    "trailers",
    [b"X: y\r\n", b"X:\r\n", b"X: \xe9\t\r\nY: z\r\n", b"Content-Length: 99\r\nTransfer-Encoding: gzip\r\n"],
    ids=labels,
)
def test_trailers_are_ignored(trailers: bytes) -> None:
    assert chunked_content(b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n") == b"hello"


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"52\nhello\r\n0\r\n\r\n",  # nor is what stands before it the end of a line
        b"5\r\nhello\r\n\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"\n5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\nY: z\r\n\r\n",
        b"0\r\nX: y\r\n\n",
    ],
    ids=labels,
)
def test_a_bare_line_feed_in_a_chunked_body_is_refused(wire: bytes) -> None:
    assert refused(wire) == 400


@pytest.mark.parametrize(
    "wire",
    [
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX: y\r\r\n\r\n",
        b"0\r\n\r\r\n",
    ],
    ids=labels,
)
def test_a_bare_carriage_return_in_a_chunked_body_is_refused(wire: bytes) -> None:
    assert refused(wire) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"g",
        b"hello",
        b"-5",
        b"+5",
        b"0x5",
        b"5h",
        b"1_0",
        b"5 ",
        b" 5",
        b"5\t",
        b"5 5",
        b"5,5",
        b"5.0",
        b";a",
        b"5;",
        b"5;=a",
        b"5;a=",
        b"5;a b",
        b'5;a="b',
        b'5;a="b"c',
        b"5;a ",
        b"5;\xe9",
        b"5;\0",
        b"5;a=\x7f",
        b'5;a="\x7f"',
        b'5;a="\\\x7f"',
        b"5;a\x0bb",
        b"5\xa0",
        b"\x855",
        "٣".encode(),
        b"f" * 16,
        b"0" * 64,
    ],
    ids=labels,
)
def test_a_malformed_chunk_line_is_refused(line: bytes) -> None:
    assert refused(line + b"\r\nhello\r\n0\r\n\r\n") == 400


@pytest.mark.parametrize(
    "wire",
    [b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"4\r\nhello\r\n0\r\n\r\n", b"1\r\nab\r\n0\r\n\r\n"],
    ids=labels,
)
def test_a_chunk_longer_than_its_size_is_refused(wire: bytes) -> None:
    assert refused(wire) == 400


def test_a_chunk_shorter_than_its_size_is_refused() -> None:
    assert refused(b"6\r\nhello\r\n0\r\n\r\n") == 400


@pytest.mark.parametrize(
    "line", [b"X", b"X : y", b" X: y", b"\tfolded", b": y", b"X: \0", b"X: \x7f", b"X y: z", b"\xe9: y"], ids=labels
)
def test_a_malformed_trailer_is_refused(line: bytes) -> None:
    assert refused(b"0\r\n" + line + b"\r\n\r\n") == 400
    assert refused(b"0\r\nA: b\r\n" + line + b"\r\n\r\n") == 400


def test_a_chunked_body_is_not_done_before_its_last_byte() -> None:
    wire = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"
    decoder = ChunkedDecoder(0)
    assert decoder.feed(wire[:-1]) == b"hello"
    assert not decoder.done
    assert decoder.feed(wire[-1:] + BEHIND) == b""
    assert decoder.done
    assert decoder.rest == BEHIND


# Bounds


def test_content_is_given_as_it_comes_and_not_kept() -> None:
    decoder = ChunkedDecoder(0)
    assert decoder.feed(b"100000\r\n" + b"x" * 1000) == b"x" * 1000
    assert decoder.feed(b"y" * 1000) == b"y" * 1000
    assert not decoder.done


def extended(size: int) -> bytes:
    """A chunk line of `size` bytes."""
    return b"1;" + b"e" * (size - 4) + b"\r\n"


def test_a_chunk_line_is_bounded() -> None:
    longest = extended(grammar.MAX_CHUNK_LINE)
    assert feed(ChunkedDecoder(0), longest + b"x\r\n0\r\n\r\n") == (b"x", b"")
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(extended(grammar.MAX_CHUNK_LINE + 1))
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(b"1;" + b"e" * (grammar.MAX_CHUNK_LINE - 2))


def test_a_chunk_line_is_measured_from_its_beginning() -> None:
    wire = b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\ny\r\n0\r\n\r\n"
    assert feed(ChunkedDecoder(0), wire[:1009], wire[1009:]) == (b"x" * 1000 + b"y", b"")
    assert feed(ChunkedDecoder(0), wire[:-3], wire[-3:]) == (b"x" * 1000 + b"y", b"")


def test_all_chunk_extensions_together_are_bounded() -> None:
    one = extended(1003) + b"x\r\n"  # 1,000 bytes of extension
    allowed = grammar.MAX_CHUNK_EXTENSIONS // 1000
    assert feed(ChunkedDecoder(0), one * allowed + b"0\r\n\r\n") == (b"x" * allowed, b"")
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(one * (allowed + 1))
    left = grammar.MAX_CHUNK_EXTENSIONS % 1000
    assert feed(ChunkedDecoder(0), one * allowed + extended(left + 3) + b"x\r\n0\r\n\r\n") == (
        b"x" * (allowed + 1),
        b"",
    )
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(one * allowed + extended(left + 4))


def test_all_trailers_together_are_bounded() -> None:
    line = b"X: " + b"x" * 95 + b"\r\n"
    allowed = grammar.MAX_TRAILERS // len(line)
    assert feed(ChunkedDecoder(0), b"0\r\n" + line * allowed + b"\r\n") == (b"", b"")
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(b"0\r\n" + line * (allowed + 1))
    last = b"X: " + b"x" * (grammar.MAX_TRAILERS % len(line) - 5)
    assert feed(ChunkedDecoder(0), b"0\r\n" + line * allowed + last + b"\r\n\r\n") == (b"", b"")
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(b"0\r\n" + line * allowed + last + b"x\r\n")
    with pytest.raises(ProtocolError, match="400"):
        ChunkedDecoder(0).feed(b"0\r\nX: " + b"x" * grammar.MAX_TRAILERS)


def test_content_of_the_limit_passes_and_one_byte_more_is_413() -> None:
    assert chunked_content(b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", limit=10) == b"helloworld"
    assert refused(b"5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n", limit=10) == 413
    assert refused(b"b\r\nhello world\r\n0\r\n\r\n", limit=10) == 413


def test_a_chunk_beyond_the_limit_is_refused_before_its_content_comes() -> None:
    with pytest.raises(ProtocolError, match="413"):
        ChunkedDecoder(10).feed(b"fffffffffffffff\r\n")


def test_a_limit_of_0_is_none() -> None:
    decoder = ChunkedDecoder(0)
    assert decoder.feed(b"fffffffffffffff\r\nx") == b"x"


# Which decoder


def request(framing: Framing, length: int = 0) -> Request:
    made = Request("POST", "/", "HTTP/1.1", {})
    made.framing, made.content_length = framing, length
    return made


def test_each_framing_has_its_decoder() -> None:
    assert isinstance(decoder_for(request(Framing.LENGTH, 10), 10), LengthDecoder)
    assert isinstance(decoder_for(request(Framing.CHUNKED), 10), ChunkedDecoder)


def test_a_content_length_beyond_the_limit_is_413_before_the_body_is_read() -> None:
    with pytest.raises(ProtocolError, match="413"):
        decoder_for(request(Framing.LENGTH, 11), 10)
    assert decoder_for(request(Framing.LENGTH, 11), 0) is not None


def test_the_limit_reaches_the_chunked_decoder() -> None:
    decoder = decoder_for(request(Framing.CHUNKED), 10)
    assert decoder is not None
    with pytest.raises(ProtocolError, match="413"):
        decoder.feed(b"b\r\n")


# Any content at all

any_case = settings(max_examples=75)
extensions = st.sampled_from([b"", b";a", b" ;a=b", b';x="y"'])
sizes = st.sampled_from([b"%x", b"%X", b"00%x"])
chunks = st.lists(st.tuples(st.binary(min_size=1, max_size=40), extensions, sizes), max_size=8)
trailing = st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nZ:\r\n"])
cuts = st.lists(st.floats(0, 1), max_size=12)


def cut_up(data: bytes, where: list[float]) -> list[bytes]:
    edges = [0, *sorted(int(at * len(data)) for at in where), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@any_case
@given(chunks, trailing, st.binary(max_size=20), cuts)
def test_any_chunking_of_any_content_in_any_pieces_gives_the_content_back(
    blocks: list[tuple[bytes, bytes, bytes]], trailers: bytes, behind: bytes, where: list[float]
) -> None:
    content = b"".join(block for block, _, _ in blocks)
    wire = b"".join(size % len(block) + extension + b"\r\n" + block + b"\r\n" for block, extension, size in blocks)
    wire += b"0\r\n" + trailers + b"\r\n"
    assert feed(ChunkedDecoder(len(content)), *cut_up(wire + behind, where)) == (content, behind)
    assert feed(ChunkedDecoder(0), *singles(wire + behind)) == (content, behind)


@any_case
@given(st.binary(min_size=1), st.binary(), cuts)
def test_any_content_of_known_length_in_any_pieces_comes_back(
    content: bytes, behind: bytes, where: list[float]
) -> None:
    assert feed(LengthDecoder(len(content)), *cut_up(content + behind, where)) == (content, behind)


SEED = b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4)


def result(pieces: list[bytes]) -> tuple[object, ...]:
    """What a decoder makes of `pieces`: content and rest, or its refusal."""
    decoder = ChunkedDecoder(0)
    content = b""
    try:
        for number, piece in enumerate(pieces):
            content += decoder.feed(piece)
            if decoder.done:
                return content, decoder.rest + b"".join(pieces[number + 1 :])
    except ProtocolError as error:
        return (error.status,)
    return content, None


@settings(any_case, max_examples=150)
@given(edits, cuts)
def test_a_mutated_body_means_the_same_however_it_is_cut(
    changes: list[tuple[float, int, bytes]], where: list[float]
) -> None:
    wire = SEED
    for place, cut, put in changes:
        at = int(place * len(wire))
        wire = wire[:at] + put + wire[at + cut :]
    assert result(singles(wire)) == result([wire]) == result(cut_up(wire, where))


# Cost


def many_chunks(size: int) -> bytes:
    return b"1\r\nx\r\n" * (size // 6) + b"0\r\n\r\n"


def test_many_small_chunks_take_linear_time() -> None:
    times_longer = growth(lambda wire: feed(ChunkedDecoder(0), wire), many_chunks, 2**17)
    assert times_longer <= FACTOR


def test_many_small_chunks_in_single_bytes_take_linear_time() -> None:
    times_longer = growth(result, lambda size: singles(many_chunks(size)), 2**14)
    assert times_longer <= FACTOR


def test_one_large_chunk_in_single_bytes_takes_linear_time() -> None:
    def make(size: int) -> list[bytes]:
        return singles(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")

    def work(pieces: list[bytes]) -> None:
        decoder = ChunkedDecoder(0)
        for piece in pieces:
            decoder.feed(piece)
        assert decoder.done

    times_longer = growth(work, make, 2**15)
    assert times_longer <= FACTOR
