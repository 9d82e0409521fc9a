"""Heads of requests. Each is fed whole, byte by byte and with more behind it, and means the same each time."""

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from costs import FACTOR, growth
from hypothesis import given, settings
from hypothesis import strategies as st

from minicorn import memo
from minicorn.errors import ProtocolError
from minicorn.http import request as request_module
from minicorn.http.request import REQUEST_LINE, Framing, Request, parse_head

LIMIT = 65536
BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: h") -> bytes:
    """A head: `start`, then `host`, then `lines`."""
    return b"\r\n".join([start, *([] if host is None else [host]), *lines]) + b"\r\n\r\n"


def drip(data: bytes, limit: int = LIMIT, step: int = 1, **lines: int) -> tuple[Request, int] | None:
    """Parse `data` as a connection does that receives it in pieces of `step` bytes."""
    buffer = bytearray()
    searched = 0
    for start in range(0, len(data), step):
        buffer += data[start : start + step]
        parsed = parse_head(buffer, limit, searched, **lines)
        if parsed is not None:
            return parsed
        searched = len(buffer)
    return None


def meaning(parsed: tuple[Request, int] | None) -> dict[str, object] | None:
    """All that a parse says, to compare it with another's."""
    if parsed is None:
        return None
    request, end = parsed
    return {"end": end, **{name: getattr(request, name) for name in Request.__slots__}}


def fields_of(request: Request) -> dict[str, str]:
    """What it has of its fields, by their CGI names."""
    return {key: value for key, value in request.meta.items() if key not in REQUEST_LINE}


def accepted(data: bytes, limit: int = LIMIT) -> Request:
    """The request that `data` is, whichever way it is fed."""
    whole = parse_head(data, limit)
    assert whole is not None
    assert whole[1] == len(data)
    assert meaning(drip(data, limit)) == meaning(whole)
    assert meaning(drip(data, limit, 7)) == meaning(whole)
    assert meaning(parse_head(data + BEHIND, limit)) == meaning(whole)
    assert meaning(parse_head(bytearray(data + b"\n\r\0"), limit)) == meaning(whole)
    return whole[0]


def outcome(parse: Callable[[], tuple[Request, int] | None]) -> object:
    try:
        return meaning(parse())
    except ProtocolError as error:
        return error.status


def refused(data: bytes, limit: int = LIMIT) -> object:
    """The status that refuses `data`, whichever way it is fed (or what was made of it)."""
    statuses = {
        str(outcome(lambda: parse_head(data, limit))),
        str(outcome(lambda: drip(data, limit))),
        str(outcome(lambda: drip(data, limit, 7))),
        str(outcome(lambda: parse_head(data + BEHIND, limit))),
    }
    assert len(statuses) == 1, statuses
    return outcome(lambda: parse_head(data, limit))


def labels(value: object) -> str | None:
    return ascii(value)[:60] if isinstance(value, bytes) else None


# What a head says


def test_a_plain_head_is_parsed_whole() -> None:
    request = accepted(
        b"POST /shop/caf%C3%A9?q=%20a&b HTTP/1.1\r\n"
        b"Host: example.com:8000\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nAccept: */*\r\n\r\n"
    )
    assert (request.method, request.target, request.version) == ("POST", "/shop/caf%C3%A9?q=%20a&b", "HTTP/1.1")
    assert {key: request.meta[key] for key in REQUEST_LINE} == {
        "REQUEST_METHOD": "POST",
        "RAW_URI": "/shop/caf%C3%A9?q=%20a&b",
        "REQUEST_URI": "/shop/caf%C3%A9?q=%20a&b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/shop/caf\xc3\xa9",
        "QUERY_STRING": "q=%20a&b",
    }
    assert (request.framing, request.content_length) == (Framing.LENGTH, 12)
    assert (request.keep_alive, request.expects_continue, request.secure) == (True, False, False)
    assert request.aside == ("X-Forwarded-For: 1.2.3.4",)
    assert fields_of(request) == {
        "HTTP_HOST": "example.com:8000",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "12",
        "HTTP_ACCEPT": "*/*",
    }


def test_an_unfinished_head_asks_for_more() -> None:
    whole = head(b"X: y")
    for length in range(len(whole)):
        assert parse_head(whole[:length], LIMIT) is None


def test_one_empty_line_before_the_request_line_is_ignored() -> None:
    request = accepted(b"\r\n" + head(start=b"GET /after HTTP/1.1"))
    assert request.meta["PATH_INFO"] == "/after"


@pytest.mark.parametrize("before", [b"\r\n\r\n", b"\n", b"\r", b" ", b" \r\n"], ids=labels)
def test_anything_else_before_the_request_line_is_refused(before: bytes) -> None:
    assert refused(before + head()) == 400


