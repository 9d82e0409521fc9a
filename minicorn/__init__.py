"""minicorn: a pre-fork process manager and HTTP/1.1 server for synchronous WSGI applications.

Where things are, from what knows nothing of the rest to what joins it:

    config/     the settings: one table, the layers that become them, files
    http/       messages as values, and pool/, the arbiter's mind: both pure
    system/     one fact of the operating system each
    figures/    heartbeats and counters, and who shows them
    logs/       the error log and the access log
    serving/    a worker: from an accepted socket to the application and back; server.py joins it
    reload/     --reload
    arbiter/    the process that binds, forks, listens to its children and never serves
    cli, ctl, api, app      the commands, and serve() and run()

What a module may import is held by tests/pure/test_layers.py: a layer goes across packages.

Words of the house: a *page* is a worker's heartbeat file, mapped; the *ledger* is the arbiter's own. A *slot*
is a worker's number, which its successor takes over; a *generation*, the code that it has imported; a *roll*
replaces one by the next, and its first worker is the *canary*. A *template* imports the application once and
forks workers; a *post* is all that one is born to. An *ingress* is a listener with all that is settled for its
clients; a *parcel* goes with a connection that is handed off to a sibling.
Workers *hold* what they have while newer code is imported (--reload), and are *sealed* at the server's end: they give
nothing away any more. An *auxiliary* is a child of the arbiter's that serves no client.
"""

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
