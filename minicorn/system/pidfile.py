"""The pid file: written once the listeners stand, locked while we live, removed by its writer alone.

The lock is fcntl's: workers do not inherit it (an orphan of flock would hold it), and it
survives exec. So a file left by a killed server is taken over, and a live one's is not.
"""

from __future__ import annotations

import fcntl
import os

from minicorn.errors import ConfigError


class PidFile:
    """`path` with our pid in it; ConfigError when another live server has it or it cannot be written."""

    def __init__(self, path: str, fd: int | None = None) -> None:
        """`fd`: the locked file of the arbiter's image before, which had this pid."""
        self._path = os.path.abspath(path)
        self._writer = os.getpid()
        if fd is not None:
            self.fd = fd
            return
        try:
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self.fd, 0)
            os.write(self.fd, f"{self._writer}\n".encode())
        except BlockingIOError:
            owner = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip()
            raise ConfigError(f"--pid {path}: a server with pid {owner} has it") from None
        except OSError as error:
            raise ConfigError(f"--pid {path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if os.getpid() != self._writer:
            return
        try:
            ours, there = os.fstat(self.fd), os.stat(self._path)
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                os.unlink(self._path)
        except FileNotFoundError:
            pass  # somebody else has tidied up
        os.close(self.fd)


def check_pidfile(path: str) -> None:
    """ConfigError when it could not be written, whoever has it now. Nothing is left behind."""
    import tempfile  # dear

    place = os.path.abspath(path)
    try:
        if os.path.lexists(place):
            os.close(os.open(place, os.O_RDWR | os.O_CLOEXEC))
        else:
            tempfile.TemporaryFile(dir=os.path.dirname(place)).close()
    except OSError as error:
        raise ConfigError(f"--pid {path}: {error.strerror}") from error
