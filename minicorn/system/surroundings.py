"""What the application's code finds around it in its process: the variables of --env, and where it imports from."""

from __future__ import annotations

import os
import sys

from minicorn.config.settings import Settings


def provide(settings: Settings, directory: str) -> None:
    """Set the variables of --env in this process, and import first from `directory`, then from --pythonpath, whose
    relative paths begin there."""
    # As with gunicorn: many tell by it that they are in production (web.py shows no debug page then)
    os.environ.setdefault("SERVER_SOFTWARE", "minicorn")
    os.environ.update(settings.variables)
    pythonpath = [os.path.join(directory, entry) for entry in (settings.pythonpath or "").split(",") if entry]
    sys.path[:0] = [directory, *pythonpath]
