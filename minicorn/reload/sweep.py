"""Where the system tells of no change: all files looked at again and again, by size and time.

A directory is listed anew only when it has changed itself, so that one `stat` a file is what it costs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from minicorn.record import Value

# Nanoseconds for which a directory counts as changed just now: it may change again within one step of its time stamp
FRESH = 2_000_000_000

Marks = dict[str, tuple[int, int]]


class Listing(Value):
    """The entries of a directory that count, listed when its time was `stamp`; another may come under its name."""

    stamp: int
    inode: int
    files: list[str]
    below: list[str]


class Sweep:
    """Looks at trees again and again; `wants` and `enters` say which of their files and directories count."""

    def __init__(self, wants: Callable[[str], bool], enters: Callable[[str], bool]) -> None:
        self._wants = wants
        self._enters = enters
        self._listings: dict[str, Listing] = {}

    def look(self, places: Mapping[str, bool], files: Iterable[str] = ()) -> Marks:
        """Size and time of each file in `places`, with what is below where that is true, and of `files`."""
        found: Marks = {}
        self._mark(files, found)
        for place, recursive in places.items():
            waiting = [place]
            while waiting:
                listing = self._list(waiting.pop())
                self._mark(listing.files, found)
                if recursive:
                    waiting += listing.below
        return found

    def _mark(self, files: Iterable[str], found: Marks) -> None:
        for path in files:
            try:
                status = os.stat(path)
            except OSError:
                continue  # it has gone, or is a symlink that leads nowhere
            found[path] = (status.st_size, status.st_mtime_ns)

    def _list(self, directory: str) -> Listing:
        known = self._listings.get(directory)
        files: list[str] = []
        below: list[str] = []
        try:
            status = os.stat(directory)
            stamp, inode = status.st_mtime_ns, status.st_ino
            if known is not None and (known.stamp, known.inode) == (stamp, inode):
                return known
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if self._enters(entry.path):
                            below.append(entry.path)
                    elif self._wants(entry.path):
                        files.append(entry.path)
        except OSError:  # it has gone, or is not ours to read
            stamp = inode = 0
        trusted = stamp if time.time_ns() - stamp > FRESH else 0
        listing = self._listings[directory] = Listing(trusted, inode, files, below)
        return listing