# The request line


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET / ",
        b" / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET HTTP/1.1",
        b"/ HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET / http/1.1",
        b"GET / Http/1.1",
        b"GET / HTTP/1.1.1",
        b"GET / HTTP/11.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1,1",
        b"GET / HTTP/1.",
        b"GET / HTTP/.1",
        b"GET / HTTP/1",
        b"GET / HTTP /1.1",
        b"GET / HTTPS/1.1",
        b"GET / HTTP/\xb9.1",
        "GET / HTTP/٣.1".encode(),
        b"G(T / HTTP/1.1",
        b"G\xcbT / HTTP/1.1",
        b"GET: / HTTP/1.1",
    ],
    ids=labels,
)
def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    assert refused(head(start=line)) == 400


@pytest.mark.parametrize(
    "target",
    [b"/\x00", b"/\x01", b"/\x7f", b"/\x80", b"/\xa0", b"/\xc3\xa9", b"/a#b", b"#", b"/a\x0bb", b"/a\x85b"],
    ids=labels,
)
def test_a_target_with_a_fragment_or_beyond_visible_ascii_is_refused(target: bytes) -> None:
    assert refused(head(start=b"GET " + target + b" HTTP/1.1")) == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0", b"HTTP/9.9"])
def test_an_unknown_major_version_is_505(version: bytes) -> None:
    assert refused(head(start=b"GET / " + version)) == 505


def test_the_preface_of_http_2_is_505() -> None:
    assert outcome(lambda: parse_head(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", LIMIT)) == 505


@pytest.mark.parametrize(
    ("version", "known"),
    [(b"HTTP/1.0", "HTTP/1.0"), (b"HTTP/1.1", "HTTP/1.1"), (b"HTTP/1.2", "HTTP/1.1"), (b"HTTP/1.9", "HTTP/1.1")],
)
def test_a_higher_minor_version_is_taken_as_the_highest_known(version: bytes, known: str) -> None:
    assert accepted(head(start=b"GET / " + version)).version == known


@pytest.mark.parametrize("method", ["GET", "get", "M-SEARCH", "PROPFIND", "!#$%&'*+-.^_`|~0aZ"])
def test_any_token_is_a_method_and_its_case_is_kept(method: str) -> None:
    assert accepted(head(start=f"{method} / HTTP/1.1".encode())).method == method


# The target


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/a%20b", "/a b", ""),
        ("/a%2Fb%2fc", "/a/b/c", ""),
        ("/%C3%A9", "/\xc3\xa9", ""),
        ("/%ff%80", "/\xff\x80", ""),
        ("/a+b", "/a+b", ""),
        ("/100%", "/100%", ""),
        ("/%zz%4", "/%zz%4", ""),
        ("/%2541", "/%41", ""),
        ("/a?x=%20%C3&y=+", "/a", "x=%20%C3&y=+"),
        ("//other/path", "//other/path", ""),
        ("/a;b=c/../d", "/a;b=c/../d", ""),
        ('/"<>[]{}|\\^`', '/"<>[]{}|\\^`', ""),
    ],
)
def test_the_path_is_percent_decoded_once_to_latin_1_and_the_query_is_not(target: str, path: str, query: str) -> None:
    request = accepted(head(start=f"GET {target} HTTP/1.1".encode()))
    assert (request.target, request.meta["PATH_INFO"], request.meta["QUERY_STRING"]) == (target, path, query)


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("http://other/p?q=1", "other", "/p", "q=1"),
        ("http://other:81/", "other:81", "/", ""),
        ("http://other", "other", "/", ""),
        ("http://other?q", "other", "/", "q"),
        ("https://other/p", "other", "/p", ""),
        ("HTTPS://other/p", "other", "/p", ""),
        ("HTTP://other/%41", "other", "/A", ""),
        ("http://[::1]:80/p", "[::1]:80", "/p", ""),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_host(target: str, host: str, path: str, query: str) -> None:
    request = accepted(head(start=f"GET {target} HTTP/1.1".encode(), host=b"Host: first"))
    assert (request.meta["HTTP_HOST"], request.meta["PATH_INFO"], request.meta["QUERY_STRING"]) == (host, path, query)
    assert (request.target, request.secure) == (target, target[4] in "sS")


@pytest.mark.parametrize(
    "target",
    [
        b"http://",
        b"http:///p",
        b"http://?q",
        b"http://user@h/",
        b"http://h:port/",
        b"http://a:80:80/",
        b"ftp://h/",
        b"h:80",
        b"h",
        b"?q",
        b"*a",
        b"http:/h/",
        b"http//h/",
    ],
    ids=labels,
)
def test_a_target_of_no_known_form_is_refused(target: bytes) -> None:
    assert refused(head(start=b"GET " + target + b" HTTP/1.1")) == 400


def test_an_absolute_target_with_an_empty_host_and_a_port_is_refused() -> None:
    # RFC 9110 4.2.1: "A recipient that processes such a URI reference MUST reject it as invalid"
    assert refused(head(start=b"GET http://:80/ HTTP/1.1")) == 400


def test_an_absolute_target_does_not_make_up_for_a_missing_host() -> None:
    assert refused(head(start=b"GET http://h/ HTTP/1.1", host=None)) == 400


