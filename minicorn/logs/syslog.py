"""syslog, as a handler of the logging package: it is there at the start, and later it may go and come again.

What cannot be sent is told in a line now and then, and the next record is tried anew; but nobody
waits again and again for a log server that hangs.
"""

from __future__ import annotations

import logging
import re
import socket
import sys
import time
from contextlib import suppress
from logging.handlers import SysLogHandler

from minicorn.config.address import parse_port
from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.logs.logger import report

# Seconds that one record may wait for a log server that is slow, or not there
_PATIENCE = 1.0
# Seconds without syslog, once a record has waited in vain, so that the next ones do not
_REST = 10.0
_ADDRESS = re.compile(r"(?:(?P<kind>udp|tcp)://(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]#/]*))(?::(?P<port>[0-9]{1,5}))?)")


class Syslog(SysLogHandler):
    """Records of `log`, "error" or "access", to where the settings say."""

    def __init__(self, settings: Settings, log: str) -> None:
        """Whether anybody listens there is another question: see `reach`. ConfigError for what is no address."""
        self._rests_until = 0.0
        self._place = f"--log-syslog-to {settings.log_syslog_to}"
        address, kind = parse_syslog(settings.log_syslog_to)
        with suppress(OSError):  # of its last step, to connect, which is taken again with each record
            super().__init__(address, self.facility_names[settings.log_syslog_facility], kind)
        prefix = settings.log_syslog_prefix or settings.title.replace(":", ".")
        self.setFormatter(logging.Formatter(f"minicorn.{prefix.replace('%', '%%')}.{log}: [%(process)d] %(message)s"))

    def reach(self) -> None:
        """Connect now; ConfigError where nobody listens."""
        try:
            if isinstance(self.address, str):
                self._connect_unixsocket(self.address)
            else:
                self.createSocket()
        except OSError as error:
            raise ConfigError(f"{self._place}: {error.strerror or error}") from error

    def createSocket(self) -> None:  # noqa: N802
        if self.socktype == socket.SOCK_STREAM and not isinstance(self.address, str):
            self.unixsocket = False
            self.socket = socket.create_connection(self.address, _PATIENCE)
        else:
            super().createSocket()

    def _connect_unixsocket(self, address: str) -> None:
        super()._connect_unixsocket(address)  # type: ignore[misc]
        self.socket.settimeout(_PATIENCE / 2)  # each record is tried twice

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, unless the log server is slow."""
        if time.monotonic() >= self._rests_until:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        assert error is not None
        if isinstance(error, TimeoutError):
            self._rests_until = time.monotonic() + _REST
        report(self._place, error)
        if self.socket is not None:
            self.socket.close()
            self.socket = None  # type: ignore[assignment]


def parse_syslog(text: str) -> tuple[str | tuple[str, int], socket.SocketKind | None]:
    """gunicorn's spelling: unix:///dev/log, with #dgram if wanted, udp://host:514, tcp://host:514. ConfigError."""
    if text.startswith("unix://"):
        path, _, kind = text.removeprefix("unix://").partition("#")
        return path, socket.SOCK_DGRAM if kind == "dgram" else None
    match = _ADDRESS.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        host, port = match["v6"] or match["host"] or "localhost", parse_port(match["port"] or "514")
        host.encode("idna")  # a..b is no name of a host: UnicodeError, which is a ValueError
    except ValueError:
        raise ConfigError(
            f"--log-syslog-to: cannot take {text!r}: it takes unix://PATH, udp://HOST:PORT or tcp://HOST:PORT"
        ) from None
    return (host, port), socket.SOCK_STREAM if match["kind"] == "tcp" else socket.SOCK_DGRAM
