"""Addresses: what each spelling names, and what names none."""

import pytest

from minicorn.config.address import Address, Descriptor, Named, Tcp, Unix, parse_address, parse_port


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Tcp("127.0.0.1", 8000)),
        ("localhost:0", Tcp("localhost", 0)),
        (":80", Tcp("0.0.0.0", 80)),
        ("0.0.0.0", Tcp("0.0.0.0", 8000)),
        ("[::1]:80", Tcp("::1", 80)),
        ("[::1]", Tcp("::1", 8000)),
        ("[::]:65535", Tcp("::", 65535)),
        ("[fe80::1%eth0]:80", Tcp("fe80::1%eth0", 80)),
        ("unix:/run/shop.sock", Unix("/run/shop.sock")),
        ("unix:shop.sock", Unix("shop.sock")),
        ("unix:/run/a:80", Unix("/run/a:80")),
        ("fd://3", Descriptor(3)),
        ("fd://0", Descriptor(0)),
        ("fd://shop.socket", Named("shop.socket")),
    ],
)
def test_an_address_is_what_it_names(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "h:",
        "h:x",
        "h:-1",
        "h:+1",
        "h:1_0",
        "h: 80",
        "h:80 ",
        "h:65536",
        "h:٣",
        "::1",
        "::1:80",
        "[::1]80",
        "[::1",
        "a\0b:80",
        "unix:a\0b",
        "http://h:80",
        "unix:",
        "fd://",
        "fd://-x",
        "fd://a:b",
        "fd://3x",
    ],
)
def test_what_names_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize("text", ["fd://-1", "fd://+3", "fd://1_0", "fd:// 3", "fd://٣"])
def test_a_descriptor_is_ascii_digits(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("80", 80), ("00080", 80), ("65535", 65535)])
def test_a_port_is_a_number_from_0_to_65535(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " 1", "1 ", "1\n", "1.0", "٣", "65536", "99999", "000001"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_port(text)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Tcp("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (Tcp("::1", 80), "http://[::1]:80"),
        (Unix("/run/x"), "unix:/run/x"),
        (Descriptor(3), "fd://3"),
    ],
)
def test_an_address_is_shown_as_it_would_be_typed(address: Address, text: str) -> None:
    assert str(address) == text