def test_an_asterisk_is_for_options_alone() -> None:
    request = accepted(head(start=b"OPTIONS * HTTP/1.1"))
    assert (request.target, request.meta["PATH_INFO"]) == ("*", "")
    assert refused(head(start=b"GET * HTTP/1.1")) == 400


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://h", "", ""),
        ("HTTP://h:80", "", ""),
        ("http://h/", "/", ""),
        ("http://h?", "/", ""),
        ("http://h?h", "/", "h"),
    ],
)
def test_options_of_an_absolute_target_without_a_path_are_those_of_the_whole_server(
    target: str, path: str, query: str
) -> None:
    request = accepted(head(start=f"OPTIONS {target} HTTP/1.1".encode()))
    assert (request.meta["PATH_INFO"], request.meta["QUERY_STRING"]) == (path, query)


@pytest.mark.parametrize("target", [b"h:443", b"/", b"http://h/"], ids=labels)
def test_connect_is_501(target: bytes) -> None:
    assert refused(head(start=b"CONNECT " + target + b" HTTP/1.1")) == 501


# Field lines


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n",
        b"GET / HTTP/1.1\r\nHost: h\n\nGET / HTTP/1.1\r\n\r\n",
    ],
    ids=labels,
)
def test_a_bare_line_feed_in_a_head_is_refused(data: bytes) -> None:
    assert refused(data) == 400


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\rHost: h\r\r",
        b"GET / HTTP/1.1\rHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n",
    ],
    ids=labels,
)
def test_a_bare_carriage_return_in_a_head_is_refused(data: bytes) -> None:
    assert refused(data) == 400


def test_a_bare_line_end_is_refused_before_the_head_is_whole() -> None:
    assert outcome(lambda: parse_head(b"GET / HTTP/1.1\nHost", LIMIT)) == 400
    assert outcome(lambda: parse_head(b"GET / HTTP/1.1\rHost", LIMIT)) == 400


def test_what_is_no_http_is_refused_before_its_head_is_whole() -> None:
    """Whoever speaks TLS to a plain port waits for an answer."""
    client_hello = bytes.fromhex("16030100f8010000f40303")
    assert outcome(lambda: parse_head(client_hello, LIMIT)) == 400
    assert outcome(lambda: drip(client_hello)) == 400


@pytest.mark.parametrize("control", [bytes([code]) for code in [*range(9), *range(11, 32), 127]], ids=labels)
def test_a_control_character_is_refused_before_the_head_is_whole(control: bytes) -> None:
    assert outcome(lambda: parse_head(b"GET / HTTP/1.1\r\nA: a" + control + b"b", LIMIT)) == 400


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=labels)
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),  # HTTP/0.9
        (b"SSH-2.0-OpenSSH_9.2", 400),
        (b"EHLO there", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.1", None),
    ],
    ids=labels,
)
def test_a_request_line_is_judged_as_soon_as_it_has_come(
    line: bytes, status: int | None, before: bytes, step: int
) -> None:
    data = before + line + b"\r\n"
    assert fed(data[:-1], step) is None
    assert fed(data, step) == status
    assert fed(data + b"A: b\0", step) == (status or 400)


@pytest.mark.parametrize("line", [b" folded", b"\tfolded", b" X: y", b" ", b"\t"], ids=labels)
def test_a_folded_field_line_is_refused(line: bytes) -> None:
    assert refused(head(b"A: b", line)) == 400
    assert refused(head(line, host=None)) == 400
    assert refused(head(line, b"Host: h", host=None)) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"X : y",
        b"X\t: y",
        b": y",
        b":",
        b"X",
        b"X y: z",
        b"(X): y",
        *[b"X" + bytes([delimiter]) + b": y" for delimiter in b'"(),/;<=>?@[\\]{}'],
        b"\xe9: y",
        b"X\x00: y",
        b"X\x0b: y",
        b"X\xa0: y",
        b"X\x85: y",
        b"\x85",
        b"Transfer-Encoding : chunked",
        b"Content-Length\x0c: 5",
    ],
    ids=labels,
)
def test_what_is_no_field_name_before_the_colon_is_refused(line: bytes) -> None:
    assert refused(head(line)) == 400
    assert refused(head(line, start=b"GET / HTTP/1.0")) == 400


@pytest.mark.parametrize("control", [bytes([code]) for code in [*range(9), *range(10, 32), 127]], ids=labels)
def test_a_control_character_in_a_field_value_is_refused(control: bytes) -> None:
    assert refused(head(b"X: a" + control + b"b")) == 400
    assert refused(head(b"X: " + control)) == 400
    assert refused(head(b"X: a" + control, b"Y: b")) == 400


def test_tab_and_all_of_latin_1_may_stand_in_a_value() -> None:
    value = bytes([*range(0x21, 0x7F), 9, 32, *range(0x80, 0x100), 0x21])
    assert accepted(head(b"X: " + value)).meta["HTTP_X"] == value.decode("latin-1")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"X:y", "y"),
        (b"X: y ", "y"),
        (b"X:\t y \t", "y"),
        (b"X:", ""),
        (b"X: \t ", ""),
        (b"X: a: b", "a: b"),
        (b"X: \x85y\xa0", "\x85y\xa0"),
        (b"X: \xa0", "\xa0"),
    ],
    ids=labels,
)
def test_only_space_and_tab_are_stripped_from_a_value(line: bytes, value: str) -> None:
    assert accepted(head(line)).meta["HTTP_X"] == value


