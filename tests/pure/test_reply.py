"""Heads of replies: how their end is told, whether the connection stays, and what an application may not set."""

import re
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicorn
from minicorn import memo
from minicorn.http import reply
from minicorn.http.body import ChunkedDecoder
from minicorn.http.reply import (
    ApplicationFault,
    Delimiter,
    Head,
    check_fields,
    check_status,
    chunk,
    http_date,
    render_error,
    render_head,
)
from minicorn.http.request import Request

DATE = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
OWN = [("Server", "minicorn"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
CLOSE = ("Connection", "close")


def asked(method: str = "GET", version: str = "HTTP/1.1") -> Request:
    return Request(method, "/", version, {"HTTP_HOST": "h"})


def render(
    headers: list[tuple[str, str]], status: str = "200 OK", known: int = -1, request: Request | None = None
) -> Head:
    return render_head(request or asked(), check_fields(status, headers), known, True, DATE)


def fields(data: bytes) -> list[tuple[str, str]]:
    """The fields of a rendered head, in order; it must be a head and nothing else."""
    assert data.endswith(b"\r\n\r\n")
    _, *lines = data[:-4].decode("latin-1").split("\r\n")
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def values(data: bytes, name: str) -> list[str]:
    return [value for key, value in fields(data) if key.lower() == name]


# Framing and persistence

LENGTH, CHUNKED, NOTHING, UNTIL_CLOSE = Delimiter.LENGTH, Delimiter.CHUNKED, Delimiter.NOTHING, Delimiter.CLOSE


@pytest.mark.parametrize(
    ("method", "version", "status", "given_length", "known", "delimiter", "length", "framing"),
    [
        # 1.1
        ("GET", "1.1", "200 OK", None, 5, LENGTH, 5, ["Content-Length: 5"]),
        ("GET", "1.1", "200 OK", None, 0, LENGTH, 0, ["Content-Length: 0"]),
        ("GET", "1.1", "200 OK", None, -1, CHUNKED, None, ["Transfer-Encoding: chunked"]),
        ("GET", "1.1", "200 OK", "7", -1, LENGTH, 7, ["Content-Length: 7"]),
        ("GET", "1.1", "200 OK", "7", 5, LENGTH, 7, ["Content-Length: 7"]),
        ("GET", "1.1", "200 OK", "0", -1, LENGTH, 0, ["Content-Length: 0"]),
        ("POST", "1.1", "404 Not Found", None, 5, LENGTH, 5, ["Content-Length: 5"]),
        ("GET", "1.1", "500 Oops", None, -1, CHUNKED, None, ["Transfer-Encoding: chunked"]),
        # 1.0 knows no chunks
        ("GET", "1.0", "200 OK", None, 5, LENGTH, 5, ["Content-Length: 5"]),
        ("GET", "1.0", "200 OK", "7", -1, LENGTH, 7, ["Content-Length: 7"]),
        ("GET", "1.0", "200 OK", None, -1, UNTIL_CLOSE, None, []),
        # HEAD has the head that GET would have, and no body
        ("HEAD", "1.1", "200 OK", None, 5, NOTHING, None, ["Content-Length: 5"]),
        ("HEAD", "1.1", "200 OK", "7", -1, NOTHING, None, ["Content-Length: 7"]),
        ("HEAD", "1.1", "200 OK", "7", 5, NOTHING, None, ["Content-Length: 7"]),
        ("HEAD", "1.0", "200 OK", None, -1, NOTHING, None, []),
        # 204 and 304 have none either
        ("GET", "1.1", "204 No Content", None, 5, NOTHING, None, []),
        ("GET", "1.1", "204 No Content", None, -1, NOTHING, None, []),
        ("GET", "1.1", "204 No Content", "7", -1, NOTHING, None, []),
        ("GET", "1.0", "204 No Content", None, -1, NOTHING, None, []),
        ("HEAD", "1.1", "204 No Content", "0", 0, NOTHING, None, []),
        # 205 has none, and says so
        ("GET", "1.1", "205 Reset Content", None, 5, NOTHING, None, ["Content-Length: 0"]),
        ("GET", "1.0", "205 Reset Content", "7", -1, NOTHING, None, ["Content-Length: 0"]),
        ("HEAD", "1.1", "205 Reset Content", None, -1, NOTHING, None, ["Content-Length: 0"]),
        ("GET", "1.1", "304 Not Modified", None, -1, NOTHING, None, []),
        ("GET", "1.1", "304 Not Modified", None, 5, NOTHING, None, []),
        ("GET", "1.1", "304 Not Modified", "7", -1, NOTHING, None, ["Content-Length: 7"]),
    ],
)
def test_the_end_of_a_reply_is_told_in_one_way(
    method: str,
    version: str,
    status: str,
    given_length: str | None,
    known: int,
    delimiter: Delimiter,
    length: int | None,
    framing: list[str],
) -> None:
    headers = [] if given_length is None else [("Content-Length", given_length)]
    head = render(headers, status, known, asked(method, f"HTTP/{version}"))
    assert head.delimiter is delimiter
    assert length is None or head.length == length
    told = [f"{name}: {value}" for name, value in fields(head.data) if name in ("Content-Length", "Transfer-Encoding")]
    assert told == framing
    assert head.data.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert head.data.startswith(f"HTTP/1.1 {status}\r\n".encode())


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", [-1, 0, 5])
@pytest.mark.parametrize(
    ("version", "willing", "line"),
    [("1.1", True, []), ("1.1", False, ["close"]), ("1.0", True, ["keep-alive"]), ("1.0", False, ["close"])],
)
def test_persistence_is_silent_in_1_1_and_named_in_1_0(
    status: str, method: str, known: int, version: str, willing: bool, line: list[str]
) -> None:
    head = render_head(asked(method, f"HTTP/{version}"), check_fields(status, []), known, willing, DATE)
    if head.delimiter is UNTIL_CLOSE:
        willing, line = False, ["close"]
    assert head.keep_alive is willing
    assert values(head.data, "connection") == line


def test_a_reply_that_ends_with_its_connection_closes_it() -> None:
    head = render([], request=asked(version="HTTP/1.0"))
    assert (head.delimiter, head.keep_alive) == (UNTIL_CLOSE, False)
    assert CLOSE in fields(head.data)


# Fields


def test_fields_keep_their_order_and_spelling_and_may_repeat() -> None:
    given_fields = [("X-b", "1"), ("Set-Cookie", "a=1"), ("x-A", ""), ("Set-Cookie", "b=2"), ("X_Y", "\x80\xff\t ")]
    head = render(given_fields, known=5)
    assert fields(head.data) == [*given_fields, *OWN, ("Content-Length", "5")]


def test_latin_1_passes_and_more_than_that_is_refused() -> None:
    assert values(render([("X-A", "caf\xe9")], known=0).data, "x-a") == ["caf\xe9"]
    for bad in ("€", "\u0661", "\ud800"):
        with pytest.raises((ApplicationFault, UnicodeEncodeError)):
            render([("X-A", bad)], known=0)


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_a_date_of_the_application_is_not_doubled(name: str) -> None:
    assert values(render([(name, "then")], known=0).data, "date") == ["then"]


@pytest.mark.parametrize("name", ["Server", "server"])
def test_a_server_of_the_application_is_not_doubled(name: str) -> None:
    assert values(render([(name, "mine")], known=0).data, "server") == ["mine"]


POISON = [
    "\r\nX-Evil: 1",
    "a\r\nX-Evil: 1",
    "a\r\n",
    "\r\n",
    "a\rb",
    "a\nb",
    "a\n",
    "a\r",
    "\n",
    "a\0b",
    "\0",
    "a\r\n\r\nbody",
    "a\x1b[2J",
    "\x0b",
    "a\x7f",
]


@pytest.mark.parametrize("poison", POISON, ids=ascii)
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
@pytest.mark.parametrize(
    "others",
    [
        [],
        [("Content-Length", "0")],
        [("Content-Length", "0"), ("Content-Length", "0")],
        [("Date", "d"), ("Server", "s")],
    ],
    ids=["alone", "with a length", "with two lengths", "with date and server"],
)
def test_a_control_character_in_a_field_value_is_refused(
    poison: str, status: str, others: list[tuple[str, str]]
) -> None:
    for headers in ([*others, ("X-A", poison)], [("X-A", poison), *others], [*others, ("Server", poison)]):
        with pytest.raises(ApplicationFault):
            render(headers, status, 0)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "X A",
        "X:",
        "X: a\r\nY",
        "X\r\n",
        "X\n",
        "X\r",
        "X\0",
        "X-\xe9",
        "X-€",
        "(X)",
        " X",
        "X ",
        5,
        None,
        b"X",
        ["X"],
    ],
    ids=ascii,
)
def test_what_is_no_field_name_is_refused(name: str) -> None:
    with pytest.raises(ApplicationFault):
        render([(name, "value")])


