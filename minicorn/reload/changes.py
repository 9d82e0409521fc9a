"""Which files matter to --reload, and whether one has really changed. Values in, values out.

A tree is entered but for the directories that nobody edits; in it count the files that fit
--reload-include, and those named by --reload-extra-file wherever they are. A file has changed
when its contents have: neither its being opened, nor `touch`, nor a save without an edit.

Changes that have come to rest are one roll, so that a checkout of fifty files is one. One file
saved by an editor is the usual case, and waits least.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fnmatch import translate
from posixpath import basename, dirname

from minicorn.record import Value

# What Flask and Django read once, unless in a debug mode or by a server of their own, counts as code does
INCLUDED = ("*.py", "*.mo", "templates/*", "*/templates/*")
CACHES = "__pycache__"  # in every package: watched with it, as that is cheaper than to leave it out
INSTALLED = ("site-packages", "dist-packages")  # directories of packages: of a virtual environment of any name
EXCLUDED = f"""
    {CACHES} {" ".join(INSTALLED)} .git .svn .hg venv .venv env .env node_modules .tox .nox .eggs *.egg-info dist build
    .mypy_cache .pytest_cache .ruff_cache
"""
# Files that editors make for themselves: vim, emacs, and others
BACKUPS = "*~ .*.sw? *.bak .#* #*# *.tmp 4913"
# Seconds without a further change, after one file and after several
REST_ONE, REST_MANY = 0.02, 0.15
# Seconds after which changes without end are waited for no longer
REST_MOST = 2.0


def _compile(globs: Iterable[str]) -> re.Pattern[str]:
    """A pattern for names that fit one of `globs`; none fits when there are none."""
    return re.compile("|".join(translate(glob) for glob in globs) or r"(?!)")


class Filter:
    """Decides by name which files and directories are watched."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = (), extra: Iterable[str] = ()) -> None:
        """`include` replaces INCLUDED; it and `exclude` fit a name or an absolute path; `extra` are absolute paths."""
        excluded = list(exclude)
        self._files = _compile(tuple(include) or INCLUDED)
        self._never = _compile([*BACKUPS.split(), *excluded])
        self._directories = _compile([*EXCLUDED.split(), *excluded])
        self._paths = _compile([*excluded, *(f"{glob.rstrip('/')}/*" for glob in excluded)])
        self.extra = frozenset(extra)

    def wants(self, path: str) -> bool:
        """Whether the file at this absolute path counts; its directory is entered."""
        if path in self.extra:
            return True
        name = basename(path)
        included = self._files.match(name) or self._files.match(path)
        return bool(included) and not (self._never.match(name) or self._paths.match(path))

    def enters(self, path: str) -> bool:
        """Whether the directory at this absolute path, below a root, is looked into."""
        return not (self._directories.match(basename(path)) or self._paths.match(path))

    def covers(self, path: str, roots: Iterable[str]) -> bool:
        """Whether the file lies in one of `roots`, all directories between being entered, and counts."""
        if path in self.extra:
            return True
        return self.wants(path) and any(self.reaches(dirname(path), root) for root in roots)

    def reaches(self, directory: str, root: str) -> bool:
        """Whether `directory` is `root`, or below it and entered all the way."""
        while directory != root:
            if len(directory) <= len(root) or not self.enters(directory):
                return False
            directory = dirname(directory)
        return True


class Fingerprint(Value):
    """What is known of a file: bytes, modification time in nanoseconds, and digest, "" where it was not read."""

    size: int
    stamp: int
    digest: str = ""

    def differs(self, other: Fingerprint) -> bool:
        """Whether the contents do: by digest where both are known, else by all that is known."""
        if self.size != other.size:
            return True
        if self.digest and other.digest:
            return self.digest != other.digest
        return self.stamp != other.stamp


def describe(kinds: dict[str, str]) -> str:
    """One line for changes, path to kind ("modified", "created", "deleted"): three names of each at most."""
    parts = []
    for kind in ("modified", "created", "deleted"):
        paths = sorted(path for path, its in kinds.items() if its == kind)
        if paths:
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            parts.append(f"{kind}: {', '.join(paths[:3])}{more}")
    return "Detected " + "; ".join(parts)


class Changes:
    """The changes that no roll has taken up yet."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._first = math.inf
        self.wake_at = math.inf  # when the changes will have come to rest

    def note(self, kinds: dict[str, str], now: float) -> None:
        """Note which paths have changed, each with how; `now` in monotonic seconds."""
        self._first = min(self._first, now)
        self._kinds |= kinds
        rest = REST_ONE if len(self._kinds) == 1 else REST_MANY
        self.wake_at = min(now + rest, self._first + REST_MOST)

    def take(self, now: float) -> str:
        """The line for the log when a roll is due, and nothing is noted any more; else ""."""
        if now < self.wake_at:
            return ""
        kinds, self._kinds = self._kinds, {}
        self._first = self.wake_at = math.inf
        return describe(kinds)
