"""Temporary files for what clients make us hold: however slow they are, the disk is not filled with it.

The last part of it is left to others. Beyond that it is as if there were no room at all: what a
client does not take stays in memory, and when that is too much the slowest goes.
"""

from __future__ import annotations

import errno
import os

from minicorn.system import scratch

# Bytes left free: this part of the file system, and so much at most
LEFT_PART, LEFT_MOST = 8, 2**28


def check_room(size: int) -> None:
    """OSError when `size` bytes more in temporary files would be too many."""
    disk = os.statvfs(scratch.directory())
    left = min(disk.f_blocks * disk.f_frsize // LEFT_PART, LEFT_MOST)
    if disk.f_blocks and disk.f_bavail * disk.f_frsize - size < left:  # no blocks at all: it does not tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