def test_field_names_become_cgi_names_whatever_their_case() -> None:
    request = accepted(head(b"content-TYPE: a", b"x-Custom-ip: b", b"Content-Language: c", b"X.Y!: d"))
    assert fields_of(request) == {
        "HTTP_HOST": "h",
        "CONTENT_TYPE": "a",
        "HTTP_X_CUSTOM_IP": "b",
        "HTTP_CONTENT_LANGUAGE": "c",
        "HTTP_X.Y!": "d",
    }


def test_lines_of_one_field_are_joined_by_a_comma_and_cookies_by_a_semicolon() -> None:
    request = accepted(head(b"Accept: a", b"Cookie: x=1", b"accept: b", b"cookie: y=2", b"ACCEPT: c"))
    assert request.meta["HTTP_ACCEPT"] == "a, b, c"
    assert request.meta["HTTP_COOKIE"] == "x=1; y=2"


@pytest.mark.parametrize("second", [b"Host: h", b"hOST: other", b"Host:"], ids=labels)
def test_a_second_host_is_refused(second: bytes) -> None:
    assert refused(head(second)) == 400
    assert refused(head(second, start=b"GET / HTTP/1.0")) == 400
    assert refused(head(second, start=b"GET http://h/ HTTP/1.1")) == 400
    with pytest.raises(ProtocolError, match="more than once"):
        parse_head(head(second), LIMIT)


def test_a_second_content_type_is_refused() -> None:
    assert refused(head(b"Content-Type: a", b"Content-Type: a")) == 400


@pytest.mark.parametrize(
    "name", [b"Content_Length", b"Transfer_Encoding", b"X_Forwarded_For", b"_", b"X-A_B", b"Host_"], ids=labels
)
def test_a_name_with_an_underscore_is_set_aside(name: bytes) -> None:
    request = accepted(head(name + b": 1", b"X: y"))
    assert fields_of(request) == {"HTTP_HOST": "h", "HTTP_X": "y"}
    assert request.aside == (f"{name.decode()}: 1",)


def test_an_underscore_name_never_overrides_its_hyphenated_twin() -> None:
    request = accepted(head(b"Content_Length: 99", b"Content-Length: 3", b"Transfer_Encoding: chunked"))
    assert (request.framing, request.content_length) == (Framing.LENGTH, 3)
    assert request.aside == ("Content_Length: 99", "Transfer_Encoding: chunked")


def test_what_is_set_aside_hides_no_second_line() -> None:
    assert refused(head(b"X_Y: z", b"Content-Length: 5", b"Content-Length: 6")) == 400
    assert refused(head(b"Content-Length: 5", b"Content-Length: 6", b"X_Y: z", b"X_Y: z")) == 400
    assert refused(head(b"X_Y: z", host=b"Host: h\r\nHost: i")) == 400
    assert fields_of(accepted(head(b"X_Y: z", b"A: a", b"A: b")))["HTTP_A"] == "a, b"


@pytest.mark.parametrize(
    "name",
    [b"Forwarded", b"fORWARDED", b"X-Forwarded-For", b"x-forwarded-anything", b"X-Real-IP", b"Proxy"],
    ids=labels,
)
def test_what_a_proxy_says_of_its_client_is_set_aside(name: bytes) -> None:
    request = accepted(head(name + b": a", b"X-Forwarded: kept", name + b":b"))
    assert fields_of(request) == {"HTTP_HOST": "h", "HTTP_X_FORWARDED": "kept"}
    assert request.aside == (f"{name.decode()}: a", f"{name.decode()}:b")


@pytest.mark.parametrize("name", ["Proxy-Authorization", "X-Proxy", "Forwarded-By", "X-Real-IPs", "X-Forwarded"])
def test_what_only_begins_like_that_is_a_field_like_any(name: str) -> None:
    assert fields_of(accepted(head(f"{name}: a".encode())))[f"HTTP_{name.upper().replace('-', '_')}"] == "a"


def test_what_is_remembered_of_names_and_lines_is_bounded_and_what_is_beyond_still_counts() -> None:
    for part in range(3):
        names = [f"X-Unheard-{number}" for number in range(part * 800, part * 800 + 800)]
        request = accepted(head(*(f"{name}: {name}".encode() for name in names)))
        assert all(request.meta["HTTP_" + name.upper().replace("-", "_")] == name for name in names)
    assert 0 < len(request_module._NAMES) <= memo.MOST
    assert 0 < len(request_module._LINES) <= memo.MOST


def test_a_long_line_is_not_remembered() -> None:
    line = "X-Long: " + "x" * 1000
    accepted(head(line.encode()))
    assert line not in request_module._LINES


def test_what_is_remembered_of_hosts_is_bounded_in_number_and_length() -> None:
    for number in range(1100):
        assert accepted(head(host=f"Host: h{number}".encode())).meta["HTTP_HOST"] == f"h{number}"
    assert refused(head(host=b"Host: " + b"h" * 1000)) == 400
    assert 0 < len(request_module._HOSTS) <= memo.MOST
    assert max(map(len, request_module._HOSTS)) <= memo.LONGEST


