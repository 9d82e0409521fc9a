"""Warm-up requests: through WSGI, inside a new worker, before it says READY.

Each goes over a private socket pair through the same parser and the same exchange as a
client's, so that what it loads and compiles is what a client would have waited for.
"""

from __future__ import annotations

import socket
from wsgiref.types import WSGIApplication, WSGIEnvironment

from minicorn.config.settings import Settings
from minicorn.errors import AppLoadError
from minicorn.http.heads import Heads
from minicorn.http.request import Request
from minicorn.serving.connection import Connection
from minicorn.serving.handoff import Parcel
from minicorn.serving.ingress import Ingress
from minicorn.serving.wsgi import Exchange
from minicorn.system.listeners import Listener


class _Reader:
    """The gateway of an exchange whose client reads at once and throws away."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        client.setblocking(False)

    def release(self) -> None:
        """Nothing to release: no helper is there."""

    def acquire(self) -> None:
        """Nothing to acquire: no helper is there."""

    def is_willing(self, connection: Connection) -> bool:
        """Never: one request is all."""
        return False

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        """Explain nothing: nobody reads it."""
        return "text/plain", ""

    def wait_writable(self, connection: Connection) -> None:
        while connection.outbox.size:
            try:
                while self._client.recv(1 << 20):
                    pass
            except BlockingIOError:
                pass
            connection.outbox.flush()


def warm_up(app: WSGIApplication, path: str, base: WSGIEnvironment, listener: Listener, settings: Settings) -> None:
    """GET `path` from the application; AppLoadError for a status of 500 or more, which an exception becomes, and
    for a reply that ends early."""
    ours, client = socket.socketpair()
    ours.setblocking(False)
    with client:
        connection = Connection(ours, ("127.0.0.1", "0"), Ingress(listener, settings, Heads(settings, base)), 0.0)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: minicorn-warmup\r\n\r\n"
        connection.resume(Parcel(listener.number, 0, 0.0, 0.0, "127.0.0.1", "0", head.encode()), 0.0)
        exchange = Exchange(connection, connection.take_up(), "", _Reader(client))
        exchange.run(app)
        connection.close()
    status = exchange.status or ""
    if status >= "500":
        raise AppLoadError(f"the warm-up request GET {path} was answered with {status}")
    if exchange.broken:
        raise AppLoadError(f"the reply to the warm-up request GET {path} ended early")
