"""A server's private directory: what workers and arbiter map, and what is looked at from outside.

`<base>/minicorn-xxxx/`, mode 0700, in memory by default: `lock` tells a live server from a dead
one (every container is pid 1), `idle` is the idle map, `arbiter` the ledger, `N` the heartbeat
page of slot N, `N.stack` what its worker said as it was aborted, `N.trace` what it was asked for.
Whom the directory lets in may look at all of it: the arbiter's user, and the workers' (--user).
Blocks are allocated when a file is made, since a store into a hole of a full tmpfs is SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time

from minicorn.errors import ConfigError
from minicorn.figures import heartbeat, idlemap, ledger
from minicorn.figures.heartbeat import Page
from minicorn.figures.idlemap import IdleMap
from minicorn.figures.ledger import Ledger
from minicorn.system import scratch

PREFIX = "minicorn-"
LOCK = "lock"
LEDGER = "arbiter"
_ABANDONED = 60.0  # a directory without a lock file for so long is nobody's


class _Files:
    """The files of one slot that the arbiter holds open."""

    def __init__(self, page_fd: int, stack_fd: int, trace_fd: int) -> None:
        self.page_fd = page_fd
        self.stack_fd = stack_fd
        self.trace_fd = trace_fd
        self.page = Page(mmap.mmap(page_fd, heartbeat.SIZE))


class Directory:
    """The directory of one server, with the descriptors of all that is in it."""

    def __init__(self, base: str | None) -> None:
        """Make a new one below `base`; ConfigError when that cannot be done."""
        self._base = os.path.abspath(base or default_base())  # whoever looks at it may be elsewhere
        self._files: dict[int, _Files] = {}
        self.path, self.lock_fd = "", -1
        try:
            remove_abandoned(self._base)
            path = f"{self._base}/{PREFIX}{os.urandom(6).hex()}"
            os.mkdir(path, 0o700)
            self.path = path
            # Locked before it gets its name, so that nobody ever finds it unlocked
            self.lock_fd = os.open(f"{self.path}/{LOCK}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.fchmod(self.lock_fd, 0o644)
            fcntl.lockf(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f"{self.path}/{LOCK}.new", f"{self.path}/{LOCK}")
            self.idle_fd = self._create("idle", os.O_RDWR, idlemap.SIZE)
            self.ledger_fd = self._create(LEDGER, os.O_RDWR, ledger.SIZE)
        except OSError as error:
            self.remove()
            raise ConfigError(f"--worker-tmp-dir: cannot use {self._base}: {error.strerror}") from error

    def page(self, slot: int) -> Page:
        """The page of `slot`, made when it is first wanted; OSError when there is no room."""
        return self._file(slot).page

    def page_fd(self, slot: int) -> int:
        """The descriptor of the page of `slot`, for a process that inherits no mapping of it."""
        return self._file(slot).page_fd

    def stack_fd(self, slot: int) -> int:
        """The descriptor of the file, emptied now, where the worker of `slot` writes its stack as it crashes."""
        fd = self._file(slot).stack_fd
        os.ftruncate(fd, 0)
        return fd

    def trace_fd(self, slot: int) -> int:
        """The descriptor of the file where the slot's worker writes its stacks when it is asked for them."""
        return self._file(slot).trace_fd

    def measure_trace(self, slot: int) -> int:
        """How many bytes of stacks the worker in `slot` has written so far, as it was asked for them."""
        return os.fstat(self._file(slot).trace_fd).st_size

    def read_trace(self, slot: int) -> str:
        """Read the stacks that the worker in `slot` was asked for, and empty the file."""
        fd = self._file(slot).trace_fd
        text = os.pread(fd, 65536, 0).decode("utf-8", "replace").strip()
        os.ftruncate(fd, 0)
        return text

    def read_stack(self, slot: int) -> str:
        """Read what the worker in `slot` has written as it died."""
        return os.pread(self._file(slot).stack_fd, 65536, 0).decode("utf-8", "replace").strip()

    def idle_map(self, slots: int) -> IdleMap:
        """The map that all workers share."""
        return IdleMap(mmap.mmap(self.idle_fd, idlemap.SIZE), slots)

    def ledger(self) -> Ledger:
        """The ledger, which is the arbiter's own page."""
        return Ledger(mmap.mmap(self.ledger_fd, ledger.SIZE))

    @property
    def descriptors(self) -> dict[str, tuple[int, int, int]]:
        """By slot, the descriptors of page, stack and trace, for the arbiter's next image."""
        return {str(slot): (each.page_fd, each.stack_fd, each.trace_fd) for slot, each in self._files.items()}

    @classmethod
    def adopt(
        cls, path: str, lock_fd: int, idle_fd: int, ledger_fd: int, descriptors: dict[str, tuple[int, int, int]]
    ) -> Directory:
        """The directory that the arbiter's image before has left, by its descriptors."""
        directory = cls.__new__(cls)
        directory.path, directory.lock_fd = path, lock_fd
        directory.idle_fd, directory.ledger_fd = idle_fd, ledger_fd
        directory._base = os.path.dirname(path)
        directory._files = {int(slot): _Files(*fds) for slot, fds in descriptors.items()}
        return directory

    def _file(self, slot: int) -> _Files:
        if slot not in self._files:
            fds: list[int] = []
            try:
                fds.append(self._create(str(slot), os.O_RDWR, heartbeat.SIZE))
                fds.append(self._create(f"{slot}.stack", os.O_RDWR | os.O_APPEND))
                fds.append(self._create(f"{slot}.trace", os.O_RDWR | os.O_APPEND, mode=0o666))
                self._files[slot] = _Files(*fds)
            except OSError as error:  # no room, or no descriptor: it is tried again, and again
                for fd in fds:
                    os.close(fd)
                if error.errno == errno.ENOSPC:
                    error.strerror = f"{error.strerror} in {self._base}"  # none of the disks that one looks at first
                raise
        return self._files[slot]

    def _create(self, name: str, flags: int, size: int = 0, mode: int = 0o644) -> int:
        os.makedirs(self.path, 0o700, exist_ok=True)  # a cleaner of /tmp may have been here
        path = f"{self.path}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.new")  # where an earlier try has ended
        # With --user the directory is the workers': a link that they leave there must not lead root astray
        fd = os.open(f"{path}.new", flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, mode)  # whatever the umask
            if size:
                _allocate(fd, size)
            os.rename(f"{path}.new", path)  # whoever looks finds it whole
        except OSError:
            os.close(fd)
            raise
        return fd

    def remove(self) -> None:
        """Remove the directory, as the server has ended."""
        if self.path:
            _remove(self.path)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.write(fd, bytes(size))  # macOS


def default_base() -> str:
    """The default of --worker-tmp-dir: /dev/shm where there is one, so that no slow disk stalls a beat; else TMPDIR."""
    if os.access("/dev/shm", os.W_OK | os.X_OK):
        return "/dev/shm"
    return scratch.directory()


def remove_abandoned(base: str) -> None:
    """Remove the directories of servers of ours that were killed."""
    try:
        names = os.listdir(base)
    except OSError:
        return  # missing, which is told when ours is made, or not ours to list
    for path in [f"{base}/{name}" for name in names if name.startswith(PREFIX)]:
        try:
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or not _is_ours(path, status):
                continue
            if _is_abandoned(path, time.time() - status.st_mtime):
                _remove(path)
        except OSError:
            continue  # another start cleans up at the same time


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # another start cleans up at the same time
        folder = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in os.listdir(folder):
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(path)


def _is_ours(path: str, status: os.stat_result) -> bool:
    """Whether we have made it: it is ours, or it was given to the workers' user, and its lock is ours."""
    return status.st_uid == os.geteuid() or os.lstat(f"{path}/{LOCK}").st_uid == os.geteuid()


def _is_abandoned(path: str, age: float) -> bool:
    try:
        fd = os.open(f"{path}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return age > _ABANDONED
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
