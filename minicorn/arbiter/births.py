"""Births: how a worker or a template that the pool wants comes to be.

The arbiter forks it, or a template does, by an order that takes a moment; the newborn is on no
list until it has said who it is. What cannot be had now (no descriptor, page or process) the pool
is told, and wants again.
"""

from __future__ import annotations

import contextlib
import time

from minicorn.arbiter.resources import Resources
from minicorn.config.settings import Settings
from minicorn.logs.logger import LOGGER
from minicorn.pool.actions import Spawn
from minicorn.pool.forking import ForkSource
from minicorn.pool.pool import Pool
from minicorn.serving.post import Post
from minicorn.system import channel, spawn
from minicorn.system.channel import Channel
from minicorn.typed import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # with --reload: imported where it is on
    from minicorn.reload.groundwork import Groundwork


class Lives(Protocol):
    """What the arbiter's children do, each from its fork to its end; what they give is the exit code."""

    def worker(self, post: Post, settings: Settings) -> int:
        """Be a worker."""

    def template(self, ground: Groundwork | None, post: Post, settings: Settings) -> int:
        """Be a template, of the application, or of the `ground` that --reload has."""


def find_fork_source(settings: Settings) -> ForkSource:
    """Decide where workers come from: from a template only where the arbiter can adopt what that forks."""
    if settings.reload and settings.preload:
        LOGGER.info("--reload goes before --preload: what that would import once is what changes")
    if settings.reload or not settings.preload:
        return ForkSource.ARBITER
    if spawn.become_subreaper():
        return ForkSource.TEMPLATE
    LOGGER.warning("--preload takes Linux: here each worker imports the application itself")
    return ForkSource.ARBITER


class Births:
    """Forks the workers and templates of one arbiter's pool, or orders them from templates."""

    def __init__(self, pool: Pool, resources: Resources, lives: Lives, ground: Groundwork | None) -> None:
        """`ground`: what templates import with --reload."""
        self._pool = pool
        self._resources = resources
        self._lives = lives
        self._ground = ground

    def spawn(self, action: Spawn, settings: Settings, failure: str) -> None:
        """Do what `action` asks for; `failure`: why the code of its generation cannot be loaded, if that is known."""
        now = time.monotonic()
        try:
            ours, theirs = channel.pair()
            with contextlib.closing(theirs):
                try:
                    post = self._post(action, theirs, now + settings.boot_timeout, now, failure)
                    if action.parent:
                        self._order(action, post, ours)
                    else:
                        self._fork(action, post, ours, settings, now)
                except OSError:
                    ours.close()
                    raise
        except OSError as error:
            self._pool.spawn_failed(action, error.strerror or str(error), now)

    def hear(self, fd: int) -> None:
        """Hear, over the descriptor `fd`, from a process that was ordered: it is there, or will not come."""
        if fd not in self._resources.ordered:
            return
        action, ours = self._resources.ordered[fd]
        messages, alive = ours.receive()
        for message in messages:
            if message.word == channel.BORN and ours.sender:
                del self._resources.ordered[fd]
                self._register(action, ours.sender, ours, time.monotonic())
                ours.open_gate()
                return
        if messages or not alive:
            del self._resources.ordered[fd]
            ours.close()
            reason = messages[0].value if messages else "its template has died"
            self._pool.spawn_failed(action, reason, time.monotonic())

    def hear_all(self) -> None:
        """Register all those who were ordered and have been forked by now."""
        for fd in list(self._resources.ordered):
            self.hear(fd)

    def _post(self, action: Spawn, theirs: Channel, deadline: float, now: float, failure: str) -> Post:
        directory = self._resources.directory
        page = directory.page(action.slot)
        page.reset(deadline, now)
        return Post(
            action.slot,
            action.generation,
            page,
            directory.stack_fd(action.slot),
            directory.trace_fd(action.slot),
            theirs,
            self._resources.handoff,
            self._resources.idle_map,
            self._resources.listeners.copy(),  # this list is emptied when the server stops
            failure,
        )

    def _order(self, action: Spawn, post: Post, ours: Channel) -> None:
        """Order the fork from a template; if that has gone, so has the channel's other end, and `hear` finds out."""
        from minicorn.serving import order  # it came with the template's code

        # Its word is not enough where it is another user's: what is born there is signalled by us
        ours.ask_sender()
        if line := self._resources.channels.get(action.parent):
            order.give(line, post, self._resources.directory.page_fd(action.slot))
        self._resources.ordered[ours.fd] = action, ours

    def _fork(self, action: Spawn, post: Post, ours: Channel, settings: Settings, now: float) -> None:
        def be() -> int:
            LOGGER.setLevel(settings.log_level.upper())
            ours.close()
            self._resources.close_private()
            if action.template:
                post.close_shared()
                return self._lives.template(self._ground, post, settings)
            return self._lives.worker(post, settings)

        self._register(action, spawn.fork(be), ours, now)

    def _register(self, action: Spawn, pid: int, ours: Channel, now: float) -> None:
        self._resources.channels[pid] = ours
        self._pool.spawned(action, pid, now)
        if not action.template:
            self._resources.directory.page(action.slot).enter(pid, action.generation, now)
