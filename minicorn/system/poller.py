"""Readiness of descriptors: epoll where there is one, poll with the same calls elsewhere.

Made after the fork that gives a process its own: an epoll set is shared with the parent.
"""

from __future__ import annotations

import select
import sys

READ = select.POLLIN
WRITE = select.POLLOUT

if sys.platform == "linux":
    Poller = select.epoll  # level-triggered
    # The kernel wakes one of the processes that wait for the same listener, not all
    READ_EXCLUSIVE = select.EPOLLIN | select.EPOLLEXCLUSIVE
else:
    READ_EXCLUSIVE = READ

    class Poller:
        """select.poll with epoll's spelling: seconds, and something to close."""

        def __init__(self) -> None:
            self._poll = select.poll()
            self.register = self._poll.register
            self.modify = self._poll.modify
            self.unregister = self._poll.unregister

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            return self._poll.poll(timeout * 1000)

        def close(self) -> None:
            pass  # it has no descriptor


def wait(fd: int, event: int, timeout: float) -> bool:
    """Whether `event` is true of `fd` within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout * 1000))