def test_a_line_that_is_refused_is_refused_again() -> None:
    for _ in range(2):
        assert refused(head(b"Bad Name: x")) == 400


# Host


def test_http_1_1_needs_a_host_and_1_0_does_not() -> None:
    assert refused(head(host=None)) == 400
    assert fields_of(accepted(head(start=b"GET / HTTP/1.0", host=None))) == {}


@pytest.mark.parametrize(
    "host",
    ["", "h", "h:", "h:80", "1.2.3.4:5", "[::1]", "[::1]:80", "a-b.c_d~", "EXAMPLE.com", "%C3%A9.example"]
    + ["h" * 255 + ":65535", "[::ffff:1.2.3.4]", "!$&'()*+,;="],
)
def test_a_valid_host_is_kept_as_it_came(host: str) -> None:
    assert accepted(head(host=f"Host: {host}".encode())).meta["HTTP_HOST"] == host


@pytest.mark.parametrize(
    "host",
    [
        b"a b",
        b"a/b",
        b"a\\b",
        b"user@h",
        b"h:port",
        b"h" * 262,
        b"[v1.a]",
        b"[fe80::1%25eth0]",
        b"h:+80",
        b"h:123456",
        b"h:80:80",
        b"[::1",
        b"::1",
        b"[]:80",
        b"[g]",
        b"[:::]",
        b"[1:2]",
        b"[1.2.3.4]",
        b"[::1]]",
        b"h\x80",
        b"\xa0h",
        b"h#",
        b"h?",
        b"<h>",
        b'"h"',
        b"%zz",
        b"h, h",
    ],
    ids=labels,
)
def test_an_invalid_host_is_refused(host: bytes) -> None:
    assert refused(head(host=b"Host: " + host)) == 400
    assert refused(head(host=b"Host: " + host, start=b"GET / HTTP/1.0")) == 400


# Framing


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"1", 1), (b"0010", 10), (b"\t 10 \t", 10), (b"9" * 18, 10**18 - 1)],
    ids=labels,
)
def test_a_content_length_is_ascii_digits(value: bytes, length: int) -> None:
    request = accepted(head(b"Content-Length: " + value))
    assert request.content_length == length
    assert request.framing is (Framing.LENGTH if length else Framing.NONE)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"+10",
        b"-1",
        b"-0",
        b"1_0",
        b"1 0",
        b"0x10",
        b"1e3",
        b"10.0",
        b"10,10",
        b"10, 10",
        b"10;",
        b"ten",
        "٣".encode(),
        b"\xb2",
        b"\x8510",
        b"10\x85",
        b"\xa010",
        b"10\xa0",
        b"9" * 19,
        b"9" * 30,
    ],
    ids=labels,
)
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    assert refused(head(b"Content-Length: " + value)) == 400
    assert refused(head(b"Content-Length: " + value, start=b"GET / HTTP/1.0")) == 400


@pytest.mark.parametrize("second", [b"5", b"6", b"0", b""], ids=labels)
def test_a_second_content_length_is_refused_even_when_it_agrees(second: bytes) -> None:
    assert refused(head(b"Content-Length: 5", b"content-length: " + second)) == 400
    with pytest.raises(ProtocolError, match="more than once"):
        parse_head(head(b"Content-Length: 5", b"content-length: " + second), LIMIT)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b"\tchunked \t"], ids=labels)
def test_chunked_is_the_one_transfer_coding_and_is_not_passed_on(value: bytes) -> None:
    request = accepted(head(b"Transfer-Encoding: " + value))
    assert request.framing is Framing.CHUNKED
    assert fields_of(request) == {"HTTP_HOST": "h"}


def test_content_length_with_transfer_encoding_is_refused() -> None:
    length, coding = b"Content-Length: 5", b"Transfer-Encoding: chunked"
    assert refused(head(length, coding)) == 400
    assert refused(head(coding, length)) == 400
    assert refused(head(b"Content-Length: 0", b"Transfer-Encoding: identity")) == 400


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    assert refused(head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")) == 400


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"chunked, chunked", 400),
        (b"chunked,chunked", 400),
        (b"chunked, gzip", 400),
        (b"chunked, identity", 400),
        (b"chunked,", 400),
        (b"gzip, chunked", 501),
        (b"identity", 501),
        (b"gzip", 501),
        (b"xchunked", 501),
        (b"chunkedx", 501),
    ],
    ids=labels,
)
def test_any_other_transfer_coding_is_refused(value: bytes, status: int) -> None:
    assert refused(head(b"Transfer-Encoding: " + value)) == status


@pytest.mark.parametrize(
    "value",
    [b"", b",", b",chunked", b"chunked;q=1", b'"chunked"', b"chunked\xa0", b"\x85chunked", b"chun ked"],
    ids=labels,
)
def test_what_only_looks_like_chunked_is_refused(value: bytes) -> None:
    assert refused(head(b"Transfer-Encoding: " + value)) in (400, 501)


