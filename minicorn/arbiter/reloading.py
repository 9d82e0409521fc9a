"""--reload, the arbiter's side: from what the watcher sees to a roll, and from what workers import to a template.

Old code stops answering with the first change; when the changes have come to rest they are one
roll. What workers say that they import is watched; what of that is installed and not the project's
is the groundwork that a common template lays for all workers to come.
"""

from __future__ import annotations

import os
import time

from minicorn.arbiter.auxiliary import Auxiliary
from minicorn.config.settings import Settings
from minicorn.logs.logger import LOGGER
from minicorn.pool.forking import ForkSource
from minicorn.pool.pool import Pool
from minicorn.reload.changes import Changes
from minicorn.reload.groundwork import Groundwork
from minicorn.reload.watcher import Watcher, coarse_time
from minicorn.system import channel, spawn
from minicorn.system.channel import Channel, Message
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Reloading:
    """Leads one arbiter from changed files to new workers."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._pool = pool
        self._changes = Changes()
        self.ground = Groundwork()
        self._templates_help = settings.reload_template and spawn.become_subreaper()
        self._places: dict[str, bool] = {}  # that workers import from, each with whether what is below counts
        began = coarse_time()
        here = os.getcwd()  # as it is called now: it may be renamed, and another one come in its place
        self._config = os.path.relpath(settings.config, here) if os.path.isabs(settings.config) else ""
        self._is_configured_anew = False

        def watch(line: Channel) -> int:
            return Watcher(settings, here, began, line).run(self._places)

        self.watcher = Auxiliary("watcher", watch, self._hear_watcher)

    def turn(self, now: float) -> str:
        """Wish for a roll when one is due; the line for the log then."""
        news = self._changes.take(now)
        if news:
            self._pool.reload()
            if self.ground.is_outdated():
                self._pool.forking.fork_source = ForkSource.ARBITER
        return news

    def take_configured(self) -> bool:
        """Whether the configuration file has changed since this was asked before."""
        anew, self._is_configured_anew = self._is_configured_anew, False
        return anew

    @property
    def wake_at(self) -> float:
        """When the next turn is due."""
        return self._changes.wake_at

    def hear_imports(self, imported: dict[str, Any]) -> None:
        """Take up what a worker has imported: places to watch, and modules that a template may import."""
        self._places |= dict(imported["places"])
        self.watcher.tell(channel.IMPORTED, imported["places"])
        if self._templates_help and self.ground.learn(imported["modules"], imported["own"]):
            self._pool.forking.fork_source = ForkSource.COMMON
            self._pool.forking.renew()

    def hear_refused(self, refused: dict[str, str]) -> None:
        """Take up which modules a template leaves to the workers, with the reasons."""
        self.ground.refused |= refused

    def template_failed(self, text: str) -> None:
        """Do without a template, which has failed: workers import everything themselves."""
        LOGGER.debug("workers are forked without a template: %s", text)
        self._pool.forking.fork_source = ForkSource.ARBITER

    def _hear_watcher(self, message: Message) -> None:
        now = time.monotonic()
        self._changes.note(message.value, now)
        self._is_configured_anew |= self._config in message.value
        self._pool.hold(now)