@pytest.mark.parametrize("value", [5, None, b"x", ["x"], 1.5], ids=repr)
def test_a_field_value_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(ApplicationFault, match="X-A"):
        render([("X-A", value)])


HOP_BY_HOP = ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"]


@pytest.mark.parametrize("name", [spelled for name in HOP_BY_HOP for spelled in (name, name.lower(), name.upper())])
def test_a_hop_by_hop_field_is_refused_each_time(name: str) -> None:
    for _ in range(2):
        with pytest.raises(ApplicationFault, match="hop-by-hop"):
            render([(name, "close")])


@pytest.mark.parametrize(
    "value", ["", " ", "+5", "-5", "5 ", " 5", "1_0", "5, 5", "0x5", "five", "٣", "\xb2", "9" * 30]
)
def test_a_content_length_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ApplicationFault):
        render([("Content-Length", value)])


def test_two_content_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ApplicationFault):
        render([("Content-Length", "5"), ("content-length", "6")])
    with pytest.raises(ApplicationFault):
        render([("Content-Length", "0"), ("content-length", "6")])


def test_a_content_length_is_never_sent_twice() -> None:
    # RFC 9110 5.3: no repeated lines of a field that is no list; our own parser refuses such a message
    try:
        head = render([("Content-Length", "5"), ("content-length", "5")])
    except ApplicationFault:
        return
    assert values(head.data, "content-length") == ["5"]