def test_a_second_transfer_encoding_counts_as_one_list() -> None:
    coding = b"Transfer-Encoding: chunked"
    assert refused(head(coding, coding)) == 400
    assert refused(head(coding, b"transfer-encoding: gzip")) == 400
    assert refused(head(b"Transfer-Encoding: gzip", coding)) == 501
    assert refused(head(b"Transfer-Encoding:", coding)) in (400, 501)


def test_a_request_without_framing_has_no_body() -> None:
    request = accepted(head(start=b"POST / HTTP/1.1"))
    assert (request.framing, request.content_length) == (Framing.NONE, 0)


# Persistence and expectations


@pytest.mark.parametrize(
    ("version", "option", "keep"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive", True),
        ("1.1", "upgrade", True),
        ("1.1", "", True),
        ("1.1", "keep-alive, close", False),
        ("1.1", "close ,\tTE", False),
        ("1.1", "closed", True),
        ("1.1", "close\xa0", True),
        ("1.1", "\x85close", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive", True),
        ("1.0", "te,\tkeep-alive ", True),
        ("1.0", "close", False),
        ("1.0", "keep-alive, close", False),
        ("1.0", "keep-alives", False),
        ("1.0", "", False),
    ],
)
def test_persistence_is_the_default_in_1_1_and_asked_for_in_1_0(version: str, option: str | None, keep: bool) -> None:
    lines = [] if option is None else [f"Connection: {option}".encode("latin-1")]
    assert accepted(head(*lines, start=f"GET / HTTP/{version}".encode())).keep_alive is keep


def test_close_in_any_connection_line_counts() -> None:
    assert not accepted(head(b"Connection: keep-alive", b"Connection: close")).keep_alive
    assert not accepted(head(b"Connection: close", b"Connection: keep-alive")).keep_alive


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b" 100-CONTINUE\t"], ids=labels)
def test_an_expected_continue_is_known(value: bytes) -> None:
    assert accepted(head(b"Expect: " + value, b"Content-Length: 5")).expects_continue


@pytest.mark.parametrize(
    ("values", "expects"),
    [([b""], False), ([b" , ,"], False), ([b",100-continue ,"], True), ([b"100-continue", b"100-Continue"], True)],
)
def test_expectations_are_a_list_whose_empty_elements_are_ignored(values: list[bytes], expects: bool) -> None:
    assert accepted(head(*(b"Expect: " + value for value in values))).expects_continue == expects


@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, x", b"100", b"100-continue\xa0"], ids=labels)
def test_an_unknown_expectation_is_417(value: bytes) -> None:
    assert refused(head(b"Expect: " + value)) == 417


@pytest.mark.parametrize("value", [b"100-continue", b"anything"], ids=labels)
def test_an_expectation_in_http_1_0_is_ignored(value: bytes) -> None:
    assert not accepted(head(b"Expect: " + value, start=b"POST / HTTP/1.0")).expects_continue


# Limits


def padded(size: int) -> bytes:
    """A head of exactly `size` bytes."""
    return head(b"X: " + b"x" * (size - len(head(b"X: "))))


def test_a_head_of_the_limit_passes_and_one_byte_more_is_431() -> None:
    assert accepted(padded(256), 256).method == "GET"
    assert refused(padded(257), 256) == 431
    assert refused(padded(2560), 256) == 431


def test_an_empty_line_before_a_head_is_not_counted() -> None:
    assert accepted(b"\r\n" + padded(256), 256).method == "GET"
    assert refused(b"\r\n" + padded(257), 256) == 431


def test_a_body_behind_a_head_is_not_counted() -> None:
    parsed = parse_head(padded(256) + b"x" * 1000, 256)
    assert parsed is not None
    assert parsed[1] == 256


def test_a_head_over_the_limit_is_refused_before_its_end_has_come() -> None:
    assert outcome(lambda: parse_head(padded(1000)[:256], 256)) is None
    assert outcome(lambda: parse_head(padded(1000)[:257], 256)) == 431


def test_a_request_line_over_the_limit_is_414() -> None:
    assert refused(head(start=b"GET /" + b"x" * 300 + b" HTTP/1.1"), 256) == 414
    assert outcome(lambda: parse_head(b"GET /" + b"x" * 300, 256)) == 414
    assert outcome(lambda: parse_head(b"x" * 257, 256)) == 414


LINES = {"longest_line": 40, "longest_field": 30}


def fed(data: bytes, step: int, **limits: int) -> object:
    """The method, or the status that refuses it, of a head that comes in pieces of `step` bytes."""
    try:
        parsed = drip(data, LIMIT, step, **limits)
    except ProtocolError as error:
        return error.status
    return parsed and parsed[0].method


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=labels)
@pytest.mark.parametrize(
    ("line", "field", "outcome"),
    [(40, 30, "GET"), (41, 30, 414), (40, 31, 431), (400, 30, 414), (40, 300, 431), (400, 300, 414)],
)
def test_a_line_of_its_limit_passes_and_one_byte_more_does_not(
    line: int, field: int, outcome: object, before: bytes, step: int
) -> None:
    """A request line without its end, a field line with it: so gunicorn counts."""
    start = b"GET /" + b"x" * (line - 14) + b" HTTP/1.1"
    fields = [b"A: " + b"x" * (field - 5), b"B: " + b"y" * 25]
    assert (len(start), len(fields[0])) == (line, field - 2)
    for order in (fields, fields[::-1]):
        data = before + head(*order, start=start)
        assert fed(data, step, **LINES) == outcome
        assert fed(data + b"z" * 100, step, **LINES) == outcome  # a body is no line
        assert fed(data, step) == "GET"


