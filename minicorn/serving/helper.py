"""The helper: a thread that keeps clients moving while the application works.

One lock says who may touch connections. The main thread holds it always, except while it is
inside the application (`release` ... `acquire`). When it has been there for `patience` seconds, the
helper takes the lock and runs one turn of the server's own loop, again and again until the
main thread is back. It never runs application code, and C code that keeps the GIL stops it too.

It sleeps while nothing happens, so it costs an idle process no wake-up; a request costs it
two lock operations. It is joined before a fork, and started again in the parent when no thread
is forking any more: several may at once. No lock of its own is held across one.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

# Looks that do not find the main thread in the application, before the helper sleeps until it is called
_LOOKS = 20


class Helper:
    """The helper thread of one server, and the lock over its connections."""

    def __init__(self, patience: float, help: Callable[[], None]) -> None:
        """`patience`: seconds in the application before the helper helps; `help`: one turn of the loop, which is called
        with the lock held."""
        self._patience = patience
        self._help = help
        self._lock = threading.RLock()  # which no other thread than its holder can release
        self._call = threading.Lock()  # held by nobody else: to wait on it is to sleep
        self._call.acquire()
        self._left_at = 0.0  # when the main thread went into the application; 0: it is here
        self._asleep = True
        self._stopping = False
        self._thread: threading.Thread | None = None
        with _DOOR:
            _HELPERS.add(self)

    # The main thread

    def begin(self) -> None:
        """The main thread is here, outside the application: the connections are its own."""
        self._lock.acquire()

    def release(self) -> None:
        """The application is about to be called: hands off the connections."""
        self._left_at = time.monotonic()
        self._lock.release()
        if self._asleep:
            self._wake()

    def acquire(self) -> None:
        """The application has returned: the connections are ours again.

        What a handler of the application's raises for a signal on the way may leave us without: then this is called
        again. It does nothing where they are ours.
        """
        if not self._left_at:
            return
        try:
            self._lock.acquire()
        except BaseException:
            try:
                self._lock.release()  # the handler was called just after we had it
            except RuntimeError:
                pass  # as we waited for the helper
            self._lock.acquire()
            raise
        finally:
            self._left_at = 0.0

    def stop(self) -> None:
        """End the thread and wait for its end; the next `release` starts another."""
        with _DOOR:
            thread = self._thread
            if thread is None:
                return
            self._stopping = True
            if self._call.locked():  # else it has been called, and hears that
                self._call.release()  # also while it waits for its patience's end, which may be long
            thread.join()
            self._call.acquire(blocking=False)  # a call that it did not hear
            self._thread = None
            self._asleep = True
            self._stopping = False

    def end(self) -> None:
        """End the thread for good: there is nothing to help any more."""
        with _DOOR:
            _HELPERS.discard(self)
            self.stop()

    def resume(self) -> None:
        """Go on after `stop`, if the main thread is in the application still."""
        if self._left_at and self._asleep:
            self._wake()

    def _wake(self) -> None:
        """Call the thread, or start it. While another thread forks, none is started: `resume` follows."""
        with _DOOR:
            if self._asleep and self._thread is not None:
                self._asleep = False
                self._call.release()
            elif self._asleep and not _FORKING:
                self._start()

    def _start(self) -> None:
        self._asleep = False
        self._thread = threading.Thread(target=self._run, name="minicorn-helper", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # EAGAIN: clients wait for the application this time
            self._thread, self._asleep = None, True

    # The thread

    def _run(self) -> None:
        looks = 0
        while not self._stopping:
            self._call.acquire(timeout=self._patience)
            left_at = self._left_at
            looks = 0 if left_at else looks + 1
            if left_at and time.monotonic() - left_at >= self._patience:
                self._step()
            elif looks > _LOOKS and not self._stopping:
                looks = 0
                self._asleep = True
                # A `release` before this line saw us awake, and did not call
                if self._left_at or self._stopping:
                    self._asleep = False
                else:
                    self._call.acquire()

    def _step(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                if self._left_at:
                    self._help()
            finally:
                self._lock.release()


_HELPERS: weakref.WeakSet[Helper] = weakref.WeakSet()
_FORKING: set[int] = set()  # the threads that are about to fork, or have just done so
# Held by whoever starts, calls or ends a helper's thread; not by that thread, nor by whoever finds it awake.
# Reentrant, as a signal's handler may fork while its own thread holds it
_DOOR = threading.RLock()


def _before_fork() -> None:
    _FORKING.add(threading.get_ident())
    with _DOOR:
        for helper in list(_HELPERS):
            helper.stop()


def _after_fork_in_parent() -> None:
    _FORKING.discard(threading.get_ident())
    with _DOOR:
        for helper in list(_HELPERS):
            helper.resume()


def _after_fork_in_child() -> None:
    """Help nobody in a forked child, nor in its own children; another thread may have held the door."""
    global _DOOR
    _DOOR = threading.RLock()
    _FORKING.clear()
    _HELPERS.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
