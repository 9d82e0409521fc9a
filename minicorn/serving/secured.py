"""A connection under TLS: the handshake in the event loop, then requests as on any other, then close_notify.

It stays with its worker, which alone has its keys; so a worker that retires ends it: at once where
it is idle, after its reply where it is not.
"""

from __future__ import annotations

import socket
import ssl

from minicorn.errors import ClientGone
from minicorn.logs.logger import LOGGER
from minicorn.serving.ingress import Ingress
from minicorn.serving.preface import PrefacedConnection
from minicorn.serving.state import HEAD, LINGER, PREFACE, REPLY
from minicorn.serving.tls import TlsOutbox, TlsSocket, describe
from minicorn.system import poller


class TlsConnection(PrefacedConnection):
    """A connection under TLS, behind a PROXY header or not; it stays with its worker, which alone has its keys."""

    __slots__ = ("_secure",)
    travels = False

    def __init__(self, sock: socket.socket, peer: tuple[str, str], ingress: Ingress, now: float) -> None:
        super().__init__(sock, peer, ingress, now)
        self._secure: TlsSocket | None = None

    def parcel(self) -> None:
        return None

    def flush(self, now: float) -> None:
        if self.state is PREFACE:
            self._shake_hands()
        else:
            super().flush(now)

    def close(self, reset: bool = False) -> None:
        if not (reset or self.state is PREFACE or self.outbox.size) and self._secure is not None:
            self._secure.say_goodbye()
        super().close(reset)

    def _begin(self, now: float) -> bool:
        return self._shake_hands() and super().receive(now)

    def _shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done. ClientGone where it fails."""
        try:
            if self._secure is None:
                self._wrap()
            assert self._secure is not None
            self._secure.do_handshake()
        except ssl.SSLWantReadError:
            self.interest = poller.READ
            return False
        except ssl.SSLWantWriteError:
            self.interest = poller.WRITE
            return False
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            if not isinstance(error, (ssl.SSLEOFError, ConnectionError)):  # it has left, as health checks do
                LOGGER.info("%s: its TLS handshake failed: %s", self.peer or self.listener.name, reason)
            raise ClientGone(f"its TLS handshake failed: {reason}") from error
        self.interest = poller.READ
        self.about |= describe(self._secure)
        self._move(HEAD)
        return True

    def _wrap(self) -> None:
        assert self._ingress.context is not None
        secure = self._ingress.context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        assert isinstance(secure, TlsSocket)
        self.sock = self._secure = secure
        self.outbox = TlsOutbox(secure)

    def _end(self, now: float) -> None:
        """Send close_notify as the last of the reply: without it the client cannot tell an end from a cut."""
        if self._secure is not None and not self._secure.say_goodbye():
            if self.state is not REPLY:
                self._move(REPLY)
                self.note_progress(now)
            self.interest = poller.WRITE
        else:
            self._next = LINGER  # its own close_notify, to a socket that is closed, would reset what it has not read
            super()._end(now)
