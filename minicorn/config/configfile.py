"""The configuration file, read in a child of its own: its values come back as data.

A Python file is code: it may hang, exit, recurse, start threads, crash the interpreter. None of
that may happen to a process that forks and supervises, so a child runs it, under a deadline, and
whatever goes wrong there is one line. TOML is read in the same way, to have one way.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from types import ModuleType

from minicorn.config import namespace
from minicorn.errors import ConfigError
from minicorn.record import Value
from minicorn.system import spawn
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # dear: imported in the child that reads a Python file
    from importlib.machinery import ModuleSpec
    from typing import Any

FOUND_ALONE = ("minicorn.conf.py", "minicorn.toml")
GUNICORNS = "gunicorn.conf.py"
PROJECT = "pyproject.toml"


class FileValues(Value):
    """What a file says: settings by the names it uses, and the hooks that it defines."""

    values: dict[str, object]
    hooks: tuple[str, ...] = ()
    source: bytes = b""  # its own, where it defines hooks

    def to_data(self) -> dict[str, object]:
        """The values as JSON can hold them."""
        return {"values": self.values, "hooks": self.hooks, "source": self.source.decode("latin-1")}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> FileValues:
        """The values that `to_data` has given as `data`."""
        return cls(data["values"], tuple(data["hooks"]), data["source"].encode("latin-1"))


def find(directory: str) -> str | None:
    """The file to read when none is named; ConfigError when two of them are there."""
    found = [name for name in FOUND_ALONE if os.path.exists(os.path.join(directory, name))]
    if "[tool.minicorn" in _text(os.path.join(directory, PROJECT)):
        found.append(PROJECT)
    if len(found) > 1:
        raise ConfigError(f"{found[0]} and {found[1]} are both here: keep one, or name one by -c")
    if not found and os.path.exists(os.path.join(directory, GUNICORNS)):
        return GUNICORNS
    return found[0] if found else None


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


class Reading:
    """A child that reads `place`; `fd` is readable when it has done so, or died. Times are monotonic seconds."""

    def __init__(self, place: str, directory: str, environ: dict[str, str], patience: float) -> None:
        """`directory` is the file's and importable; `environ` is set for it. OSError when there is no process."""
        self.place = place
        self.deadline = time.monotonic() + patience
        self._patience = patience
        self._text = b""
        self.fd, write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        try:
            self.pid = spawn.fork(lambda: _be_reader(place, directory, environ, self.fd, write_fd))
        except OSError:
            os.close(self.fd)
            raise
        finally:
            os.close(write_fd)

    def take(self) -> FileValues | None:
        """Take what the file says; None while it is not known, ConfigError, in one line, when it cannot be had."""
        ended = False
        try:
            while data := os.read(self.fd, 65536):
                self._text += data
            ended = True
        except BlockingIOError:
            pass
        if self._text.endswith(b"\n"):
            self.abandon()
            said = json.loads(self._text)
            if "fault" in said:
                raise ConfigError(f"{self.place}: {said['fault']}")
            return FileValues.from_data(said)
        if ended:
            self.abandon()
            raise ConfigError(f"{self.place}: it ended the process that read it")
        if time.monotonic() >= self.deadline:
            self.abandon()
            raise ConfigError(f"{self.place}: not read within {self._patience:g} s (--config-timeout)")
        return None

    def abandon(self) -> None:
        """End the reading and its child. The arbiter's reaper may come first: the pid is ours until then."""
        os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def read(place: str, directory: str, environ: dict[str, str], patience: float) -> FileValues:
    """Read what the file says, and wait for it; ConfigError, in one line, when it cannot be had."""
    reading = Reading(place, directory, environ, patience)
    try:
        while True:
            select.select([reading.fd], [], [], max(0.0, reading.deadline - time.monotonic()))
            if (values := reading.take()) is not None:
                return values
    except KeyboardInterrupt:
        reading.abandon()
        raise


def _be_reader(place: str, directory: str, environ: dict[str, str], read_fd: int, write_fd: int) -> int:
    os.close(read_fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
    os.environ.update(environ)
    with contextlib.suppress(OSError):  # it may have gone, and what is read lie elsewhere
        os.chdir(directory)  # which is another one by now, if its path leads over a symlink
    try:
        _import_from(directory)
        source = _load(_locate(place, directory))
        values = namespace.as_data(execute(place, directory, source), namespace.find_unread(place, source))
        values["source"] = source.decode("latin-1") if values["hooks"] else ""  # any bytes, in JSON
        said = json.dumps(values)
    except ConfigError as error:
        said = json.dumps({"fault": str(error)})
    except BaseException as error:  # SystemExit too: a file is no program
        said = json.dumps({"fault": _where(error, place, directory)})
    with os.fdopen(write_fd, "wb") as file:
        file.write(said.encode() + b"\n")
    return 0


def execute(place: str, directory: str, source: bytes) -> dict[str, object]:
    """Run or parse the file as it was read, whatever lies in its place by now; all its names. What it raises passes."""
    _import_from(directory)
    name = place.removeprefix("python:") if place.startswith("python:") else ""
    if name in sys.modules:  # by the application, or for it
        return vars(sys.modules[name])
    path = _locate(place, directory)
    if path.endswith(".toml"):
        import tomllib

        try:
            document = tomllib.loads(source.decode())
        except ValueError as error:
            raise ConfigError(" ".join(str(error).split())) from None
        table = document.get("tool", {}).get("minicorn") if path.endswith(PROJECT) else document
        if not isinstance(table, dict):
            raise ConfigError("it has no [tool.minicorn]")
        return table
    if name:
        import importlib.util

        module = importlib.util.module_from_spec(_find(name))
    else:
        module = ModuleType("__config__")
        module.__file__ = path
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec"), vars(module))
    return vars(module)


def _import_from(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _locate(place: str, directory: str) -> str:
    """The path of the file that `place` names; "" for a module without one."""
    if place.startswith("python:"):
        return _find(place.removeprefix("python:")).origin or ""
    return os.path.join(directory, place.removeprefix("file:"))


def _find(name: str) -> ModuleSpec:
    import importlib.util

    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    return spec


def _load(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None


def _where(error: BaseException, place: str, directory: str) -> str:
    """The error in one line, with the file's line where it is known."""
    path = os.path.join(directory, place)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    number = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return (f"line {number}: " if number else "") + type(error).__name__ + (f": {said}" if said else "")
