"""How a connection begins: plain, with a PROXY header before it, under TLS. Decided once, at accept."""

from __future__ import annotations

import socket

from minicorn.config.settings import Settings
from minicorn.http.heads import Heads
from minicorn.http.peers import Peers
from minicorn.serving.connection import Connection
from minicorn.serving.handoff import Parcel
from minicorn.system.listeners import Listener
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from minicorn.serving.preface import PrefacedConnection


class Reception:
    """Makes connections of accepted sockets, by the settings. ConfigError for certificates that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heads: dict[Listener, Heads] = {}
        told = settings.proxy_protocol != "off"
        self._proxies = Peers(settings.proxy_allow_from if told else "")
        self._plain = not (told or settings.certfile)
        self.secure = bool(settings.certfile)
        if self.secure or settings.keyfile:
            from minicorn.serving import secured, tls  # OpenSSL, for those who use it

            self._context = tls.load(settings)
            self._kind = secured.TlsConnection

    def expect(self, listener: Listener, base: WSGIEnvironment) -> None:
        """Clients come by `listener`; the environ of each of their requests begins with `base`."""
        self._heads[listener] = Heads(self._settings, base)

    def welcome(self, sock: socket.socket, peer: tuple[str, str], listener: Listener, now: float) -> Connection:
        """The connection of a client that has just come."""
        if self._plain:
            return Connection(sock, peer, listener, self._settings, self._heads[listener], now)
        told = not self._proxies.trusts(peer[0])
        if self.secure:
            connection: PrefacedConnection = self._kind(
                sock, peer, listener, self._settings, self._heads[listener], now, self._context
            )
        elif told:
            return Connection(sock, peer, listener, self._settings, self._heads[listener], now)
        else:
            connection = self._preface(sock, peer, listener, now)
        if told:
            connection.expect_no_header()
        return connection

    def take_over(self, sock: socket.socket, parcel: Parcel, listener: Listener, now: float) -> Connection:
        """One that another worker has greeted, and read up to some request's beginning."""
        peer = (parcel.peer, parcel.peer_port)
        if not parcel.secure:
            return Connection(sock, peer, listener, self._settings, self._heads[listener], now)
        connection = self._preface(sock, peer, listener, now)
        connection.resume_secure()
        return connection

    def _preface(
        self, sock: socket.socket, peer: tuple[str, str], listener: Listener, now: float
    ) -> PrefacedConnection:
        from minicorn.serving.preface import PrefacedConnection

        return PrefacedConnection(sock, peer, listener, self._settings, self._heads[listener], now)
