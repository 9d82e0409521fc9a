"""A post: what a worker, or a template of workers, is given at its fork.

Page, stack, trace and channel are its own; hand-off queue, listeners and idle map it shares with all.
What it forks in turn lets go of them: a template's worker of the template's own (`lay_down`), what the
application forks of what is shared (`close_shared`), whoever just forks for an order of both (`close`).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from minicorn.errors import AppLoadError, ExitCode
from minicorn.figures.heartbeat import Page
from minicorn.figures.idlemap import IdleMap
from minicorn.logs import complaints
from minicorn.record import Value, fresh
from minicorn.serving.handoff import Handoff
from minicorn.system import channel, spawn
from minicorn.system.channel import Channel
from minicorn.system.listeners import Listener


class Post(Value):
    """All that one child is given at its fork."""

    slot: int
    generation: int
    page: Page
    stack_fd: int
    trace_fd: int
    channel: Channel
    handoff: Handoff
    idle_map: IdleMap
    listeners: list[Listener] = fresh(list)
    failure: str = ""  # why the code of its generation cannot be loaded: it shows that, and does not try

    def take_up(self) -> None:
        """Begin, in the child: its stack and its errors go where the arbiter looks, it leads a process group, and until
        it is `ready` it ends with the arbiter: an import that hangs would keep the address from whoever starts next."""
        self.take_stack()
        complaints.collect(self.page.erred)
        spawn.lead_group()
        if signal.getsignal(signal.SIGIO) == signal.SIG_DFL:  # else it is the application's, which a template has
            signal.signal(signal.SIGIO, self._end_with_arbiter)
            signal.siginterrupt(signal.SIGIO, False)
            self.channel.alert(True)
        self._end_with_arbiter()  # which may have gone before

    def ready(self) -> None:
        """Say that it serves, or can fork; from now on it hears by itself when the arbiter has gone."""
        self.channel.alert(False)
        if signal.getsignal(signal.SIGIO) == self._end_with_arbiter:  # else the import has set its own
            signal.signal(signal.SIGIO, signal.SIG_DFL)
        self.channel.send(channel.READY)

    def _end_with_arbiter(self, *_: object) -> None:
        if self.channel.is_severed:
            os._exit(ExitCode.APP)

    def take_stack(self) -> None:
        """Let faulthandler write where the arbiter looks; again after an import, since many applications enable it.
        AppLoadError where that has closed what is ours."""
        try:
            os.fstat(self.channel.fd)
        except OSError:
            raise AppLoadError(
                "its import has closed all descriptors, the server's too: it must not daemonize"
            ) from None
        faulthandler.enable(self.stack_fd)

    def fail(self, why: str) -> None:
        """Say why it cannot boot: where we log, if the application has closed the line as it was imported."""
        if not self.channel.send(channel.FAILED, why):
            sys.stderr.write(f"{why}\n")

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of all that."""
        own = [self.stack_fd, self.trace_fd, self.channel.fd]
        return [*own, *self.handoff.ends, *(listener.fd for listener in self.listeners)]

    # Letting go

    def lay_down(self) -> None:
        """Close, in a grandchild that has a post of its own, what was its parent's alone."""
        faulthandler.disable()
        self._close_own()

    def close_shared(self) -> None:
        """Close queue and listeners, in a process that serves nobody."""
        self.handoff.close()
        for listener in self.listeners:
            listener.close()

    def close(self) -> None:
        """Close all of it, in a process that was only asked to fork."""
        self._close_own()
        self.close_shared()

    def _close_own(self) -> None:
        self.channel.close()
        os.close(self.stack_fd)
        os.close(self.trace_fd)