def test_the_memory_of_names_is_bounded_and_names_beyond_it_are_still_judged() -> None:
    names = [f"X-Unheard-{number}" for number in range(2000)]
    assert [name for name, _ in fields(render([(name, "v") for name in names], known=0).data)][:2000] == names
    assert 0 < len(reply._MEANINGS) <= memo.MOST
    with pytest.raises(ApplicationFault):
        render([("Connec tion", "close")])
    with pytest.raises(ApplicationFault):
        render([("tRAILER", "x")])


# Any headers at all

anything = st.text(st.sampled_from("aA-: \t\r\n\0_é€;=5"), max_size=12)
likely = st.sampled_from(["X-A", "Content-Length", "Content-Type", "Date", "Server", "content-length", "Connection"])
header_lists = st.lists(
    st.tuples(likely | anything, st.sampled_from(["0", "5", "x", "a\r\nX-Evil: 1"]) | anything), max_size=5
)
statuses = st.sampled_from(["200 OK", "204 No Content", "304 Not Modified"]) | anything.map(lambda t: "200 " + t)


def of_the_application(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that the server never writes or leaves out itself."""
    shared = {"server", "date", "content-length", "transfer-encoding", "connection"}
    return [(name, value) for name, value in headers if name.lower() not in shared]


@settings(max_examples=200)
@given(st.sampled_from(["GET", "HEAD"]), statuses, header_lists, st.integers(-1, 5), st.booleans())
def test_a_head_has_the_fields_it_was_given_and_the_servers_own_or_is_refused(
    method: str, status: str, headers: list[tuple[str, str]], known: int, willing: bool
) -> None:
    try:
        head = render_head(asked(method), check_fields(status, headers), known, willing, DATE)
    except (ApplicationFault, UnicodeEncodeError):
        return
    assert head.data.startswith(f"HTTP/1.1 {status}\r\n".encode("latin-1"))
    assert head.data.count(b"\r") == head.data.count(b"\n") == len(fields(head.data)) + 2
    assert of_the_application(fields(head.data)) == of_the_application(headers)
    assert len(values(head.data, "content-length")) + len(values(head.data, "transfer-encoding")) <= 1


# Status lines


@pytest.mark.parametrize(
    ("status", "code"),
    [("200 OK", 200), ("404 ", 404), ("299 \xe9", 299), ("599 a\tb", 599), ("999 Whatever", 999), ("200  OK", 200)],
)
def test_a_status_is_three_digits_a_space_and_a_phrase(status: str, code: int) -> None:
    assert check_status(status) == code
    assert render([], status, 0).data.startswith(f"HTTP/1.1 {status}\r\n".encode("latin-1"))


@pytest.mark.parametrize(
    "status",
    [
        "",
        "200",
        "20 OK",
        "2000 OK",
        "099 Low",
        "OK",
        " 200 OK",
        "200\tOK",
        "+20 OK",
        "2_0 OK",
        "٢٠٠ OK",
        "200 O\r\nX: y",
        "200 OK\r\n",
        "200 OK\n",
        "200 O\0K",
        "200 \x7f",
        "200 €",
        200,
        None,
        b"200 OK",
        ["200 OK"],
    ],
    ids=ascii,
)
def test_what_is_no_status_is_refused(status: str) -> None:
    with pytest.raises(ApplicationFault):
        check_status(status)
    with pytest.raises(ApplicationFault):
        render([], status)


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_an_interim_status_is_the_servers_alone(status: str) -> None:
    with pytest.raises(ApplicationFault, match="interim"):
        render([], status)


# The rest


def test_the_date_is_an_imf_fixdate() -> None:
    # The example of RFC 9110 5.6.7
    assert http_date(784111777) == DATE
    assert http_date(784111777.9) == DATE


@pytest.mark.parametrize("size", [1, 9, 10, 16, 255, 65536])
def test_chunks_come_back_from_a_decoder(size: int) -> None:
    data = b"\r" * size
    decoder = ChunkedDecoder(0)
    assert decoder.feed(chunk(data) + chunk(b"z") + reply.LAST_CHUNK) == data + b"z"
    assert decoder.done


def test_a_chunk_is_its_size_in_hexadecimal_and_its_data() -> None:
    assert chunk(b"0123456789abcdef") == b"10\r\n0123456789abcdef\r\n"


@given(st.integers(0, 2**35))
def test_a_date_is_as_the_mail_package_writes_it(now: int) -> None:
    assert http_date(now) == f"Date: {formatdate(now, usegmt=True)}\r\n"


# All that the package answers with by itself
RAISED = {
    int(status)
    for path in Path(minicorn.__file__).parent.rglob("*.py")
    for status in re.findall(r"ProtocolError\(([0-9]+)", path.read_text())
}
RENAMED = {413: "Content Too Large", 414: "URI Too Long"}  # by RFC 9110, and by Python 3.13


@pytest.mark.parametrize("status", sorted(RAISED | {500}))
def test_an_error_reply_says_its_status_alone_and_closes(status: int) -> None:
    head, _, body = render_error(status, DATE).partition(b"\r\n\r\n")
    line = f"{status} {RENAMED.get(status) or HTTPStatus(status).phrase}"
    assert head.startswith(f"HTTP/1.1 {line}\r\n".encode())
    assert body.decode() == f"{line}\n"
    found = fields(head + b"\r\n\r\n")
    assert dict(found)["Content-Length"] == str(len(body))
    assert CLOSE in found
    assert [pair for pair in found if pair in OWN] == OWN


def test_an_error_reply_to_head_has_no_body_but_its_length() -> None:
    full, short = render_error(400, DATE, "GET"), render_error(400, DATE, "HEAD")
    assert full.startswith(short)
    assert short.endswith(b"\r\n\r\n")
    assert int(values(short, "content-length")[0]) == len(full) - len(short)


def test_what_was_found_right_is_remembered_within_bounds() -> None:
    first = reply.check_fields("200 OK", [("X-Number", "0")])
    assert reply.check_fields("200 OK", [("X-Number", "0")]) is first
    for number in range(1000):
        fields = reply.check_fields("200 OK", [("X-Number", str(number))])
        assert f"X-Number: {number}\r\n" in fields.lines
        assert 0 < len(reply._MEANINGS) <= memo.MOST
    with pytest.raises(ApplicationFault):
        reply.check_fields("200 OK", (("X-Number", "0"),))  # type: ignore[arg-type]
    with pytest.raises(ApplicationFault):
        reply.check_fields("200 OK", [("X-Number", "0\r\n")])
