"""What the arbiter owns: each descriptor of its is here, whoever makes use of it.

For a child must let go of all of them (a copy of the arbiter's end of a channel would hide the
arbiter's death), and the arbiter's next image is left all of them.
"""

from __future__ import annotations

import os
import time

from minicorn.arbiter.auxiliary import Auxiliaries
from minicorn.arbiter.succession import Inheritance, InheritedWorker
from minicorn.config.configfile import Reading
from minicorn.config.settings import Settings, to_data
from minicorn.errors import ConfigError
from minicorn.figures.directory import Directory
from minicorn.logs.logs import Logs
from minicorn.pool.actions import Spawn
from minicorn.pool.pool import Pool
from minicorn.serving.handoff import Handoff
from minicorn.system import channel
from minicorn.system.channel import Channel
from minicorn.system.listeners import Listener, close_all
from minicorn.system.privileges import Owner
from minicorn.system.signals import Signals
from minicorn.system.spawn import MANAGED
from minicorn.system.systemd import ServiceManager

# Highest slot whose idleness is seen by others: a longer map would cost every request more
SLOTS_SEEN = 255


class Resources:
    """The descriptors of one arbiter, opened at its start or left by its image before."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[Listener],
        logs: Logs,
        manager: ServiceManager,
        pidfile_fd: int,
        inherited: Inheritance | None,
    ) -> None:
        """`inherited`: what the image before has left."""
        self.listeners = listeners
        self.logs = logs
        self.manager = manager
        self.signals = Signals(MANAGED)
        self.auxiliaries = Auxiliaries()
        self.channels: dict[int, Channel] = {}  # to workers and templates, by pid
        self.ordered: dict[int, tuple[Spawn, Channel]] = {}  # by descriptor; what is to come of a template
        self.reading: Reading | None = None  # of the configuration file, since a HUP
        self._pidfile_fd = pidfile_fd
        if inherited is None:
            self.directory = Directory(settings.worker_tmp_dir)
            self.handoff = Handoff()
        else:
            self.directory = Directory.adopt(
                inherited.directory, inherited.lock_fd, inherited.idle_fd, inherited.ledger_fd, inherited.pages
            )
            self.handoff = Handoff(inherited.handoff)
            self.channels = {heir.pid: channel.adopt(heir.channel_fd) for heir in inherited.workers}
        self.idle_map = self.directory.idle_map(SLOTS_SEEN)

    def give(self, owner: Owner) -> None:
        """Give to `owner`, who the workers will be, what they open again or rename. ConfigError where that cannot
        be done: what an image before has left may have lost its name."""
        self.logs.give(owner.give)
        made = [listener.host for listener in self.listeners if listener.made is not None]
        for path in [self.directory.path, *made]:
            try:
                owner.give(path)
            except OSError as error:
                raise ConfigError(f"--user and --group: cannot give {path}: {error.strerror}") from error

    def tell(self, pid: int, word: str) -> None:
        """Say `word` to a worker or a template."""
        if pid in self.channels:  # else it has closed it, and is about to be reaped
            self.channels[pid].send(word)

    def reopen(self) -> None:
        """Open the log files again, here and in all children."""
        self.logs.reopen()
        for pid in self.channels:
            self.tell(pid, channel.REOPEN)

    def close_listeners(self) -> None:
        """Close our copies of the listeners; the workers serve what waits there through their own."""
        close_all(self.listeners)
        self.listeners.clear()

    def close(self) -> None:
        """Close and remove everything, as the server has ended."""
        if self.reading is not None:
            self.reading.abandon()
        self.close_listeners()
        self.directory.remove()
        self.handoff.close()

    # In a child

    def close_private(self, kept: Listener | None = None) -> None:
        """Close what no child shares, and the listeners of auxiliaries, but for `kept`."""
        ordered = (line for _, line in self.ordered.values())
        attended = (line for _, line in self.auxiliaries.channels)
        for line in [*self.channels.values(), *ordered, *attended]:
            line.close()
        for listener in self.auxiliaries.listeners:
            if listener is not kept:
                listener.close()
        os.close(self.directory.lock_fd)
        if self._pidfile_fd >= 0:
            os.close(self._pidfile_fd)
        if self.reading is not None:
            os.close(self.reading.fd)
        self.manager.close()
        self.signals.close()

    def close_shared(self) -> None:
        """Hold neither port nor queue: this process serves nobody."""
        for listener in self.listeners:
            listener.close()
        self.handoff.close()

    # Upgrade in place

    def inheritance(self, pool: Pool, settings: Settings, arguments: list[str], cwd: str) -> Inheritance:
        """All that the next image must know: `settings` are those of what serves, `arguments` and `cwd` how and where
        the program was called."""
        heirs = [(child, self.channels[child.pid].fd) for child in pool.children.values() if child.pid in self.channels]
        return Inheritance(
            listeners=[each.legacy for each in self.listeners],
            endpoints=[each.legacy for each in self.auxiliaries.listeners],
            handoff=self.handoff.ends,
            directory=self.directory.path,
            lock_fd=self.directory.lock_fd,
            pidfile_fd=self._pidfile_fd,
            pages=self.directory.descriptors,
            idle_fd=self.directory.idle_fd,
            ledger_fd=self.directory.ledger_fd,
            workers=[InheritedWorker.of(child, fd) for child, fd in heirs],
            size=pool.size,
            generation=pool.rolls.generation,
            newest=pool.rolls.newest,
            settings=to_data(settings),
            manager=self.manager.variables,
            arguments=arguments,
            cwd=cwd,
        )


def inherit(pool: Pool, inherited: Inheritance) -> None:
    """Take on the workers of the image before, then roll."""
    now = time.monotonic()
    pool.booted = True
    pool.rolls.generation, pool.rolls.newest = inherited.generation, inherited.newest
    for heir in inherited.workers:
        pool.adopt(heir.worker(), now)
    pool.reload()
