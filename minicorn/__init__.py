"""minicorn: a pre-fork process manager and HTTP/1.1 server for synchronous WSGI applications."""

from __future__ import annotations

from minicorn.typed import TYPE_CHECKING
from minicorn.version import VERSION

if TYPE_CHECKING:
    from minicorn.api import run, serve

__version__ = VERSION
__all__ = ["run", "serve"]


def __getattr__(name: str) -> object:
    """`run` and `serve`, imported when they are wanted: they need a POSIX system."""
    if name in __all__:
        from minicorn import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
