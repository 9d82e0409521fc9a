"""What one image of the arbiter leaves to the next, which `exec` puts in its place (SIGUSR2).

The same process goes on under the same pid, with the same children; only what memory held has
to be told. That is one versioned JSON document in an anonymous file, whose descriptor the
environment names; the descriptors that it speaks of stay open across the exec.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from minicorn.config.configfile import FileValues
from minicorn.config.configuration import Configuration
from minicorn.config.layers import Outcome
from minicorn.pool.life import Worker
from minicorn.record import Value, as_dict
from minicorn.system.listeners import Legacy
from minicorn.system.scratch import open_memory

VARIABLE = "MINICORN_SUCCESSION"
# Set to our VERSION for a child that only checks whether the new program loads
CHECK = "MINICORN_CHECK"
# Set for that child where this server has no monitor: the address of a new one must be free then. An older program
# would take a name that starts with MINICORN_ for a setting
UNWATCHED = "_MINICORN_UNWATCHED"
# The descriptor of a file in which the check leaves what the configuration file said, by which the next image goes
READ = "_MINICORN_READ"
# Of the document, and of the words on the channels of the workers that run on
VERSION = 8


class InheritedWorker(Value):
    """A worker, or a template, that runs on across the exec."""

    pid: int
    slot: int
    generation: int
    born: float
    strikes: int
    ready: bool
    retiring: bool
    template: bool
    channel_fd: int

    @classmethod
    def of(cls, worker: Worker, channel_fd: int) -> InheritedWorker:
        """Describe `worker`, as this image knows it, to the next."""
        return cls(
            worker.pid,
            worker.slot,
            worker.generation,
            worker.born,
            worker.strikes,
            worker.was_ready,
            worker.dismissed,
            worker.template,
            channel_fd,
        )

    def worker(self) -> Worker:
        """The worker as the next image's pool takes it on."""
        return Worker(
            self.pid,
            self.slot,
            self.generation,
            self.born,
            self.strikes,
            was_ready=self.ready,
            dismissed=self.retiring,
            template=self.template,
        )


class Inheritance(Value):
    """All that the next image must know. Times are monotonic seconds."""

    listeners: list[Legacy]
    endpoints: list[Legacy]  # listeners of the monitor
    handoff: tuple[int, int]
    directory: str
    lock_fd: int
    pidfile_fd: int
    pages: dict[str, tuple[int, int, int]]  # slot: page, stack and trace
    idle_fd: int
    ledger_fd: int
    workers: list[InheritedWorker]
    size: int
    generation: int
    newest: int
    settings: dict[str, object]  # of what serves, as `settings.to_data` has them
    manager: dict[str, str]  # the service manager's variables, which no child may see
    arguments: list[str]  # how the program was called
    cwd: str

    @property
    def descriptors(self) -> Iterable[int]:
        """The descriptors that must survive the exec."""
        yield from (listener[0] for listener in [*self.listeners, *self.endpoints])
        yield from self.handoff
        yield from (fd for triple in self.pages.values() for fd in triple)
        yield from (worker.channel_fd for worker in self.workers)
        yield from (fd for fd in (self.lock_fd, self.pidfile_fd, self.idle_fd, self.ledger_fd) if fd >= 0)


def read(config: Configuration) -> Outcome:
    """Read what `config` comes to now; in the next image, by what the check has read of its file, which may be
    broken by then."""
    fd = os.environ.pop(READ, None)
    if fd is None:
        return config.read()
    with os.fdopen(int(fd), "r+b", buffering=0) as file:
        if CHECK in os.environ:
            place, values = config.look()
            file.write(json.dumps([place, values.to_data() if values else None]).encode())
            return config.settle(place, values)
        file.seek(0)
        left = file.readall()
    if not left:  # a check of another version
        return config.read()
    place, told = json.loads(left)
    return config.settle(place, FileValues.from_data(told) if told else None)


def exec_successor(inherited: Inheritance, read_fd: int) -> None:
    """Become the next image, which finds what the check has read in `read_fd`; returns only by OSError, with
    everything as it was."""
    document = json.dumps({"version": VERSION, **as_dict(inherited)}, default=as_dict).encode()
    with open_memory() as file:
        file.write(document)
        file.seek(0)
        kept = [*inherited.descriptors, file.fileno(), read_fd]
        environment = os.environ | {VARIABLE: str(file.fileno()), READ: str(read_fd), "PWD": inherited.cwd}
        try:
            for fd in kept:
                os.set_inheritable(fd, True)
            change_directory(inherited.cwd)
            os.execvpe(inherited.arguments[0], inherited.arguments, environment)
        finally:
            for fd in kept:
                os.set_inheritable(fd, False)


def change_directory(cwd: str) -> None:
    """Go to the directory in which the program was called; to the root where that has gone, since absolute paths
    lead from there as well."""
    os.chdir(cwd if os.path.isdir(cwd) else os.sep)


def inherit() -> Inheritance | None:
    """Take up what the image before has left, if there was one. ValueError where that is of another version."""
    if unread := os.environ.pop(READ, None):  # by a script that calls `serve`
        os.close(int(unread))
    fd = os.environ.pop(VARIABLE, None)
    if fd is None:
        return None
    with os.fdopen(int(fd), "rb") as file:
        document = json.load(file)
    if document.pop("version") != VERSION:
        raise ValueError("the arbiter before was of a version that cannot hand over to this one")
    workers = [InheritedWorker(**worker) for worker in document.pop("workers")]
    inherited = Inheritance(workers=workers, **document)
    for kept in inherited.descriptors:
        os.set_inheritable(kept, False)
    return inherited
