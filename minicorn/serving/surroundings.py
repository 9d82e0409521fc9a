"""What the application's code finds around it: the variables of --env, where it imports from, and its place among
paths."""

from __future__ import annotations

import os
import sys

from minicorn.config.settings import Settings
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def pythonpath(settings: Settings, directory: str) -> list[str]:
    """The directories of --pythonpath, seen from `directory`."""
    return [os.path.join(directory, entry) for entry in (settings.pythonpath or "").split(",") if entry]


def provide(settings: Settings, directory: str) -> None:
    """In this process: what is in `directory` can be imported, and before all else."""
    # As with gunicorn: many tell by it that they are in production (web.py shows no debug page then)
    os.environ.setdefault("SERVER_SOFTWARE", "minicorn")
    os.environ.update(settings.variables)
    sys.path[:0] = [directory, *pythonpath(settings, directory)]


def mount(app: WSGIApplication) -> WSGIApplication:
    """`app` below the path that SCRIPT_NAME in the environment names, as gunicorn has it; itself where none is named.

    A path that does not begin with it stays as it came: a proxy may have taken it off.
    """
    prefix = os.fsencode(os.environ.get("SCRIPT_NAME", "").rstrip("/")).decode("latin-1")
    if not prefix:
        return app

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["SCRIPT_NAME"]:  # else a proxy that is trusted has named one
            environ["SCRIPT_NAME"], path = prefix, environ["PATH_INFO"]
            if f"{path}/".startswith(f"{prefix}/"):
                environ["PATH_INFO"] = path[len(prefix) :]
        return app(environ, start_response)

    return application
