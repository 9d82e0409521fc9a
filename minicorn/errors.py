"""What can go wrong, as values with a name: raised where it is known, decided in one place.

`ProtocolError` is a client's fault and becomes a reply; `ConfigError` is the operator's and
becomes one line; `AppLoadError` is the application's and becomes one line or its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How the process ends, for the supervisor above it (systemd, a container runtime)."""

    OK = 0
    CONFIG = 1  # configuration or bind error
    USAGE = 2  # as argparse has it
    APP = 3  # the application could not be loaded at first boot
    BOOT = 4  # --max-boot-failures reached


class ProtocolError(Exception):
    """A request that is refused: the reply's status, and the reason for the log."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class ClientGone(ConnectionError):
    """The client has closed or stopped reading: what is left of its reply has no receiver."""


class ConfigError(Exception):
    """A setting or an address that cannot be used; the message is the line the operator reads."""


class UsageError(ConfigError):
    """A ConfigError on the command line: exit code 2."""


class AppLoadError(Exception):
    """The application cannot be had; the message says what to do about it."""
