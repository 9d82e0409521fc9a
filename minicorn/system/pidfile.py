"""The pid file: written once the listeners stand, locked while we live, removed by its writer alone.

The lock is fcntl's: workers do not inherit it (an orphan of flock would hold it), and it
survives exec. So a file left by a killed server is taken over, and a live one's is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from minicorn.errors import ConfigError


class PidFile:
    """The file `path` with our pid in it; ConfigError when another live server has it, or it cannot be written."""

    def __init__(self, path: str, fd: int | None = None) -> None:
        """`fd`: the locked file of the arbiter's image before, which had this pid; it may have another path."""
        self._path = os.path.abspath(path)
        self._writer = os.getpid()
        if fd is not None and self._is_at(fd):
            self.fd = fd
            return
        if fd is not None:
            os.close(fd)
        try:
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _lock(self.fd, path)
            os.ftruncate(self.fd, 0)
            os.write(self.fd, f"{self._writer}\n".encode())
        except ConfigError:
            os.close(self.fd)
            raise
        except OSError as error:
            raise ConfigError(f"--pid {path}: {error.strerror}") from error

    def _is_at(self, fd: int) -> bool:
        """Whether the open file is the one at our path."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except OSError:
            return False  # somebody has removed it

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if os.getpid() != self._writer:
            return
        if self._is_at(self.fd):
            with contextlib.suppress(OSError):  # we may not any more; whoever starts next finds it unlocked
                os.unlink(self._path)
        os.close(self.fd)


def _lock(fd: int, path: str, predecessor: int = 0) -> None:
    """Lock the open file; ConfigError when a live server has it, other than the one with the pid `predecessor`."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        if owner != str(predecessor):
            raise ConfigError(f"--pid {path}: a server with pid {owner} has it") from None


def check_pidfile(path: str, predecessor: int = 0) -> None:
    """ConfigError when it could not be written, whoever has it now; for one who takes over from the server
    with the pid `predecessor`, when anybody else has it. Nothing is left behind."""
    import tempfile  # dear

    place = os.path.abspath(path)
    try:
        if not os.path.lexists(place):
            tempfile.TemporaryFile(dir=os.path.dirname(place)).close()
            return
        with open(place, "rb+", buffering=0) as file:
            if predecessor:
                _lock(file.fileno(), path, predecessor)
    except OSError as error:
        raise ConfigError(f"--pid {path}: {error.strerror}") from error
