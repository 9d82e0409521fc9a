"""A way in: one listener, and what is decided once for all clients who come by it."""

from __future__ import annotations

from minicorn.config.settings import Settings
from minicorn.http.heads import Heads
from minicorn.record import Value
from minicorn.system.listeners import Listener
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # OpenSSL is loaded where TLS is spoken
    import ssl


class Ingress(Value):
    """What a connection needs to know of where it has come in."""

    listener: Listener
    settings: Settings
    heads: Heads  # which reads the heads of its requests
    context: ssl.SSLContext | None = None  # with TLS
