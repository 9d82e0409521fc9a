"""The watcher: a child of the arbiter's that tells which files have changed.

The observer says where to look; whether a file has changed is decided by its contents. The stamps
of all files are taken at the start, their contents are read when the application has been
imported, so that its start is not slowed. A file that was changed since the server was begun
counts as changed, whatever came first: no edit is missed before the first import.

Where the observer cannot tell of changes, all files are looked at every two seconds. After a loss of
events it is begun anew, as new directories may be among what was lost, and all files are looked at
once.

No event tells that a directory has been renamed which is watched, or one above it: whether each is
still the one that has its name is looked at every two seconds.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Iterable, Mapping

from minicorn.config.settings import Settings
from minicorn.errors import ExitCode
from minicorn.logs.logger import LOGGER
from minicorn.reload.changes import INCLUDED, Filter, Fingerprint
from minicorn.reload.observer import Observer
from minicorn.reload.places import outermost
from minicorn.reload.sweep import Marks, Sweep
from minicorn.system import channel
from minicorn.system.channel import Channel

# Seconds until a file is looked at, after an event that may be half of a save (truncated, removed to be replaced)
HALF = 0.04
POLL_INTERVAL = 2.0
# Seconds from a loss of events to a new watch: the crowd of them may have ended by then
LOSS_PATIENCE = 0.5
_CLOCK_REALTIME_COARSE = 5  # linux/time.h
Identity = tuple[int, int]
_WHOLE = frozenset({"closed", "moved"})


class Watcher:
    """One watcher process, from its fork to its end."""

    def __init__(self, settings: Settings, here: str, began: float, line: Channel) -> None:
        """`here`: where relative paths begin; `began`: what the system's clock said before the first import;
        `line`: to the arbiter."""
        self._here = here
        self._line = line
        extra = [os.path.join(here, path) for path in settings.reload_extra_file]
        if os.path.isabs(settings.config):
            extra.append(settings.config)
        # A glob with a slash in it means a path from here
        include, exclude = (
            [os.path.join(here, glob) if "/" in glob.rstrip("/") else glob for glob in globs]
            for globs in (settings.reload_include or INCLUDED, settings.reload_exclude)
        )
        self._filter = Filter(include, exclude, map(os.path.normpath, extra))
        given = (os.path.realpath(os.path.join(here, path)) for path in settings.reload_dir)
        self._roots = dict.fromkeys(outermost([here, *given]), True)  # each with whether what is below counts
        self._identities: dict[str, Identity] = {}  # of the roots when they were begun to be watched
        self._links: dict[str, str] = {}  # symlinked places that were imported from, and where they led then
        self._began = int(began * 1e9)
        self._fingerprints: dict[str, Fingerprint] = {}
        self._due: dict[str, float] = {}  # paths to look at, and when
        self._sweep = Sweep(self._filter.wants, self._filter.enters)
        self._seen: Marks = {}  # by the last sweep
        self._next_sweep = math.inf
        self._next_identifying = 0.0
        self._polling = False
        self._observer = Observer(self._filter.enters, lambda path: self._filter.covers(path, self._roots))

    def run(self, imported: Mapping[str, bool]) -> ExitCode:
        """Watch until the arbiter has gone; `imported`: the places that a watcher before this one was told of."""
        for directory, recursive in self._places.items():
            self._begin(directory, recursive)
        self._identities[self._here] = identify(os.curdir)  # where workers began; another may have its name by now
        if imported:
            self._widen(imported.items())
        poll = select.poll()
        for fd in (self._line.fd, self._observer.fd):
            poll.register(fd, select.POLLIN)
        while True:
            self._look()
            self._judge_observer()
            wait = min([*self._due.values(), self._next_sweep, self._next_identifying]) - time.monotonic()
            poll.poll(max(0, wait) * 1000)
            messages, alive = self._line.receive()
            if not alive:
                return ExitCode.OK
            for message in messages:
                self._widen(message.value)
            self._listen()
            if time.monotonic() >= self._next_identifying:
                self._identify()
            if time.monotonic() >= self._next_sweep:
                self._look_everywhere()

    # Watching

    @property
    def _places(self) -> dict[str, bool]:
        """The directories that are watched, each with whether what is below counts."""
        return dict.fromkeys(map(os.path.dirname, self._filter.extra), False) | self._roots

    def _judge_observer(self) -> None:
        """Look at all files soon where it has lost events, and again and again where it cannot tell of any."""
        now = time.monotonic()
        if self._observer.failure and not self._polling:
            reason = f"as the system cannot tell of changes: {self._observer.failure}"
            LOGGER.warning("files are looked at every %g s, %s", POLL_INTERVAL, reason)
            self._polling = True
            self._next_sweep = now + POLL_INTERVAL
        elif self._observer.lost and not self._polling:
            self._next_sweep = min(self._next_sweep, now + LOSS_PATIENCE)

    def _begin(self, directory: str, recursive: bool) -> None:
        """Watch `directory`, then take the fingerprints of its files: what comes in between is seen twice."""
        self._watch(directory, recursive)
        for path in self._sweep.look({directory: recursive}):
            self._take(path)

    def _watch(self, directory: str, recursive: bool) -> None:
        self._identities[directory] = identify(directory)
        self._observer.watch(directory, recursive)

    def _widen(self, places: Iterable[tuple[str, bool]]) -> None:
        """The application has been imported, from these places too (and below them): read what has not been read."""
        for directory, recursive in places:
            if (leads := os.path.realpath(directory)) != directory:
                self._links.setdefault(directory, leads)
                continue
            if self._is_reached(directory):
                continue
            self._roots = {**self._roots, directory: recursive}  # a new one, as watchdog's threads read it
            self._identities[directory] = identify(directory)
            if recursive or not self._observer.is_flat(directory):
                self._begin(directory, recursive)
        for path, known in list(self._fingerprints.items()):
            if not known.digest and (now := read_fingerprint(path)) is not None and not now.differs(known):
                self._fingerprints[path] = now

    def _take(self, path: str) -> None:
        """Take a file's first fingerprint; one that is newer than the server counts as changed."""
        if path in self._fingerprints:
            return
        try:
            status = os.stat(path)
        except OSError:
            return  # it has gone meanwhile, or is a symlink that leads nowhere
        self._fingerprints[path] = Fingerprint(status.st_size, status.st_mtime_ns)
        # Also by the time at which its entry was changed, since a rename keeps the other
        if max(status.st_ctime_ns, status.st_mtime_ns) >= self._began:
            self._fingerprints[path] = Fingerprint(-1, 0)
            self._due[path] = time.monotonic()

    # Events

    def _listen(self) -> None:
        events = self._observer.take()
        now = time.monotonic()
        come = ""
        for kind, path, is_directory in events:
            if path in self._places:
                self._identities.pop(path, None)  # a number may have been given again to what came next
                self._next_identifying = now
            elif is_directory:
                come = path if self._enter(path, now) else come
            else:
                whole = kind in _WHOLE and os.path.exists(path)
                self._due[path] = now if whole else self._due.get(path, now + HALF)
        if come:
            self._observer.probe(come)

    def _enter(self, directory: str, now: float) -> bool:
        """A directory has come or gone; whether it is to be watched from now on."""
        inside = [path for path in self._fingerprints if path.startswith(directory + os.sep)]
        come = os.path.isdir(directory) and (directory in self._places or self._is_reached(directory))
        if come:
            recursive = self._places.get(directory, True)
            if self._observer.is_flat(os.path.dirname(directory)) or directory in self._places:
                self._observer.watch_again(directory, recursive)
            inside += self._sweep.look({directory: recursive})
        self._due |= dict.fromkeys(inside, now + HALF)
        return come

    def _identify(self) -> None:
        """Take up the roots that are others than those that are watched, and the links that lead elsewhere."""
        now = time.monotonic()
        self._next_identifying = now + POLL_INTERVAL
        for root in sorted(self._places):
            was, identity = self._identities.get(root), identify(root)
            self._identities[root] = identity
            if identity == was:
                continue
            if self._enter(root, now):
                self._observer.probe(root)
                if root == self._here:  # workers are in the old one, whatever files are in the new
                    self._due[root] = now + HALF
            else:
                LOGGER.warning("%s has gone: it is looked for every %g s", root, POLL_INTERVAL)
        for link, led in self._links.items():
            if (leads := os.path.realpath(link)) != led:
                self._links[link] = leads
                self._due[link] = now + HALF

    def _is_reached(self, directory: str) -> bool:
        """Whether it is a root, or below one of which that counts."""
        if directory in self._roots:
            return True
        return any(below and self._filter.reaches(directory, root) for root, below in self._roots.items())

    def _look_everywhere(self) -> None:
        """Find by size and time what may have changed."""
        if self._observer.lost and not self._polling:
            self._observer.restart()
            for directory, recursive in self._places.items():
                self._watch(directory, recursive)
        seen = self._sweep.look(self._roots, self._filter.extra)
        now = time.monotonic()
        self._next_sweep = now + POLL_INTERVAL if self._polling else math.inf
        if seen == self._seen:
            return
        self._seen = seen
        for path in seen.keys() | self._fingerprints.keys():
            known = self._fingerprints.get(path)
            if known is None or seen.get(path) != (known.size, known.stamp):
                self._due.setdefault(path, now + HALF)

    def _look(self) -> None:
        """See whether the files that are due have changed, and tell."""
        now = time.monotonic()
        due = [path for path, at in self._due.items() if at <= now]
        kinds = {}
        for path in due:
            del self._due[path]
            if kind := self._compare(path):
                kinds[path if path == self._here else os.path.relpath(path, self._here)] = kind
        if kinds:
            self._line.send(channel.CHANGED, kinds)

    def _compare(self, path: str) -> str:
        """How the file has changed: "modified", "created", "deleted", or "" for not at all."""
        if path == self._here:
            return "created"
        if path in self._links:
            return "modified"
        known, now = self._fingerprints.get(path), read_fingerprint(path)
        if now is None:
            return "deleted" if self._fingerprints.pop(path, None) else ""
        self._fingerprints[path] = now
        if known is None:
            return "created"
        return "modified" if now.differs(known) else ""


def identify(directory: str) -> Identity:
    """Device and inode of the directory that has this name now; (0, 0) for none."""
    try:
        status = os.stat(directory)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def read_fingerprint(path: str) -> Fingerprint | None:
    """The fingerprint of a file with its digest; None when there is none to read."""
    import hashlib  # loads OpenSSL, which the arbiter has no use for

    try:
        with open(path, "rb") as file:
            data = file.read()
            stamp = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None
    return Fingerprint(len(data), stamp, hashlib.blake2b(data, digest_size=16).hexdigest())


def coarse_time() -> float:
    """The time of the clock that files are stamped with, in seconds since the epoch."""
    return time.clock_gettime(_CLOCK_REALTIME_COARSE) if sys.platform == "linux" else time.time()
