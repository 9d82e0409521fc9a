"""Where syslog listens, in gunicorn's spelling; and one that goes and comes again."""

import logging
import socket
import time
from pathlib import Path

import pytest

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.logs.syslog import Syslog, parse_syslog

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


def test_a_server_that_hangs_is_waited_for_once_and_not_with_each_record(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, DATAGRAM) as listener:
        listener.bind(str(path))
        handler = Syslog(Settings(app="app", log_syslog_to=f"unix://{path}#dgram"), "access")
        began = time.monotonic()
        for number in range(5000):  # more than its queue holds
            handler.handle(logging.makeLogRecord({"levelname": "INFO", "msg": f"record {number}"}))
        assert time.monotonic() - began < 5
        handler.close()
    assert "timed out" in capfd.readouterr().err


def test_a_server_by_tcp_that_goes_is_connected_to_again(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(app="app", log_syslog_to=f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        handler = Syslog(settings, "error")
        listener.accept()[0].close()
        for number in range(3):  # the first may still be taken, the second is lost
            handler.handle(logging.makeLogRecord({"levelname": "ERROR", "msg": f"record {number}"}))
        listener.settimeout(5)
        with listener.accept()[0] as again:
            assert b"record 2" in again.recv(1024)
        handler.close()
    assert capfd.readouterr().err.count("\n") == 1
    Syslog(settings, "error").close()  # nobody listens any more, and a worker must still boot
    with pytest.raises(ConfigError, match="Connection refused"):
        Syslog(settings, "error").reach()
