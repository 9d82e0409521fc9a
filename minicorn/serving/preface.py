"""A connection with something before its first byte of HTTP: a PROXY header, from a proxy that sends one.

Once that is over it is a connection like any other. The head's deadline covers it, so that
whoever is silent in it has no longer than whoever is silent in a head. A plain server has none of this.
"""

from __future__ import annotations

import socket

from minicorn.errors import ClientGone
from minicorn.http.proxy import parse_proxy
from minicorn.http.request import Request
from minicorn.record import replace
from minicorn.serving.connection import Connection
from minicorn.serving.handoff import Parcel
from minicorn.serving.ingress import Ingress
from minicorn.serving.state import HEAD, PREFACE

# Bytes of the largest PROXY header, of version 2
_HEADER_MOST = 16 + 65535


class PrefacedConnection(Connection):
    """A connection whose peer is a proxy that names its client in a PROXY header."""

    __slots__ = ("_header", "_told", "about")

    def __init__(self, sock: socket.socket, peer: tuple[str, str], ingress: Ingress, now: float) -> None:
        super().__init__(sock, peer, ingress, now)
        self.state = PREFACE
        self.about: dict[str, str] = {}  # environ keys that each of its requests has
        self._header = b""
        self._told = False

    def receive(self, now: float) -> bool:
        if self.state is PREFACE:
            if not (self._told or self._read_header()):
                return False
            return self._begin(now)
        return super().receive(now)

    def take_up(self) -> Request:
        request = super().take_up()
        request.meta.update(self.about)
        return request

    def parcel(self) -> Parcel | None:
        parcel = super().parcel()
        return replace(parcel, secure=bool(self.about)) if parcel else None

    def expect_no_header(self) -> None:
        """Begin with HTTP, or TLS, at once: the peer is none that sends a header."""
        self._told = True

    def resume_secure(self) -> None:
        """Go on where another worker has read the header, by which the client came over TLS, and what followed it."""
        self._learn(secure=True)
        self._move(HEAD)

    def _learn(self, secure: bool) -> None:
        self._told = True
        if secure:
            self.about["wsgi.url_scheme"] = "https"

    def _begin(self, now: float) -> bool:
        """Go on to the HTTP that follows the header; whether a request is whole."""
        self._move(HEAD)
        return super().receive(now)

    def _read_header(self) -> bool:
        """Read of the header what has come; whether it is whole. Not a byte behind it is taken: that may be TLS's."""
        try:
            seen = self.sock.recv(_HEADER_MOST, socket.MSG_PEEK)
            if not seen:
                raise ClientGone("it closed the connection")
            parsed = parse_proxy(self._header + seen, self.settings.proxy_protocol)
            used = parsed[1] - len(self._header) if parsed else len(seen)
            self._header += self.sock.recv(used)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ClientGone(str(error)) from error
        if parsed is None:
            return False
        source, _ = parsed
        if source.address:
            self.peer, self.peer_port = source.address, source.port
        self._header = b""
        self._learn(source.secure)
        return True
