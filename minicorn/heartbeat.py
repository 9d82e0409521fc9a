"""Heartbeats: a mapped temp file a worker, in a private directory in memory.

A beat is a store into memory, no system call. The worker writes a promise, not a time stamp:
"judge me late after this monotonic instant". The same page says what it is doing, so that a
kill can name the request. Pages are made by the arbiter before the fork and mapped by both;
their blocks are allocated then, since a store into a hole of a full tmpfs is SIGBUS.
"""

import fcntl
import mmap
import os
import shutil
import struct
import tempfile
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from minicorn.errors import ConfigError

VERSION = 1
SIZE = 4096
# Layout: eight-byte fields, then a text: the client, a line feed, the request
_VERSION, _REQUESTS, _DEADLINE, _SINCE, _STATE, _LENGTH = range(6)
_BEGUN, _BEGUN_AT = struct.Struct("@ddQQ"), 8 * _DEADLINE
_BEGUN_END = _BEGUN_AT + _BEGUN.size
_TEXT, _TEXT_MOST = 64, 2048

PREFIX = "minicorn-"
LOCK = "lock"
_ABANDONED = 60.0  # a directory without a lock file for so long is nobody's


class Activity(IntEnum):
    """What a worker is doing."""

    BOOTING = 0
    IDLE = 1
    BUSY = 2  # inside the application


@dataclass(frozen=True, slots=True)
class Beat:
    """A page as it was read: times are monotonic seconds."""

    activity: Activity
    requests: int
    deadline: float
    since: float
    request: str  # "GET /path", the last one while idle
    client: str

    def describe(self, now: float) -> str:
        """What the worker has been doing, and for how long."""
        took = f"{max(0.0, now - self.since):.1f} s"
        if self.activity is Activity.BUSY:
            return f"{took} in {self.request}" + (f" for {self.client}" if self.client else "")
        return f"{took} booting" if self.activity is Activity.BOOTING else f"idle for {took}"


class Page:
    """One worker's page. Written by the worker; before the fork, by the arbiter."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._numbers = memoryview(memory).cast("Q")
        self._times = memoryview(memory).cast("d")

    def reset(self, deadline: float, now: float) -> None:
        """A new worker is about to be forked: it must be READY by `deadline`."""
        self._memory[:] = bytes(SIZE)
        self._numbers[_VERSION] = VERSION
        self._times[_DEADLINE] = deadline
        self._times[_SINCE] = now

    def promise(self, deadline: float) -> None:
        """Judge me late after `deadline`."""
        self._times[_DEADLINE] = deadline

    def extend(self, seconds: float) -> None:
        """Put the promise off."""
        self._times[_DEADLINE] += seconds

    def begin(self, request: str, client: str, now: float, deadline: float) -> None:
        """The application is called for `request`, and answers by `deadline`."""
        text = f"{client}\n{request}".encode("latin-1", "replace")[:_TEXT_MOST]
        self._memory[_TEXT : _TEXT + len(text)] = text
        # Not pack_into: it clears its place first, and a deadline that is seen as 0 is a killed worker
        self._memory[_BEGUN_AT:_BEGUN_END] = _BEGUN.pack(deadline, now, Activity.BUSY, len(text))

    def end(self, now: float) -> None:
        """The application is done."""
        self._numbers[_REQUESTS] += 1
        self.idle(now)

    def idle(self, now: float) -> None:
        self._times[_SINCE] = now
        self._numbers[_STATE] = Activity.IDLE

    @property
    def requests(self) -> int:
        """Requests that the application has answered."""
        return self._numbers[_REQUESTS]

    @property
    def deadline(self) -> float:
        return self._times[_DEADLINE]

    def read(self) -> Beat:
        activity = self._numbers[_STATE]
        text = self._memory[_TEXT : _TEXT + min(self._numbers[_LENGTH], _TEXT_MOST)].decode("latin-1")
        client, _, request = text.partition("\n")
        return Beat(
            Activity(activity) if activity in Activity._value2member_map_ else Activity.IDLE,
            self._numbers[_REQUESTS],
            self._times[_DEADLINE],
            self._times[_SINCE],
            request,
            client,
        )


class IdleMap:
    """Which workers wait for work: a byte a slot, in memory that all share."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        """`slots`: the highest number that is looked at."""
        self._memory = memory
        self._slots = min(slots + 1, SIZE)

    def mark(self, slot: int, idle: bool) -> None:
        """Said by the slot's worker; cleared by the arbiter when it has gone."""
        self._memory[slot] = idle

    def count(self) -> int:
        """How many wait. It may have changed by now: nothing but speed may depend on it."""
        return self._memory[: self._slots].count(1)


