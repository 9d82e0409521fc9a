"""Watchdog, as the watcher sees it: what to watch goes in, what has happened there comes out.

Its threads only note events and ring; whoever takes those does so in a thread of its own. It tells
when it may have lost some (`lost`), as it does in a crowd of them, and why it cannot tell of any more
(`failure`): no further watch is to be had, a file system changes behind the kernel's back, a thread
of watchdog's has died. From then on nothing is watched by it.

Few recursive watches, as each is a thread: where a tree has an excluded directory in it, its
directories are watched one by one, and what is free of such is watched as a whole.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

from minicorn.errors import ConfigError
from minicorn.reload.changes import CACHES
from minicorn.reload.places import FOREIGN, file_system, plan_watches
from minicorn.system.wakeup import Wakeup

# A quarter of the events that the kernel keeps for a slow reader: before 7.1 watchdog does not say that some were lost
CROWD = 4000
# Most watches for one tree; where it needs more, the whole tree is one watch
WATCHES_MOST = 48
_TOLD = frozenset({"created", "modified", "moved", "deleted", "closed"})
Event = tuple[str, str, bool]  # kind, path, whether of a directory


class Observer:
    """The system's observer, and those that replace it; one in a process, whose threads are watchdog's alone."""

    def __init__(self, enters: Callable[[str], bool], covers: Callable[[str], bool]) -> None:
        """`enters` says which directories below a watched one count; `covers`, in watchdog's threads, which files."""
        self._enters = enters
        self._covers = covers
        self._flat: set[str] = set()  # directories watched without what is below
        self._batch = 0  # events since it was started
        self._heard: deque[Event] = deque()
        self._wakeup = Wakeup()
        self.fd = self._wakeup.fd  # readable when there is something to `take`, or to know
        self.lost = False  # some events may have been, since it was started
        self.failure = ""
        log = logging.getLogger("watchdog")
        log.setLevel(logging.WARNING)
        log.addHandler(_Ear(self._lose))
        threading.excepthook = self._mourn
        self._start()

    def _start(self) -> None:
        try:
            from watchdog.events import FileSystemEvent, FileSystemEventHandler
            from watchdog.observers import Observer as SystemsObserver
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
            self._observer = SystemsObserver()
            self._observer.start()
        except OSError as error:
            self.failure = error.strerror or str(error)

    def restart(self) -> None:
        """Watch nothing any more, by an observer that has lost nothing yet."""
        self._observer.stop()
        self._observer.join()  # its threads count events, and say what they have lost
        self._batch, self.lost, self._flat = 0, False, set()
        self._start()

    def watch(self, directory: str, recursive: bool) -> None:
        """Watch a directory, and with `recursive` what is below and entered."""
        self._try(self._schedule, directory, recursive)
        self.probe(directory)

    def watch_again(self, directory: str, recursive: bool) -> None:
        """Watch what has come under this name, and nothing any more that had it before."""
        self._try(self._replace, directory, recursive)

    def probe(self, directory: str) -> None:
        """See whether the system tells of all changes in `directory`."""
        self._try(self._probe, directory)

    def is_flat(self, directory: str) -> bool:
        """Whether it is watched without what is below."""
        return directory in self._flat

    def take(self) -> list[Event]:
        """Take the events that have come, in order."""
        self._wakeup.drain()
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def _try(self, watch: Callable[..., None], *where: object) -> None:
        """Do what takes watches, until they are not to be had."""
        if self.failure:
            return
        try:
            watch(*where)
        except FileNotFoundError:
            pass  # it has gone meanwhile
        except OSError as error:
            self._observer.stop()
            self.failure = error.strerror or str(error)

    def _schedule(self, directory: str, recursive: bool) -> None:
        if not recursive:
            self._observer.schedule(self._handler, directory, recursive=False)
            return
        flat, whole = plan_watches(directory, self._enters)
        if len(flat) + len(whole) > WATCHES_MOST:
            flat, whole = [], [directory]
        self._flat.update(flat)
        for path in flat + whole:
            self._observer.schedule(self._handler, path, recursive=path in whole)

    def _replace(self, directory: str, recursive: bool) -> None:
        for watch in [emitter.watch for emitter in self._observer.emitters]:
            if watch.path == directory or (recursive and watch.path.startswith(directory + os.sep)):
                self._observer.unschedule(watch)
        self._schedule(directory, recursive)

    def _probe(self, directory: str) -> None:
        kind = file_system(directory)
        if kind.startswith(FOREIGN):
            raise OSError(f"{directory} is on {kind}")
        if sys.platform == "linux":
            # One more watch, on trial: where none is to be had, watchdog has silently left out some of what is below
            self._observer.unschedule(self._observer.schedule(self._handler, os.sep, recursive=False))

    # Called by watchdog's threads

    def _hear(self, kind: str, path: str, is_directory: bool) -> None:
        self._batch += 1
        if self._batch == CROWD:
            self._lose()
        if kind not in _TOLD or (is_directory and kind == "modified") or CACHES in path:
            return
        if is_directory or self._covers(path):
            self._heard.append((kind, path, is_directory))
            self._wakeup.ring()

    def _lose(self) -> None:
        self.lost = True
        self._wakeup.ring()

    def _mourn(self, death: threading.ExceptHookArgs) -> None:
        """Note that a thread has died: from now on the observer may be silent for ever."""
        self.failure = f"a thread of watchdog's has died of {death.exc_type.__name__}: {death.exc_value}"
        self._wakeup.ring()


class _Ear(logging.Handler):
    """Listens to watchdog's log: what that warns of is that it has lost events."""

    def __init__(self, lose: Callable[[], None]) -> None:
        super().__init__()
        self._lose = lose

    def emit(self, record: logging.LogRecord) -> None:
        self._lose()
