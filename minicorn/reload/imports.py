"""What --reload must know of an import, and change of it, in a worker.

A .pyc file is trusted by Python when the time, in whole seconds, and the size of its source
are those that it was made of: a file edited twice within a second, at the same length, runs as
it was before. So the .pyc of a file that was changed just now is neither read nor written.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader

from minicorn.record import Value
from minicorn.reload.changes import INSTALLED

# Seconds for which a file counts as changed just now: more than one, the step of a .pyc's times
FRESH = 2.0


def distrust_fresh_bytecode() -> None:
    """Neither read nor write the .pyc of a file that was changed just now, from now on in this process."""
    trust = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Mapping[str, object]:
        status = os.stat(path)
        if max(status.st_mtime, status.st_ctime) > time.time() - FRESH:
            raise OSError("too fresh")  # importlib then leaves the .pyc alone
        return trust(self, path)

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]


class Imported(Value):
    """What a worker has imported so far."""

    places: list[tuple[str, bool]]  # the project's directories, each with whether what is below belongs to it
    own: list[str]  # the top-level names of the project's modules
    modules: list[str]  # the others, from files, in the order of their import


def survey() -> Imported:
    """List what this process has imported. The project's is what is not the standard library's, installed, or ours."""
    places: set[tuple[str, bool]] = set()
    own: set[str] = set()
    others: list[str] = []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not os.path.isabs(path) or name.startswith(("minicorn", "__main__")):
            continue
        if is_installed(path):
            others.append(name)
            continue
        top = name.partition(".")[0]
        own.add(top)
        top_path = getattr(sys.modules.get(top), "__file__", None) or ""
        is_package = os.path.basename(top_path).startswith("__init__.")
        # Edits are seen where the file is, not where a symlink to it or to its directory is; that may lead elsewhere
        file = top_path if is_package else path
        places |= {(os.path.dirname(each), is_package) for each in (os.path.realpath(file), file)}
    return Imported(sorted(places), sorted(own), others)


def is_installed(path: str) -> bool:
    """Whether the file is the standard library's, a package's, or ours: nobody edits it."""
    return path.startswith(_ELSEWHERE) or any(f"/{name}/" in path for name in INSTALLED)


def mind_debuggers(tell: Callable[[], object]) -> None:
    """Call `tell` whenever a debugger of Python's kind (pdb and what derives from it) is entered.

    Ctrl-C stays the server's: pdb would take it once it has let a request go on, and break into our loop.
    """
    import bdb

    set_trace = bdb.Bdb.set_trace

    def enter(self: bdb.Bdb, frame: object = None) -> None:
        tell()
        self.nosigint = True  # type: ignore[attr-defined]  # pdb's own
        set_trace(self, frame or sys._getframe().f_back)  # type: ignore[arg-type]

    bdb.Bdb.set_trace = enter  # type: ignore[method-assign]


def _elsewhere() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {sysconfig.get_path(name) for name in names} | set(site.getsitepackages()) | {site.getusersitepackages()}
    return tuple(os.path.join(path, "") for path in found) + (os.path.dirname(os.path.dirname(__file__)) + os.sep,)


_ELSEWHERE = _elsewhere()
