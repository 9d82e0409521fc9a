"""A pipe that wakes a loop: by a signal handler, by another thread, or by the interpreter itself.

It only wakes. What there is to do is known elsewhere, so neither what is in it matters, nor that it
may be full; another process may share it for a moment around a fork.
"""

from __future__ import annotations

import os


class Wakeup:
    """`fd` is readable once somebody has rung."""

    def __init__(self) -> None:
        self.fd, self.write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self.write_fd, False)

    def ring(self) -> None:
        """Wake the loop, from whatever thread."""
        try:
            os.write(self.write_fd, b".")
        except OSError:
            pass  # EAGAIN: it is awake; EBADF: it has ended

    def drain(self) -> None:
        """Make `fd` unreadable again. Look afterwards at what there is to do, so that nothing is missed."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the pipe: the loop has ended, or is another process's."""
        os.close(self.fd)
        os.close(self.write_fd)
        self.fd = self.write_fd = -1
