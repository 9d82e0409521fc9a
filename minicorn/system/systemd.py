"""The service manager above us: what it passes, and the line on which it is told things.

The protocol is datagrams and variables (sd_notify(3), sd_listen_fds(3)), so no library is
needed. The variables are taken out of the environment at once: an application's child that
found them would speak in the arbiter's name, or take its sockets.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence

from minicorn.record import Value
from minicorn.system import rights

VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FDSTORE",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)
FIRST_FD = 3
# Begins the names of our descriptors in the manager's store; the address follows
KEPT = "minicorn "


class Passed(Value):
    """A descriptor that the manager has opened or kept for us."""

    fd: int
    name: str


class ServiceManager:
    """The service manager; one that is not there is told nothing and has passed nothing."""

    def __init__(self, variables: dict[str, str]) -> None:
        """`variables`: what `take` has found, or what the arbiter's image before had."""
        self.variables = {name: value for name, value in variables.items() if not name.startswith("LISTEN_")}
        self.passed = _read_passed(variables)
        self.watchdog = 0.0  # seconds of silence that it bears; 0: any
        if variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog = _number(variables.get("WATCHDOG_USEC")) / 1e6
        address = variables.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte of an abstract name
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self._unsent: list[str] = []

    @property
    def listens(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    @property
    def keeps(self) -> bool:
        """Whether descriptors are kept over a restart: systemd says so itself from 254 on, before that the unit can."""
        return self.listens and _number(self.variables.get("FDSTORE")) > 0

    def tell(self, assignments: Sequence[str], fd: int | None = None) -> None:
        """Send assignments such as READY=1, with a descriptor where one belongs to them; never waits."""
        self._unsent += assignments
        if self._socket is None or not self._unsent:
            return
        message = "\n".join(self._unsent).encode()
        try:
            self._socket.sendmsg([message], rights.pack([] if fd is None else [fd]), socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:
            return  # its queue is full: at the next turn, then
        except OSError:
            pass  # nobody is there: a manager that comes back asks its processes nothing
        self._unsent.clear()

    def keep(self, address: str, fd: int) -> None:
        """Have `fd`, which listens on `address`, come back after a restart."""
        self.tell(["FDSTORE=1", f"FDNAME={kept_name(address)}"], fd)

    def forget(self, name: str) -> None:
        """Drop what is kept by that name."""
        self.tell(["FDSTOREREMOVE=1", f"FDNAME={name}"])

    def close(self) -> None:
        """Close the line, in a child: it has nothing to tell."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def take(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take the manager's variables out of `environ`."""
    return {name: environ.pop(name) for name in VARIABLES if name in environ}


def kept_name(address: str) -> str:
    """The name in the store of what listens on `address`: printable, without a colon."""
    from urllib.parse import quote  # dear, and only where descriptors are kept

    return KEPT + quote(address, safe="/[]")


def is_journal(fd: int) -> bool:
    """Whether the journal reads what is written to `fd` (JOURNAL_STREAM is its device and inode)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _read_passed(variables: dict[str, str]) -> list[Passed]:
    if variables.get("LISTEN_PID") != str(os.getpid()):
        return []  # meant for a process between the manager and us
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    count = int(_number(variables.get("LISTEN_FDS")))
    names += ["unknown"] * (count - len(names))
    passed = [Passed(FIRST_FD + index, names[index]) for index in range(count)]
    for each in passed:
        os.set_inheritable(each.fd, False)
    return passed


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
