"""results.json: what was measured, with which versions, where and when; and what is asked of it.

By version of Python, then by workload: `{"date", "commit", "rounds", "seconds", "figures": {server: {figure:
median}}}`. A workload's figures are all of one run, in interleaved rounds; a new run of it replaces them. With each
Python stands how it was built: that slows minicorn, and not its peers in C and Rust.
"""

import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from servers import CHECKOUT, HERE

from minicorn.version import VERSION

FILE = HERE / "results.json"
PYTHON = platform.python_version()
PACKAGES = ("gunicorn", "waitress", "granian", "bjoern", "fastpysgi", "uWSGI", "flask", "django")
OPTIMIZATIONS = {"--enable-optimizations": "PGO", "--with-lto": "LTO"}
PLAIN = "plain"  # without them

Document = dict[str, Any]

# What is asked: our figure, at most so many times a peer's (or so much at most, without one)
GOALS = (
    ("hello", "cpu_us", "granian", 1.0),
    ("hello", "cpu_us", "bjoern", 1.5),
    ("hello", "cpu_us", "gunicorn-sync", 1 / 9),
    ("hello", "cpu_us", "waitress", 1 / 7),
    ("close", "cpu_us", "granian", 1.0),
    ("close", "cpu_us", "bjoern", 1.3),
    ("reply-100k", "cpu_us", "bjoern", 1.0),
    ("post", "cpu_us", "granian", 1.2),
    ("upload", "cpu_us", "gunicorn-sync", 1 / 4),
    ("flask", "cpu_us", "bjoern", 1.08),
    ("flask", "cpu_us", "granian", 1.0),
    ("django", "cpu_us", "bjoern", 1.08),
    ("django", "cpu_us", "granian", 1.0),
    ("start", "first_ms", "gunicorn-sync", 0.6),
    ("idle", "connection_kb", "", 4.0),
    ("idle", "share", "", 0.95),  # at least
)


def load() -> Document:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def store(kind: str, name: str, content: Document) -> None:
    """Keep `content` as what is known of `name` with this Python; with it, who measured."""
    document = load()
    mine = document.setdefault(PYTHON, {})
    mine["machine"], mine["build"] = _machine(), build()
    mine["versions"] = mine.get("versions", {}) | _versions()
    stamp = {"date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "commit": _commit()}
    mine.setdefault(kind, {})[name] = stamp | content
    FILE.write_text(json.dumps(document, indent=1) + "\n")


def latest(document: Document, kind: str = "workloads") -> str:
    """The Python with most measured of that kind; among equals, one that is not plain."""

    def measured(python: str) -> tuple[int, bool]:
        return len(document[python].get(kind, {})), document[python]["build"] != PLAIN

    return max(document, key=measured)


def title(document: Document, python: str) -> str:
    """A Python as tables and picture name it: its version, and how it was built."""
    return f"{python} ({document[python]['build']})"


def reached(figures: Document, figure: str, peer: str) -> float | None:
    """What a goal is judged by, where it was measured: a ratio, or our figure."""
    ours, theirs = figures.get("minicorn", {}).get(figure), figures.get(peer, {}).get(figure)
    if ours is None or (peer and theirs is None):
        return None
    return ours / theirs if peer else ours


def is_met(figure: str, value: float, limit: float) -> bool:
    return value >= limit if figure == "share" else value <= limit


def build() -> str:
    """How this Python was built: optimized how, or by which distribution, or plain."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    found = [name for flag, name in OPTIMIZATIONS.items() if flag in arguments]
    # Debian's has both, and does not say so: its rules give the flags to make, and take them out of what is installed
    if not found and sys.base_prefix == "/usr":
        return platform.freedesktop_os_release()["ID"].capitalize()
    return ", ".join(found) or PLAIN


def _machine() -> Document:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "kernel": platform.release(),
    }


def _versions() -> dict[str, str]:
    found = {"minicorn": VERSION}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def _commit() -> str:
    """Of what is measured: results that were written meanwhile do not make it another."""
    commit, changed = (
        subprocess.run(["git", "-C", str(CHECKOUT), *command], capture_output=True, text=True).stdout.strip()
        for command in (["describe", "--always"], ["status", "--porcelain", "minicorn"])
    )
    return f"{commit}-dirty" if changed else commit
