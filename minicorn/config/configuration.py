"""Where settings come from, kept so that HUP can read all of it again.

defaults < PORT, WEB_CONCURRENCY < file < GUNICORN_CMD_ARGS < MINICORN_* < MINICORN_CMD_ARGS < command line
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from minicorn.config import configfile
from minicorn.config.configfile import FileValues, Reading
from minicorn.config.layers import Given, Layer, Outcome, convert, from_environ, from_values, settle
from minicorn.config.settings import DEFAULTS
from minicorn.record import Value, replace


class Configuration(Value):
    """All that one call of the command has given, but for what the file says, which is read when it is wanted."""

    above: tuple[Layer, ...]  # from the variables up to the command line
    place: str | None  # of the file, as it was named; None: the one that is found
    directory: str  # where the command was called, symlinks in it kept
    environ: Mapping[str, str]

    def file(self) -> str | None:
        """The file that counts now, if any."""
        return self.place or configfile.find(self.directory)

    def read(self) -> Outcome:
        """Read all of it now; ConfigError in one line."""
        return self.settle(*self.look())

    def look(self) -> tuple[str | None, FileValues | None]:
        """The file that counts now, and what it says; ConfigError in one line."""
        place = self.file()
        if place is None:
            return None, None
        return place, configfile.read(place, self.directory, self._variables(), self._patience())

    def begin(self) -> Reading | None:
        """Begin to read the file anew, for a process that must not wait; None: there is no file."""
        place = self.file()
        return Reading(place, self.directory, self._variables(), self._patience()) if place else None

    def settle(self, place: str | None, values: FileValues | None) -> Outcome:
        """The settings that all of it comes to, with what the file says; ConfigError in one line."""
        layer = from_values(place or "", values.values) if values else {}
        outcome = settle([layer, *self.above], self.environ)
        if place is None or values is None:
            return outcome
        path = place if place.startswith("python:") else os.path.join(self.directory, place.removeprefix("file:"))
        said = replace(outcome.settings, config=path, hooks=values.hooks, source=values.source)
        return replace(outcome, settings=said)

    @property
    def notes(self) -> list[str]:
        """What a reader of the log should know of where settings came from, a line each."""
        notes = []
        if self.environ.get("GUNICORN_CMD_ARGS"):
            notes.append("GUNICORN_CMD_ARGS is honoured; its name here is MINICORN_CMD_ARGS")
        if self.place is None and self.file() == configfile.GUNICORNS:
            notes.append("gunicorn.conf.py is read, as there is no minicorn.conf.py")
        return notes

    def _given(self, name: str) -> Given | None:
        return next((layer[name] for layer in reversed(self.above) if name in layer), None)

    def _patience(self) -> float:
        given = self._given("config_timeout")
        return float(str(convert("config_timeout", given))) if given else DEFAULTS.config_timeout

    def _variables(self) -> dict[str, str]:
        given = self._given("env")
        return dict(str(pair).partition("=")[::2] for pair in given.raw) if given else {}


def from_environment(argv: tuple[Layer, ...], place: str | None, directory: str) -> Configuration:
    """The configuration of a command whose layers of flags are `argv`, GUNICORN_CMD_ARGS first."""
    environ = dict(os.environ)
    gunicorns, *ours = argv
    above = (gunicorns, from_environ(environ), *ours)
    return Configuration(above, place or environ.get("MINICORN_CONFIG") or None, directory, environ)
