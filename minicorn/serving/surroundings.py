"""What the application's code finds around it: the variables of --env, and where it imports from."""

from __future__ import annotations

import os
import sys

from minicorn.config.settings import Settings


def pythonpath(settings: Settings, directory: str) -> list[str]:
    """The directories of --pythonpath, seen from `directory`."""
    return [os.path.join(directory, entry) for entry in (settings.pythonpath or "").split(",") if entry]


def provide(settings: Settings, directory: str) -> None:
    """In this process: what is in `directory` can be imported, and before all else."""
    # As with gunicorn: many tell by it that they are in production (web.py shows no debug page then)
    os.environ.setdefault("SERVER_SOFTWARE", "minicorn")
    os.environ.update(settings.variables)
    sys.path[:0] = [directory, *pythonpath(settings, directory)]
