"""Unnamed files, on disk for what does not fit in memory: `tempfile`'s, without its import where Linux helps.

`tempfile` brings compression, hashing and random numbers into each process, for a name that none of
these files has.

However slow clients are, the disk is not filled with what they make us hold: the last part of it is left
to others. Beyond that it is as if there were no room at all.
"""

from __future__ import annotations

import errno
import os

from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO


# What is left free: one part in so many of the file system, and so many bytes at most
LEFT_PART, LEFT_MOST = 8, 2**28


def directory() -> str:
    """The directory of such files: $TMPDIR, if that is there, or /tmp."""
    wanted = os.environ.get("TMPDIR", "")
    return wanted if os.path.isdir(wanted) else "/tmp"


def open_scratch(buffering: int = -1) -> IO[bytes]:
    """Open a new file, which is gone with its last descriptor; OSError where there is no room."""
    try:
        fd = os.open(directory(), os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError) as error:  # no Linux, no room, or a file system that does not know it
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # the import would fail as well
        import tempfile

        return tempfile.TemporaryFile(buffering=buffering)
    return os.fdopen(fd, "w+b", buffering)


def check_room(size: int) -> None:
    """Raise OSError when `size` bytes more in such files would be too many."""
    disk = os.statvfs(directory())
    left = min(disk.f_blocks * disk.f_frsize // LEFT_PART, LEFT_MOST)
    if disk.f_blocks and disk.f_bavail * disk.f_frsize - size < left:  # no blocks at all: it does not tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_memory() -> IO[bytes]:
    """Open a small file in memory where there is Linux, unbuffered: no directory need be writable, nor have room."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("minicorn"), "w+b", buffering=0)
    return open_scratch(buffering=0)
