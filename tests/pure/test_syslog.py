"""Where syslog listens, in gunicorn's spelling."""

import socket

import pytest

from minicorn.errors import ConfigError
from minicorn.logs.syslog import parse_syslog

DATAGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("text", "address", "kind"),
    [
        ("unix:///dev/log", "/dev/log", None),
        ("unix:///dev/log#dgram", "/dev/log", DATAGRAM),
        ("udp://localhost:514", ("localhost", 514), DATAGRAM),
        ("udp://", ("localhost", 514), DATAGRAM),
        ("udp://192.0.2.7", ("192.0.2.7", 514), DATAGRAM),
        ("tcp://log.example:6514", ("log.example", 6514), STREAM),
        ("tcp://[::1]:6514", ("::1", 6514), STREAM),
    ],
)
def test_an_address_of_syslog_is_read(text: str, address: object, kind: object) -> None:
    assert parse_syslog(text) == (address, kind)


@pytest.mark.parametrize("text", ["", "/dev/log", "udp:localhost", "http://a:1", "udp://a:b", "tcp://::1:514"])
def test_what_is_no_address_of_syslog_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--log-syslog-to: cannot take"):
        parse_syslog(text)