def test_an_unfinished_line_that_is_too_long_is_refused_at_once() -> None:
    line, field = b"GET /" + b"x" * 37, b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 27
    assert outcome(lambda: parse_head(line[:-1], LIMIT, 0, 0, **LINES)) is None
    assert outcome(lambda: parse_head(line[:-2] + b"\r", LIMIT, 0, 0, **LINES)) is None
    assert outcome(lambda: parse_head(line, LIMIT, 0, 0, **LINES)) == 414
    assert outcome(lambda: parse_head(line[:-12] + b" HTTP/1.1\r\nHost", LIMIT, 0, 0, longest_line=38)) == 414
    assert outcome(lambda: parse_head(b"GET", LIMIT, 0, 0, longest_line=1)) == 414
    assert outcome(lambda: parse_head(b"GET / HTTP/1.1\r\nA", LIMIT, 0, 0, longest_field=1)) == 431
    assert outcome(lambda: parse_head(field[:-1], LIMIT, 0, 0, **LINES)) is None
    assert outcome(lambda: parse_head(field[:-2] + b"\r", LIMIT, 0, 0, **LINES)) is None
    assert outcome(lambda: parse_head(field, LIMIT, 0, 0, **LINES)) == 431


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_each_limit_of_a_line_is_for_itself(step: int) -> None:
    data = head(b"A: " + b"x" * 500, start=b"GET /" + b"x" * 400 + b" HTTP/1.1")
    assert fed(data, step, longest_line=500) == "GET"
    assert fed(data, step, longest_line=400) == 414
    assert fed(data, step, longest_field=505) == "GET"
    assert fed(data, step, longest_field=300) == 431
    assert (fed(data, step, longest_line=1), fed(data, step, longest_field=1)) == (414, 431)


def test_field_lines_are_counted_whatever_they_are() -> None:
    lines = [b"A: a", b"A: b", b"X_Y: z"]
    assert parse_head(head(*lines), LIMIT, 0, 0) is not None
    assert parse_head(head(*lines), LIMIT, 0, 4) is not None
    assert outcome(lambda: parse_head(head(*lines), LIMIT, 0, 3)) == 431


# Any head at all

TCHAR = "!#$%&'*+-.^`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KNOWN = {"host", "content-length", "content-type", "transfer-encoding", "connection", "expect", "cookie"}
tokens = st.text(TCHAR, min_size=1, max_size=12)
names = tokens.filter(lambda name: name.lower() not in KNOWN)
values = st.text(st.characters(codec="latin-1", exclude_characters="".join(map(chr, range(32))) + "\x7f")).map(
    lambda text: text.strip(" ")
)
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")).map(lambda t: "/" + t)
blanks = st.text(" \t", max_size=3)
fields = st.lists(st.tuples(names, blanks, values, blanks), max_size=8)
any_case = settings(max_examples=75)


def as_wsgi_wants(lines: list[tuple[str, str, str, str]]) -> dict[str, str]:
    found = {"HTTP_HOST": "h"}
    for name, _, value, _ in lines:
        key = "HTTP_" + name.upper().replace("-", "_")
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


@any_case
@given(tokens.filter(lambda name: name != "CONNECT"), targets, fields)
def test_whatever_the_grammar_generates_comes_back(
    method: str, target: str, lines: list[tuple[str, str, str, str]]
) -> None:
    rendered = [f"{name}:{before}{value}{after}".encode("latin-1") for name, before, value, after in lines]
    request = accepted(head(*rendered, start=f"{method} {target} HTTP/1.1".encode()))
    path, _, query = target.partition("?")
    assert (request.method, request.target, request.meta["QUERY_STRING"]) == (method, target, query)
    assert request.meta["PATH_INFO"] == unquote_to_bytes(path).decode("latin-1")
    assert fields_of(request) == as_wsgi_wants(lines)


SEEDS = [
    head(b"Content-Length: 5", b"Accept: */*"),
    head(b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    head(b"Connection: keep-alive", b"Cookie: a=b", b"Cookie: c=d", start=b"POST /a?b=%20 HTTP/1.0"),
    head(b"X_Y: z", start=b"GET http://h:80/p?q HTTP/1.1"),
    b"\r\n" + head(start=b"OPTIONS * HTTP/1.1"),
]
SNIPPETS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"%",
    b"_",
    b",",
    b"\x85",
    b"\xa0",
    b"#",
    b"[",
    b"0",
]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(SNIPPETS) | st.binary(max_size=3)), max_size=6
)


