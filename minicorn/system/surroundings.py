"""What surrounds a process's code: standard streams, umask, limits, directory, variables, and where it imports from."""

from __future__ import annotations

import os
import resource
import sys

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError


def provide(settings: Settings, directory: str) -> None:
    """Give the application's code, in this process, its variables, and what can be imported: first of all what is in
    `directory`."""
    set_variables(settings)
    extend_path(settings, directory)
    sys.path.insert(0, directory)


def set_variables(settings: Settings) -> None:
    """Set the variables of --env, and one that tells who serves."""
    # As with gunicorn: many tell by it that they are in production (web.py shows no debug page then)
    os.environ.setdefault("SERVER_SOFTWARE", "minicorn")
    os.environ.update(settings.variables)


def extend_path(settings: Settings, directory: str) -> None:
    """Make the directories of --pythonpath importable; relative ones begin in `directory`."""
    paths = (settings.pythonpath or "").split(",")
    sys.path[:0] = [os.path.join(directory, path) for path in paths if path]


def set_up_process(settings: Settings) -> None:
    """Give this process its standard streams, umask, descriptor limit and directory; ConfigError where --chdir leads
    nowhere."""
    _open_missing_streams()
    if settings.umask is not None:
        os.umask(settings.umask)
    _raise_descriptor_limit()
    try:
        os.chdir(settings.directory(logical_directory()))
    except OSError as error:
        raise ConfigError(f"--chdir {settings.chdir}: {error.strerror}") from error


def _open_missing_streams() -> None:
    """Lead the standard streams that were closed before we were started to /dev/null: else a socket would get the
    number, and with it what C code says on standard error."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def logical_directory() -> str:
    """The current directory by the path that the shell has for it, with the symlinks in it."""
    logical = os.environ.get("PWD", "")
    try:
        return logical if logical and os.path.samefile(logical, ".") else os.getcwd()
    except OSError:
        return os.getcwd()


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the hard one: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # macOS has a lower limit of its own: the soft one will do
