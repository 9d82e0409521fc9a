"""plain.py whose workers grow, by memory of their own or by memory that they share."""

import mmap
import os
from pathlib import Path

from plain import ROUTES
from plain import app as app

HELD = []


def grow(environ):
    """By so many MiB of the worker's own, each page written."""
    HELD.append(b"x" * (int(environ["QUERY_STRING"]) << 20))
    return str(os.getpid())


if Path("shared").exists():
    # The same pages of the same file for all workers, each page read
    with open("shared", "rb") as file:
        SHARED = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    sum(SHARED[:: mmap.PAGESIZE])

ROUTES["/grow"] = grow