def mutated(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, cut, put in changes:
        at = int(where * len(seed))
        seed = seed[:at] + put + seed[at + cut :]
    return seed


@settings(any_case, max_examples=200)
@given(st.sampled_from(SEEDS), edits)
def test_a_mutated_head_gives_a_request_or_a_protocol_error_however_it_is_fed(
    seed: bytes, changes: list[tuple[float, int, bytes]]
) -> None:
    data = mutated(seed, changes)
    whole = outcome(lambda: parse_head(data, LIMIT))
    assert outcome(lambda: drip(data)) == whole
    if isinstance(whole, dict):
        meta = {key: value for key, value in whole["meta"].items() if key != "PATH_INFO"}  # which is decoded
        texts = [whole["method"], whole["target"], *meta.keys(), *meta.values()]
        assert not any(character in text for text in texts for character in "\r\n\0")
        assert "HTTP_TRANSFER_ENCODING" not in meta
        assert (whole["framing"] is Framing.LENGTH) == (whole["content_length"] > 0)


@any_case
@given(st.binary(max_size=200))
def test_noise_gives_nothing_or_a_protocol_error(noise: bytes) -> None:
    result = outcome(lambda: parse_head(noise, LIMIT))
    assert result is None or isinstance(result, (int, dict))


# Cost


def filled(
    unit: bytes, before: bytes = b"GET / HTTP/1.1\r\nHost: h\r\n", after: bytes = b"\r\n\r\n"
) -> Callable[[int], bytes]:
    return lambda size: before + unit * (size // len(unit)) + after


LARGE = 2**30
FIELD = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
SHAPES: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "many different fields": (
        2**16,
        lambda size: head(*(b"X-%d: y" % number for number in range(size // 10))),
    ),
    "one field many times": (2**16, filled(b"A:\r\n", after=b"\r\n")),
    "many cookies": (2**16, filled(b"Cookie: a=b\r\n", after=b"\r\n")),
    "many dropped names": (2**16, filled(b"_:\r\n", after=b"\r\n")),
    "many different dropped names": (
        2**16,
        lambda size: head(*(b"X_%d: y" % number for number in range(size // 10))),
    ),
    "one long value": (2**16, filled(b"x", FIELD)),
    "blanks before a value": (2**16, filled(b" ", FIELD, b"x\r\n\r\n")),
    "blanks behind a value": (2**16, filled(b" \t", FIELD + b"x")),
    "blanks and a control character": (2**16, filled(b" ", FIELD, b"\0\r\n\r\n")),
    "one long name": (2**16, filled(b"a", after=b": b\r\n\r\n")),
    "one long name without a colon": (2**16, filled(b"a")),
    "a fault in the last of many lines": (2**16, filled(b"A: b\r\n", after=b"A : b\r\n\r\n")),
    "a long target": (2**16, filled(b"a", b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n")),
    "a long target and no version": (2**16, filled(b"a", b"GET /", b"\r\nHost: h\r\n\r\n")),
    "many percent signs": (2**15, filled(b"%41%", b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n")),
    "many question marks": (2**16, filled(b"?", b"GET http://h/", b" HTTP/1.1\r\nHost: h\r\n\r\n")),
    "a long authority": (2**16, filled(b"a", b"GET http://", b"@ HTTP/1.1\r\nHost: h\r\n\r\n")),
    "a long host": (2**16, filled(b"%41", b"GET / HTTP/1.1\r\nHost: ", b"@\r\n\r\n")),
    "a long method": (2**16, filled(b"G", b"", b" / HTTP/1.1\r\nHost: h\r\n\r\n")),
    "many connection options": (2**16, filled(b"a,", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: ")),
    "many transfer codings": (2**16, filled(b"chunked,", b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ")),
    "a long content length": (2**16, filled(b"1", b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: ")),
    "carriage returns": (2**16, filled(b"\r", FIELD)),
    "no end": (2**16, filled(b"A: b\r\n", after=b"")),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_head_of_twice_the_size_takes_twice_the_time(shape: str) -> None:
    size, make = SHAPES[shape]
    times_longer = growth(lambda data: outcome(lambda: parse_head(data, LARGE)), make, size)
    assert times_longer <= FACTOR


@pytest.mark.parametrize(
    "make",
    [
        filled(b"A: bcdefghi\r\n", after=b"\r\n"),
        lambda size: head(*[b"A:"] * (size // 8), start=b"GET /" + b"x" * (size // 2) + b" HTTP/1.1"),
    ],
    ids=["many lines", "a long one and many short ones"],
)
def test_a_head_in_single_bytes_takes_linear_time(make: Callable[[int], bytes]) -> None:
    times_longer = growth(lambda data: drip(data, LARGE), make, 2**15)
    assert times_longer <= FACTOR


@pytest.mark.parametrize(
    ("begin", "line"), [(b"GET /", b"x" * 12), (b"GET / HTTP/1.1\r\n", b"A: bcdefghi\r\n")], ids=["one line", "many"]
)
def test_lines_with_limits_take_linear_time_in_single_bytes(begin: bytes, line: bytes) -> None:
    make = filled(line, before=begin, after=b"")
    times_longer = growth(lambda data: drip(data, LARGE, longest_line=LARGE, longest_field=8190), make, 2**15)
    assert times_longer <= FACTOR
