"""The PROXY protocol: each header whole, byte by byte, and with HTTP behind it."""

import struct

import pytest

from minicorn.errors import ProtocolError
from minicorn.http.proxy import Source, parse_proxy

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"GET / HTTP/1.1\r\n"


def v2(command: int, family: int, payload: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


IPV4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443)
IPV6 = bytes.fromhex("20010db8000000000000000000000007") + bytes(15) + b"\1" + struct.pack("!HH", 4711, 443)
WRAPPED = bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 7]) + bytes(16) + struct.pack("!HH", 4711, 443)

GOOD: list[tuple[bytes, Source]] = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", Source("203.0.113.7", "4711")),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", Source("255.255.255.255", "65535")),
    (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", Source("2001:db8::7", "4711")),
    (b"PROXY UNKNOWN\r\n", Source()),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", Source()),
    (v2(0x21, 0x11, IPV4), Source("203.0.113.7", "4711")),
    (v2(0x21, 0x21, IPV6), Source("2001:db8::7", "4711")),
    (v2(0x21, 0x21, WRAPPED), Source("::ffff:203.0.113.7", "4711")),
    (v2(0x21, 0x31, bytes(216)), Source()),
    (v2(0x21, 0x00), Source()),
    (v2(0x21, 0x12, IPV4), Source()),  # UDP
    (v2(0x20, 0x11, IPV4), Source()),  # LOCAL
    (v2(0x20, 0x00), Source()),
    (v2(0x21, 0x11, IPV4 + tlv(1, b"h2") + tlv(0x20, b"\1\0\0\0\0")), Source("203.0.113.7", "4711", True)),
    (v2(0x21, 0x11, IPV4 + tlv(0x20, b"\0\0\0\0\0") + tlv(4, b"")), Source("203.0.113.7", "4711")),
    (v2(0x21, 0x00, tlv(0x20, b"\7\0\0\0\0")), Source(secure=True)),
    (v2(0x21, 0x11, IPV4 + tlv(2, b"a.test") + tlv(0x20, b"")), Source("203.0.113.7", "4711")),
    (v2(0x21, 0x11, IPV4 + tlv(4, bytes(60000))), Source("203.0.113.7", "4711")),
]

BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"proxy TCP4 203.0.113.7 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443 1\r\n",
    b"PROXY TCP4  203.0.113.7 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0 4711 443\r\n",
    b"PROXY TCP4 203.0.113.07 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
    b"PROXY TCP6 203.0.113.7 10.0.0.1 4711 443\r\n",
    b"PROXY TCP6 fe80::1%\0<b> ::1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 +4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 04711 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n" + b" " * 80,
    b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 443\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    v2(0x11, 0x11, IPV4),
    v2(0x22, 0x11, IPV4),
    v2(0x21, 0x11, IPV4[:-1]),
    v2(0x21, 0x21, IPV4),
    v2(0x21, 0x11, IPV4 + b"\1\0"),
    v2(0x21, 0x11, IPV4 + b"\1\0\2a"),
]


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_a_header_tells_the_source_and_where_it_ends(header: bytes, source: Source) -> None:
    assert parse_proxy(header, "auto") == (source, len(header))
    assert parse_proxy(header + BEHIND, "auto") == (source, len(header))
    assert parse_proxy(header + header, "auto") == (source, len(header))


@pytest.mark.parametrize("header", [header for header, _ in GOOD if len(header) < 1000])
def test_a_header_that_comes_byte_by_byte_is_waited_for(header: bytes) -> None:
    for size in range(len(header)):
        assert parse_proxy(header[:size], "auto") is None


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_proxy(header, "auto")
    assert caught.value.status == 400


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_where_one_version_is_asked_for_the_other_is_no_header(header: bytes, source: Source) -> None:
    asked, other = ("v1", "v2") if header.startswith(b"PROXY") else ("v2", "v1")
    assert parse_proxy(header, asked) == (source, len(header))
    for size in range(len(header[:100])):
        assert parse_proxy(header[:size], asked) is None
    with pytest.raises(ProtocolError, match="no PROXY header"):
        parse_proxy(header[:1], other)


@pytest.mark.parametrize("beginning", [b"G", b"\r\nG", b"PROXy", SIGNATURE[:-1] + b"\r", b"P" * 6])
def test_what_cannot_become_a_header_is_refused_at_once(beginning: bytes) -> None:
    with pytest.raises(ProtocolError, match="no PROXY header"):
        parse_proxy(beginning, "auto")
