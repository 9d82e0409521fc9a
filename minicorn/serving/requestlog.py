"""A worker's lines in the access log: of what the application has answered, and of what it never saw."""

from __future__ import annotations

import contextlib
import time
from wsgiref.types import WSGIEnvironment

from minicorn.config.settings import Settings
from minicorn.errors import ProtocolError
from minicorn.http.reply import status_line
from minicorn.http.tracing import Tracing
from minicorn.logs.accesslog import compile_format, tells_inside
from minicorn.logs.entry import Entry, Origin
from minicorn.logs.output import Sink
from minicorn.logs.unanswered import environ_of, read_request
from minicorn.serving.claims import Claims
from minicorn.serving.connection import Connection
from minicorn.serving.state import APP
from minicorn.serving.wsgi import Exchange, Gateway


class Stopwatch:
    """A gateway that measures how long the application takes: `inside`, in seconds, adds up until it is set anew."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._left = 0.0
        self.inside = 0.0
        self.is_willing = gateway.is_willing
        self.explain = gateway.explain
        self.wait_writable = gateway.wait_writable

    def release(self) -> None:
        self._left = time.monotonic()
        self._gateway.release()

    def acquire(self) -> None:
        self._gateway.acquire()
        if self._left:  # else we have been asked again, as after an error
            self.inside += time.monotonic() - self._left
            self._left = 0.0


class RequestLog:
    """Writes the lines of one server. Times are monotonic seconds."""

    def __init__(
        self, sink: Sink, settings: Settings, origin: Origin, tracing: Tracing, claims: Claims, gateway: Gateway
    ) -> None:
        """`gateway` is the server's own, between it and the application."""
        self._sink = sink
        self._render = compile_format(settings.access_logformat)
        self._scheme = settings.scheme
        self._origin = origin
        self._tracing = tracing
        self._claims = claims
        self._watch = Stopwatch(gateway)
        # The server's own, with a watch on it where the format asks for that
        self.gateway: Gateway = self._watch if tells_inside(settings.access_logformat) else gateway

    def answered(
        self,
        connection: Connection,
        environ: WSGIEnvironment,
        exchange: Exchange,
        name: str,
        seconds: float,
        waited: float,
    ) -> None:
        """Write the line of a request that was given to the application, which took so many `seconds`."""
        inside, self._watch.inside = self._watch.inside, 0.0
        if exchange.status is not None:
            entry = Entry(
                environ,
                exchange.status,
                exchange.headers,
                exchange.sent,
                seconds,
                self._origin,
                name,
                connection.since - connection.begun,
                waited,
                inside,
            )
            self._sink.write(self._render(entry))

    def refused(self, connection: Connection, status: int, now: float) -> None:
        """Write the line of a request that is answered without the application."""
        request = connection.request or read_request(connection.unparsed)
        environ = environ_of(request, connection.peer)
        environ |= {"REMOTE_PORT": connection.peer_port, "wsgi.url_scheme": self._scheme}
        with contextlib.suppress(ProtocolError):  # which may be why it is refused
            self._claims.judge(environ, request.aside, secure=False)
        line = status_line(status)
        body = len(line) + 1 if connection.request is None or request.method != "HEAD" else 0
        entry = Entry(environ, line, [], body, 0.0, self._origin)
        entry.request_id = self._tracing.name(request.meta, connection.peer)
        whole = connection.since if connection.state is APP else now
        entry.reading = whole - connection.begun
        if whole < now:  # in our queue, and unread
            entry.queued = max(now - whole, connection.quiet)
        self._sink.write(self._render(entry))
