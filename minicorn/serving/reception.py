"""How a connection begins: plain, with a PROXY header before it, under TLS. Decided once, at accept."""

from __future__ import annotations

import socket

from minicorn.config.settings import Settings
from minicorn.http.heads import Heads
from minicorn.http.peers import Peers
from minicorn.serving.connection import Connection
from minicorn.serving.handoff import Parcel
from minicorn.serving.ingress import Ingress
from minicorn.system.listeners import Listener
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIEnvironment

    from minicorn.serving.preface import PrefacedConnection


class Reception:
    """Makes connections of accepted sockets, by the settings. ConfigError for certificates that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ingresses: dict[Listener, Ingress] = {}
        prefaced = settings.proxy_protocol != "off"
        self._proxies = Peers(settings.proxy_allow_from if prefaced else "")
        self.secure = bool(settings.certfile)
        self._plain = not (prefaced or self.secure)
        self._context: ssl.SSLContext | None = None
        self._kind: type[PrefacedConnection]  # of connections that are not plain
        if self.secure or settings.keyfile or settings.cert_reqs != "none":
            from minicorn.serving import secured, tls  # OpenSSL, for those who use it

            self._context = tls.load(settings)
            self._kind = secured.TlsConnection
        elif prefaced:
            from minicorn.serving.preface import PrefacedConnection

            self._kind = PrefacedConnection

    def expect(self, listener: Listener, base: WSGIEnvironment) -> None:
        """Clients come by `listener`; the environ of each of their requests begins with `base`."""
        self._ingresses[listener] = Ingress(listener, self._settings, Heads(self._settings, base), self._context)

    def welcome(self, sock: socket.socket, peer: tuple[str, str], listener: Listener, now: float) -> Connection:
        """Make the connection of a client that has just come."""
        if self._plain:
            return Connection(sock, peer, self._ingresses[listener], now)
        sends_header = self._proxies.trusts(peer[0])
        if not (self.secure or sends_header):
            return Connection(sock, peer, self._ingresses[listener], now)
        connection = self._kind(sock, peer, self._ingresses[listener], now)
        if not sends_header:
            connection.expect_no_header()
        return connection

    def take_over(self, sock: socket.socket, parcel: Parcel, listener: Listener, now: float) -> Connection:
        """Make the connection of a client that another worker has welcomed, and read up to some request's beginning."""
        peer = (parcel.peer, parcel.peer_port)
        if not parcel.secure:
            return Connection(sock, peer, self._ingresses[listener], now)
        from minicorn.serving.preface import PrefacedConnection

        connection = PrefacedConnection(sock, peer, self._ingresses[listener], now)
        connection.resume_secure()
        return connection
