"""Unnamed files, on disk for what does not fit in memory: `tempfile`'s, without its import where Linux helps.

`tempfile` brings compression, hashing and random numbers into each process, for a name that none of
these files has.
"""

from __future__ import annotations

import errno
import os

from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO


def directory() -> str:
    """Where they are: $TMPDIR, if that is there, or /tmp."""
    wanted = os.environ.get("TMPDIR", "")
    return wanted if os.path.isdir(wanted) else "/tmp"


def open_scratch(buffering: int = -1) -> IO[bytes]:
    """A new one, gone with its last descriptor; OSError where there is no room."""
    try:
        fd = os.open(directory(), os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError) as error:  # no Linux, no room, or a file system that does not know it
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # the import would fail as well
        import tempfile

        return tempfile.TemporaryFile(buffering=buffering)
    return os.fdopen(fd, "w+b", buffering)


def open_memory() -> IO[bytes]:
    """A small one in memory, unbuffered, where there is Linux: no directory need be writable, nor have room."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("minicorn"), "w+b", buffering=0)
    return open_scratch(buffering=0)
