"""HUP: the configuration is read again, and a roll to it begins; what is broken changes nothing.

    begin ──a child reads──► propose ──on_reload agrees──► roll ──a worker serves──► the arbiter takes it on

Neither the child nor the hook is waited for. Which settings belong to which generation meanwhile,
`regimes` knows.
"""

from __future__ import annotations

from functools import partial

from minicorn.arbiter.chronicle import Chronicle
from minicorn.arbiter.hookline import HookLine
from minicorn.arbiter.regimes import Regimes
from minicorn.arbiter.resources import Resources
from minicorn.config.configuration import Configuration
from minicorn.config.settings import Settings, keep_fixed
from minicorn.errors import ConfigError
from minicorn.logs.logger import LOGGER
from minicorn.pool.pool import Pool
from minicorn.system.cgroup import count_workers


class Reconfiguration:
    """Reads the configuration of one arbiter again: one reading at a time, and at most one more waits."""

    def __init__(
        self,
        config: Configuration | None,
        resources: Resources,
        pool: Pool,
        regimes: Regimes,
        hooks: HookLine,
        chronicle: Chronicle,
    ) -> None:
        """`config`: what HUP reads again; None: nothing, the settings came from a call."""
        self._config = config
        self._resources = resources
        self._pool = pool
        self._regimes = regimes
        self._hooks = hooks
        self._chronicle = chronicle
        self._again = False  # another HUP has come while a child reads

    def begin(self) -> None:
        """Begin to read, as a HUP has come; after the reading under way, if there is one."""
        if self._config is None:
            self._pool.reload()
        elif self._resources.reading is not None:
            self._again = True
        else:
            try:
                self._resources.reading = self._config.begin()
                if self._resources.reading is None:
                    self._propose(self._config.settle(None, None).settings)
            except (ConfigError, OSError) as error:
                self._refuse(str(error))

    def advance(self) -> None:
        """Take what the reading under way has given, if it has ended, and begin the one that waits."""
        reading = self._resources.reading
        if reading is None or self._config is None:
            return
        try:
            values = reading.take()
            if values is None:
                return
            self._propose(self._config.settle(reading.place, values).settings)
        except ConfigError as error:
            self._refuse(str(error))
        self._resources.reading = None
        if self._again:
            self._again = False
            self.begin()

    def follow(self) -> None:
        """Follow the rolls: the arbiter goes by the settings of what serves now, and those of a roll that has
        failed lose their hooks."""
        before = self._regimes.serving
        if self._regimes.follow():
            self._take_on(self._regimes.serving, before)
        self._hooks.renew(self._regimes.newest)

    def resize(self, by: int) -> None:
        """Change the wanted number of workers, and tell the hook."""
        before = self._pool.size
        self._pool.resize(by)
        if self._pool.size != before:
            self._hooks.call("nworkers_changed", self._pool.size, before)

    def _propose(self, read: Settings) -> None:
        new, held = keep_fixed(read, self._regimes.serving)
        if held:
            LOGGER.warning("HUP does not change %s: restart, or send USR2 where no listener changes", ", ".join(held))
        self._regimes.propose(new)
        self._hooks.renew(new)
        self._hooks.call("on_reload", then=partial(self._roll, new))

    def _roll(self, new: Settings, well: bool) -> None:
        if not well:
            self._refuse("on_reload has failed")
        if self._regimes.answered(new, well):
            self._pool.reload()
            if new.reload:
                self._pool.forking.renew()  # who is forked by the common template boots with its settings

    def _refuse(self, error: str) -> None:
        self._chronicle.refused_reload(error)
        LOGGER.error("reload is off, all serve on as before: %s", error)

    def _take_on(self, new: Settings, old: Settings) -> None:
        LOGGER.setLevel(new.log_level.upper())
        self._pool.configure(new.graceful_timeout, new.max_boot_failures)
        if new.workers != old.workers:
            self.resize(count_workers(new.workers) - self._pool.size)