def private_idle_map() -> IdleMap:
    """A map for a server without siblings."""
    return IdleMap(mmap.mmap(-1, SIZE), 1)


def private_page() -> Page:
    """A page that nobody else sees, for a server without an arbiter."""
    return Page(mmap.mmap(-1, SIZE))


class Identity:
    """`environ["minicorn.worker"]`: which worker answers."""

    def __init__(self, slot: int, generation: int, page: Page) -> None:
        self.slot = slot
        self.generation = generation
        self.pid = os.getpid()
        self._page = page

    @property
    def requests(self) -> int:
        """Requests answered before this one."""
        return self._page.requests

    def __repr__(self) -> str:
        return f"<worker {self.slot} gen {self.generation} pid {self.pid}>"


class _Files:
    """What the arbiter holds open of one slot."""

    def __init__(self, page_fd: int, stack_fd: int) -> None:
        self.page_fd = page_fd
        self.stack_fd = stack_fd
        self.page = Page(mmap.mmap(page_fd, SIZE))


class Directory:
    """A server's private directory of pages: `<base>/minicorn-xxxx/`, mode 0700, with a lock file
    that tells a live server from a dead one (every container is pid 1)."""

    def __init__(self, base: str | None) -> None:
        """A new one below `base`; ConfigError when there cannot be any."""
        self._base = base or default_base()
        self._files: dict[int, _Files] = {}
        self.path, self.lock_fd = "", -1
        try:
            remove_abandoned(Path(self._base))
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=self._base)
            # Locked before it has its name: nobody ever finds it unlocked
            self.lock_fd = os.open(f"{self.path}/{LOCK}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.lockf(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f"{self.path}/{LOCK}.new", f"{self.path}/{LOCK}")
            self.idle_fd = self._create("idle", os.O_RDWR)
        except OSError as error:
            self.remove()
            raise ConfigError(f"--worker-tmp-dir: cannot use {self._base}: {error.strerror}") from error

    def page(self, slot: int) -> Page:
        """The page of `slot`, made when it is first wanted; OSError when there is no room."""
        return self._file(slot).page

    def stack_fd(self, slot: int) -> int:
        """Where the slot's worker writes its stack when it is aborted or crashes; empty now."""
        fd = self._file(slot).stack_fd
        os.ftruncate(fd, 0)
        return fd

    def read_stack(self, slot: int) -> str:
        return os.pread(self._file(slot).stack_fd, 65536, 0).decode("utf-8", "replace").strip()

    def idle_map(self, slots: int) -> IdleMap:
        """The map that all workers share."""
        return IdleMap(mmap.mmap(self.idle_fd, SIZE), slots)

    @property
    def descriptors(self) -> dict[str, tuple[int, int]]:
        """Slot: page and stack, for the arbiter's next image."""
        return {str(slot): (files.page_fd, files.stack_fd) for slot, files in self._files.items()}

    @classmethod
    def adopt(cls, path: str, lock_fd: int, idle_fd: int, descriptors: dict[str, tuple[int, int]]) -> "Directory":
        """The directory of the image before, by its descriptors."""
        directory = cls.__new__(cls)
        directory.path, directory.lock_fd, directory.idle_fd = path, lock_fd, idle_fd
        directory._base = os.path.dirname(path)
        directory._files = {int(slot): _Files(page_fd, stack_fd) for slot, (page_fd, stack_fd) in descriptors.items()}
        return directory

    def _file(self, slot: int) -> "_Files":
        if slot not in self._files:
            fds: list[int] = []
            try:
                fds.append(self._create(str(slot), os.O_RDWR))
                fds.append(self._create(f"{slot}.stack", os.O_RDWR | os.O_APPEND))
                self._files[slot] = _Files(*fds)
            except OSError:  # no room, or no descriptor: it is tried again, and again
                for fd in fds:
                    os.close(fd)
                raise
        return self._files[slot]

    def _create(self, name: str, flags: int) -> int:
        os.makedirs(self.path, 0o700, exist_ok=True)  # a cleaner of /tmp may have been here
        fd = os.open(f"{self.path}/{name}", flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not flags & os.O_APPEND:
                _allocate(fd, SIZE)
        except OSError:
            os.close(fd)
            raise
        return fd

    def remove(self) -> None:
        """The server has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.write(fd, bytes(size))  # macOS


def default_base() -> str:
    """/dev/shm where it exists, so that a slow disk never stalls a beat; else the temp directory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else tempfile.gettempdir()


def remove_abandoned(base: Path) -> None:
    """Remove the directories of servers of ours that were killed."""
    for path in base.glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            if status.st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
                continue
            if _is_abandoned(path, time.time() - status.st_mtime):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another start cleans up at the same time


def _is_abandoned(path: Path, age: float) -> bool:
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return age > _ABANDONED
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
