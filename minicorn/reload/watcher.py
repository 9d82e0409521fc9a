"""The watcher: a child of the arbiter's with watchdog's threads in it; it tells which files have changed.

Watchdog says where to look; whether a file has changed is decided by its contents. The stamps
of all files are taken at the start, their contents are read when the application has been
imported, so that its start is not slowed. A file that was changed since the server was begun
counts as changed, whatever came first: no edit is missed before the first import.

Few recursive watches, as each is a thread: where a tree has an excluded directory in it, its
directories are watched one by one, and what is free of such is watched as a whole. Where the
system cannot tell of changes, or a thread of watchdog's has died, all files are looked at every two
seconds. After a loss of events the watch is begun anew, as new directories may be among what was
lost, and all files are looked at once.

No event tells that a directory has been renamed which is watched, or one above it: whether each is
still the one that has its name is looked at every two seconds.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError, ExitCode
from minicorn.logs.logger import LOGGER
from minicorn.reload.changes import CACHES, Filter, Print
from minicorn.reload.places import FOREIGN, file_system, outermost, plan_watches
from minicorn.reload.sweep import Marks, Sweep
from minicorn.system import channel
from minicorn.system.channel import Channel
from minicorn.system.title import set_title
from minicorn.system.wakeup import Wakeup

# An event that may be half of a save (truncated, removed to be replaced) is looked into so much later
HALF = 0.04
POLL_INTERVAL = 2.0
# A quarter of the events that the kernel keeps for a slow reader: before 7.1 watchdog does not say that some were lost
CROWD = 4000
# Seconds from a loss to a new watch: what had come in so great a number may have ended by then
LOSS_PATIENCE = 0.5
# More watches than this, and the whole tree is one
WATCHES_MOST = 48
_CLOCK_REALTIME_COARSE = 5  # linux/time.h
Identity = tuple[int, int]
_WHOLE = frozenset({"closed", "moved"})
_TOLD = frozenset({"created", "modified", "moved", "deleted", "closed"})


class Watcher:
    """One watcher process, from its fork to its end."""

    def __init__(self, settings: Settings, here: str, began: float) -> None:
        """`here`: where relative paths begin; `began`: what the system's clock said before the first import."""
        self._here = here
        extra = [os.path.join(here, path) for path in settings.reload_extra_file]
        # A glob with a slash in it means a path from here
        exclude = [os.path.join(here, glob) if "/" in glob.rstrip("/") else glob for glob in settings.reload_exclude]
        self._filter = Filter(settings.reload_include, exclude, map(os.path.normpath, extra))
        given = (os.path.realpath(os.path.join(here, path)) for path in settings.reload_dir)
        self._roots = dict.fromkeys(outermost([here, *given]), True)  # each with whether what is below counts
        self._identities: dict[str, Identity] = {}  # of the roots when they were begun to be watched
        self._flat: set[str] = set()  # directories watched without what is below
        self._began = int(began * 1e9)
        self._prints: dict[str, Print] = {}
        self._due: dict[str, float] = {}  # paths to look at, and when
        self._sweep = Sweep(self._filter.wants, self._filter.enters)
        self._seen: Marks = {}  # by the last sweep
        self._next_sweep = math.inf
        self._next_identifying = 0.0
        self._polling = False
        self._crowd = 0  # events since the watch was begun
        self._lost = False  # some may have been, since then
        self._death = ""  # of a thread of watchdog's: its cause
        self._heard: deque[tuple[str, str, bool]] = deque()  # kind, path, whether a directory; from watchdog's threads
        self._wakeup = Wakeup()

    def run(self, line: Channel, imported: Mapping[str, bool]) -> ExitCode:
        """Watch until the arbiter has gone; `imported`: the places that a watcher before this one was told of."""
        set_title("minicorn: watcher")
        self._line = line
        log = logging.getLogger("watchdog")
        log.setLevel(logging.WARNING)
        log.addHandler(_Ear(self._lose))
        threading.excepthook = self._mourn
        self._observe()
        for directory, recursive in self._places.items():
            self._begin(directory, recursive)
        self._identities[self._here] = identify(os.curdir)  # where workers began; another may have its name by now
        if imported:
            self._widen(imported.items())
        poll = select.poll()
        for fd in (line.fd, self._wakeup.fd):
            poll.register(fd, select.POLLIN)
        while True:
            self._look()
            wait = min([*self._due.values(), self._next_sweep, self._next_identifying]) - time.monotonic()
            poll.poll(max(0, wait) * 1000)
            messages, alive = line.receive()
            if not alive:
                return ExitCode.OK
            for message in messages:
                self._widen(json.loads(message.text))
            self._listen()
            if time.monotonic() >= self._next_identifying:
                self._identify()
            if time.monotonic() >= self._next_sweep:
                self._look_everywhere()

    # Watching

    def _observe(self) -> None:
        """Start the system's observer."""
        try:
            from watchdog.events import FileSystemEvent, FileSystemEventHandler
            from watchdog.observers import Observer
        except ImportError as error:  # it was there when the server was begun
            raise ConfigError("watchdog cannot be imported any more") from error
        hear = self._hear

        class Handler(FileSystemEventHandler):
            def dispatch(self, event: FileSystemEvent) -> None:
                for path in (event.src_path, event.dest_path):
                    if path:
                        hear(event.event_type, os.fsdecode(path), event.is_directory)

        self._handler = Handler()
        try:
            self._observer = Observer()
            self._observer.start()
        except OSError as error:
            self._poll_instead(error.strerror or str(error))

    @property
    def _places(self) -> dict[str, bool]:
        """What is watched, each with whether what is below counts."""
        return dict.fromkeys(map(os.path.dirname, self._filter.extra), False) | self._roots

    def _poll_instead(self, reason: str) -> None:
        if self._polling:
            return
        LOGGER.warning(
            "files are looked at every %g s, as the system cannot tell of changes: %s", POLL_INTERVAL, reason
        )
        self._polling = True
        self._next_sweep = time.monotonic() + POLL_INTERVAL

    def _begin(self, directory: str, recursive: bool) -> None:
        """Watch `directory`, then take the prints of its files: what comes in between is seen twice."""
        self._watch(directory, recursive)
        for path in self._sweep.look({directory: recursive}):
            self._take(path)

    def _watch(self, directory: str, recursive: bool) -> None:
        self._identities[directory] = identify(directory)
        self._try(self._schedule, directory, recursive)
        self._try(self._probe, directory)

    def _watch_anew(self) -> None:
        """Another observer: the old one has lost events, and with them directories that have come."""
        self._observer.stop()
        self._observer.join()  # its threads count events, and say what they have lost
        self._crowd, self._lost, self._flat = 0, False, set()
        self._observe()
        for directory, recursive in self._places.items():
            self._watch(directory, recursive)

    def _try(self, watch: Callable[..., None], *where: object) -> None:
        """Do what takes watches; once they are not to be had, all files are looked at instead."""
        if self._polling:
            return
        try:
            watch(*where)
        except FileNotFoundError:
            pass  # it has gone meanwhile
        except OSError as error:
            self._observer.stop()
            self._poll_instead(error.strerror or str(error))

    def _schedule(self, directory: str, recursive: bool) -> None:
        if not recursive:
            self._observer.schedule(self._handler, directory, recursive=False)
            return
        flat, whole = plan_watches(directory, self._filter.enters)
        if len(flat) + len(whole) > WATCHES_MOST:
            flat, whole = [], [directory]
        self._flat.update(flat)
        for path in flat + whole:
            self._observer.schedule(self._handler, path, recursive=path in whole)

    def _replace(self, directory: str) -> None:
        """Watch what has come under this name, and nothing any more that had it before."""
        recursive = self._places.get(directory, True)
        for watch in [emitter.watch for emitter in self._observer.emitters]:
            if watch.path == directory or (recursive and watch.path.startswith(directory + os.sep)):
                self._observer.unschedule(watch)
        self._schedule(directory, recursive)

    def _probe(self, directory: str) -> None:
        """OSError when the system does not tell of all changes in `directory`."""
        kind = file_system(directory)
        if kind.startswith(FOREIGN):
            raise OSError(f"{directory} is on {kind}")
        if sys.platform == "linux":
            # Where no further watch is to be had, watchdog has left out in silence some of what is below
            self._observer.unschedule(self._observer.schedule(self._handler, os.sep, recursive=False))

    def _widen(self, places: Iterable[tuple[str, bool]]) -> None:
        """The application has been imported, from these places too (and below them): read what has not been read."""
        for directory, recursive in places:
            if self._is_reached(directory):
                continue
            self._roots = {**self._roots, directory: recursive}  # a new one, as watchdog's threads read it
            self._identities[directory] = identify(directory)
            if recursive or directory not in self._flat:
                self._begin(directory, recursive)
        for path, known in list(self._prints.items()):
            if not known.digest and (now := read_print(path)) is not None and not now.differs(known):
                self._prints[path] = now

    def _take(self, path: str) -> None:
        """A file's first print; what is newer than the server is a change."""
        if path in self._prints:
            return
        try:
            status = os.stat(path)
        except OSError:
            return  # it has gone meanwhile, or is a symlink that leads nowhere
        self._prints[path] = Print(status.st_size, status.st_mtime_ns)
        # The time of the change of the file's entry too: a rename keeps the other
        if max(status.st_ctime_ns, status.st_mtime_ns) >= self._began:
            self._prints[path] = Print(-1, 0)
            self._due[path] = time.monotonic()

    # Events

    def _hear(self, kind: str, path: str, is_directory: bool) -> None:
        """Called by watchdog's threads."""
        self._crowd += 1
        if self._crowd == CROWD:
            self._lose()
        if kind not in _TOLD or (is_directory and kind == "modified") or CACHES in path:
            return
        if is_directory or self._filter.covers(path, self._roots):
            self._heard.append((kind, path, is_directory))
            self._wakeup.ring()

    def _lose(self) -> None:
        """Called by watchdog's threads: events have been lost, or may have been."""
        self._lost = True
        self._wakeup.ring()

    def _mourn(self, death: threading.ExceptHookArgs) -> None:
        """Called by a thread of watchdog's that dies: from now on it may be silent for ever."""
        self._death = f"a thread of watchdog's has died of {death.exc_type.__name__}: {death.exc_value}"
        self._wakeup.ring()

    def _listen(self) -> None:
        self._wakeup.drain()
        now = time.monotonic()
        if self._death:
            self._poll_instead(self._death)
        if self._lost and not self._polling:
            self._next_sweep = min(self._next_sweep, now + LOSS_PATIENCE)
        come = ""
        while self._heard:
            kind, path, is_directory = self._heard.popleft()
            if path in self._places:
                self._identities.pop(path, None)  # a number may have been given again to what came next
                self._next_identifying = now
            elif is_directory:
                come = path if self._enter(path, now) else come
            else:
                whole = kind in _WHOLE and os.path.exists(path)
                self._due[path] = now if whole else self._due.get(path, now + HALF)
        if come:
            self._try(self._probe, come)

    def _enter(self, directory: str, now: float) -> bool:
        """A directory has come or gone; whether it is to be watched from now on."""
        inside = [path for path in self._prints if path.startswith(directory + os.sep)]
        come = os.path.isdir(directory) and (directory in self._places or self._is_reached(directory))
        if come:
            if os.path.dirname(directory) in self._flat or directory in self._places:
                self._try(self._replace, directory)
            inside += self._sweep.look({directory: self._places.get(directory, True)})
        self._due |= dict.fromkeys(inside, now + HALF)
        return come

    def _identify(self) -> None:
        """Take up the roots that are others than those that are watched."""
        now = time.monotonic()
        self._next_identifying = now + POLL_INTERVAL
        for root in sorted(self._places):
            was, identity = self._identities.get(root), identify(root)
            self._identities[root] = identity
            if identity == was:
                continue
            if self._enter(root, now):
                self._try(self._probe, root)
                if root == self._here:  # workers are in the old one, whatever files are in the new
                    self._due[root] = now + HALF
            else:
                LOGGER.warning("%s has gone: it is looked for every %g s", root, POLL_INTERVAL)

    def _is_reached(self, directory: str) -> bool:
        """Whether it is a root, or below one of which that counts."""
        if directory in self._roots:
            return True
        return any(below and self._filter.reaches(directory, root) for root, below in self._roots.items())

    def _look_everywhere(self) -> None:
        """Find by size and time what may have changed."""
        if self._lost and not self._polling:
            self._watch_anew()
        seen = self._sweep.look(self._roots, self._filter.extra)
        now = time.monotonic()
        self._next_sweep = now + POLL_INTERVAL if self._polling else math.inf
        if seen == self._seen:
            return
        self._seen = seen
        for path in seen.keys() | self._prints.keys():
            known = self._prints.get(path)
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
            self._line.send(channel.CHANGED, json.dumps(kinds))

    def _compare(self, path: str) -> str:
        """How the file has changed: "modified", "created", "deleted", or "" for not at all."""
        if path == self._here:
            return "created"
        known, now = self._prints.get(path), read_print(path)
        if now is None:
            return "deleted" if self._prints.pop(path, None) else ""
        self._prints[path] = now
        if known is None:
            return "created"
        return "modified" if now.differs(known) else ""


class _Ear(logging.Handler):
    """For watchdog's log: what it warns of is that it has lost events."""

    def __init__(self, lose: Callable[[], None]) -> None:
        super().__init__()
        self._lose = lose

    def emit(self, record: logging.LogRecord) -> None:
        self._lose()


def identify(directory: str) -> Identity:
    """Which directory has this name now; the same for none."""
    try:
        status = os.stat(directory)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def read_print(path: str) -> Print | None:
    """The print of a file with its digest; None when there is none to read."""
    import hashlib  # loads OpenSSL, which the arbiter has no use for

    try:
        with open(path, "rb") as file:
            data = file.read()
            stamp = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None
    return Print(len(data), stamp, hashlib.blake2b(data, digest_size=16).hexdigest())


def coarse_time() -> float:
    """The clock that files are stamped with."""
    return time.clock_gettime(_CLOCK_REALTIME_COARSE) if sys.platform == "linux" else time.time()
