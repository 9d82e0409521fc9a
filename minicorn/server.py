"""The server of one process: the event loop joined to the application; one request at a time.

`Server(app, host, port).serve()` is a whole server, in the main thread or in any other; a
worker runs the same over listeners that the arbiter has bound and a queue that it shares.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Collection

from minicorn.config.address import Tcp
from minicorn.config.settings import DEFAULTS, Settings
from minicorn.errors import ClientGone, ProtocolError
from minicorn.figures.heartbeat import private_page
from minicorn.http.request import Request
from minicorn.http.tracing import Tracing
from minicorn.logs.logger import LOGGER
from minicorn.logs.output import Sink
from minicorn.serving.claims import Claims
from minicorn.serving.connection import Connection
from minicorn.serving.custody import Custody
from minicorn.serving.deadlines import TICK
from minicorn.serving.helper import Helper
from minicorn.serving.loader import end_fork, load_app
from minicorn.serving.loop import Loop
from minicorn.serving.reception import Reception
from minicorn.serving.seat import Identity, Seat
from minicorn.serving.stance import CLOSING, SERVING
from minicorn.serving.wsgi import Exchange, Gateway, base_environ
from minicorn.system import listeners, poller
from minicorn.system.listeners import Listener, SocketOptions
from minicorn.system.wakeup import Wakeup
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # ours are imported where they are on
    from typing import IO
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from minicorn.reload.development import Development
    from minicorn.serving.requestlog import RequestLog

__all__ = ["Server", "load_app"]


# Seconds in which a connection that was accepted as we stop must send its first byte
SILENT_GRACE = 1.0
# Seconds after a reply for which its client may have sent the next request already
FRESH = 1.0
# Seconds between a retiring worker's tries to give away what the queue had no room for
GIVE_AGAIN = 0.02
# Seconds of waiting for its turn after which a client may have gone: worth a system call
STALE = 1.0


class Server:
    """A WSGI server in this process. All methods but `signal_exit` belong to the thread that serves."""

    def __init__(
        self,
        app: WSGIApplication,
        host: str = DEFAULTS.host,
        port: int = DEFAULTS.port,
        *,
        settings: Settings | None = None,
        bound: list[Listener] | None = None,
        access: Sink | None = None,
        seat: Seat | None = None,
    ) -> None:
        """`host` and `port` are bound by `serve`, unless listeners come `bound` (a worker's)."""
        self.app = app
        self.host, self.port = host, port
        self.should_exit = False
        # Called after each request: environ, status, header fields, bytes of body
        self.after_request: Callable[[WSGIEnvironment, str, list[tuple[str, str]], int], object] | None = None
        self.errors: IO[str] | None = None  # `wsgi.errors`, where that is not standard error
        self._settings = settings = settings or DEFAULTS
        seat = seat or Seat()
        self._page = seat.page
        self._identity = Identity(seat)
        # A connection that has served fewer requests is kept; none is, once we end
        self._served_most = (settings.max_keepalive_requests or sys.maxsize) - 1 if settings.keep_alive else 0
        self._queue_timeout = settings.queue_timeout
        self._request_patience = settings.timeout or float("inf")
        self._claims = Claims(settings)
        self._tracing = Tracing(os.urandom(6).hex(), self._claims.peers)
        self._bound = bound
        self._listeners: list[Listener] = []
        self._drain = True
        self._limit = 0
        self._at_limit: Callable[[], object] | None = None
        self._reception = Reception(settings)
        self._loop = Loop(settings, self._reception, seat)
        self._custody = Custody(self._loop, settings)
        self._helper = Helper(settings.handoff_after / 1000, self._loop.help) if settings.handoff_after else None
        # Called on the way into the application, where the connections are the helper's, and on the way back
        self.release: Callable[[], None] = self._helper.release if self._helper else lambda: None
        self.acquire: Callable[[], None] = self._helper.acquire if self._helper else lambda: None
        self._log = self._open_log(access, seat) if access is not None else None
        self._gateway: Gateway = self._log.gateway if self._log is not None else self
        self._wakeup = Wakeup()
        self._soon: list[Callable[[], object]] = []
        self._loop.watch(self._wakeup.fd, self._wake_up)
        self.development: Development | None = None
        self._dispatch: Callable[[Connection], None] = self._answer
        if settings.reload:
            from minicorn.reload.development import Development

            self.development = Development(app, settings, seat.generation, self._custody, self._answer)
            self.app, self._dispatch = self.development.app, self.development.dispatch

    def _open_log(self, sink: Sink, seat: Seat) -> RequestLog:
        """Make the access log, with the loop's refusals in it."""
        from minicorn.logs.entry import Origin
        from minicorn.serving.requestlog import RequestLog

        origin = Origin(seat.slot, seat.generation, os.getpid())
        log = RequestLog(sink, self._settings, origin, self._tracing, self._claims, self)
        self._loop.on_refusal = log.refused
        return log

    # The public face

    def serve(self) -> None:
        """Serve until `signal_exit`, then finish what has begun. BindError when it cannot listen."""
        try:
            self._open()
            _SERVERS.add(self)
            if self._helper is not None:
                self._helper.begin()
            try:
                while not self.should_exit:
                    self._loop.step(TICK, self._dispatch)
                self._retire(time.monotonic() + self._settings.graceful_timeout)
            finally:
                self.release()
        finally:
            self.shutdown()

    def signal_exit(self, drain: bool = True) -> None:
        """Ask the server to finish; from a signal handler or another thread, at any time.

        `drain`: nobody else will serve what waits, so that is served too.
        """
        self._drain = drain
        if drain:
            self.part()
        self.should_exit = True
        self._wakeup.ring()

    def soon(self, act: Callable[[], object]) -> None:
        """Call `act` in the thread that serves, between two requests; from any thread."""
        self._soon.append(act)
        self._wakeup.ring()

    def _wake_up(self) -> None:
        self._wakeup.drain()
        while self._soon:
            self._soon.pop(0)()

    def shutdown(self) -> None:
        """Close everything now; nothing happens where that is done."""
        self.should_exit = True
        if self._wakeup.fd < 0:
            return
        if self._helper is not None:
            self._helper.end()
        self._loop.close()
        for listener in self._listeners:
            if self._bound is None:
                listener.unlink()
            listener.close()
        _SERVERS.discard(self)
        self._wakeup.close()

    def watch(self, fd: int, callback: Callable[[], object], urgent: bool = False) -> None:
        """Call `callback` when `fd` is readable; `urgent`: by the helper, if the application is busy."""
        self._loop.watch(fd, callback, urgent)

    def unwatch(self, fd: int) -> None:
        """Forget what `watch` was told."""
        self._loop.unwatch(fd)

    def warm_up(self) -> None:
        """Make the warm-up requests; AppLoadError when one fails."""
        for path in self._settings.warmup:
            for listener in (self._bound or [])[:1]:
                from minicorn.serving.warmup import warm_up

                base = self._base_environ(listener) | {"minicorn.request_id": self._tracing.name({}, "")}
                warm_up(self.app, path, base, listener, self._settings)

    def limit_requests(self, limit: int, at_limit: Callable[[], object]) -> None:
        """Call `at_limit` once, after `limit` requests; serving goes on."""
        self._limit, self._at_limit = limit, at_limit

    def pause(self) -> None:
        """End our own thread, if one runs, until the next request wants it."""
        if self._helper is not None:
            self._helper.stop()

    @property
    def connections(self) -> Collection[Connection]:
        """The connections that this process holds."""
        return self._loop.connections.values()

    # Life

    def _open(self) -> None:
        if self._bound is None:
            self._listeners = [listeners.bind(Tcp(self.host, self.port), SocketOptions(self._settings.backlog))]
            self.port = self._listeners[0].port
            LOGGER.info("Started server process [%d]", os.getpid())
            LOGGER.info("Listening on %s", self._listeners[0].url(self._settings.scheme))
        else:
            self._listeners = self._bound
        for listener in self._listeners:
            self._reception.expect(listener, self._base_environ(listener))
        self._loop.listen(self._listeners)

    def _base_environ(self, listener: Listener) -> WSGIEnvironment:
        secure = {"wsgi.url_scheme": "https", "HTTPS": "on"} if self._settings.certfile else {}
        return base_environ(listener, self._settings.workers != 1, self._settings.sendfile) | {
            **secure,
            "wsgi.errors": self.errors or sys.stderr,
            "minicorn.worker": self._identity,
            "minicorn.extend_deadline": self._page.extend,
            "minicorn.shutting_down": lambda: self.should_exit or self._loop.stance is CLOSING,
        }

    def part(self) -> None:
        """Let each reply be its connection's last, as the server ends soon: no client is left to send its next
        request into a close."""
        self._served_most = 0

    def seal(self) -> None:
        """Give nothing away any more, and let each reply be the last, as the whole server ends."""
        self.part()
        if self._custody.seal() and self.development is not None:
            self.development.finish()

    def abandon(self) -> None:
        """Take what waits, close the listeners at once, and finish, as there is no arbiter any more."""
        self.seal()
        while self._loop.intake.take_new():
            pass
        self._loop.intake.close()
        self.signal_exit()

    def _retire(self, deadline: float) -> None:
        """Take nothing more, and finish what has begun; until `deadline`, in monotonic seconds."""
        loop, custody = self._loop, self._custody
        if self._drain:
            self.seal()
            # One at a time, so that siblings that drain too have their share
            while loop.intake.take_new() and time.monotonic() < deadline:
                loop.step(0, self._dispatch)
            loop.intake.close()
            loop.step(0, self._dispatch)  # a request that has just arrived is no idle connection
            custody.close_idle()
            custody.hasten_silent(time.monotonic() + SILENT_GRACE)
        else:
            if custody.leave() and self.development is not None:
                self.development.part()
            loop.intake.stop()
            if self.development is None or self.development.gives_all:
                # The wake-up for a connection that waits may have been ours: nobody else would take it then
                loop.intake.take_new()
            loop.intake.close()
            custody.end_idle(FRESH)
        while loop.connections and time.monotonic() < deadline:
            if loop.stance is CLOSING:
                custody.close_idle()
            else:
                custody.give_all()
            loop.step(TICK if self._drain else GIVE_AGAIN, self._dispatch)

    # The application

    def wait_writable(self, connection: Connection) -> None:
        """Go on sending the rest of a reply while the application works, and wait where too much of it is left. The
        application's deadline moves along. ClientGone when the client takes nothing in time."""
        patience = self._settings.send_timeout
        connection.interest = poller.WRITE
        self._loop.poll_for(connection)
        while connection.outbox.full:
            began, unsent = time.monotonic(), connection.unsent
            self._page.extend(patience)
            self.release()
            try:
                writable = poller.wait(connection.fd, poller.WRITE, patience)
            finally:
                self.acquire()
            if not writable and connection.unsent >= unsent:
                raise ClientGone(f"it took nothing of its reply for {patience:g} s")
            connection.outbox.flush()
            self._page.extend(time.monotonic() - began - patience)

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        """The media type and text of a 500 for what the application has raised: with --reload a page."""
        return self.development.explain(error, request) if self.development else ("text/plain", "")

    def _answer(self, connection: Connection) -> None:
        """Give a complete request to the application, and its reply to the connection."""
        request = connection.take_up()
        environ: WSGIEnvironment = request.meta
        began = time.monotonic()
        if request.aside or request.secure:
            try:
                self._claims.judge(environ, request.aside, request.secure)
            except ProtocolError as error:
                self._loop.refuse(connection, error, began)
                return
        waited = began - connection.since
        # A request that lay unread while the last one took its time has waited as well
        long = waited > STALE or self._loop.took > STALE or self._queue_timeout
        if long and self._comes_too_late(connection, began):
            return
        name = self._tracing.name(environ, connection.peer)
        environ["minicorn.request_id"] = name
        if "HTTP_X_REQUEST_START" in environ:
            waited = self._tracing.waited(environ, connection.peer, time.time(), waited)
        head = "" if self._log is None else request.head  # should we die of it, the arbiter logs it
        deadline = began + self._request_patience
        self._page.begin(request.method, request.target, environ["REMOTE_ADDR"], began, deadline, name, head)
        exchange = Exchange(connection, request, self._loop.date, self._gateway)
        gone: ClientGone | None = None
        try:
            exchange.run(self.app)
        except ClientGone as error:
            gone = error
        if self.after_request is not None and exchange.status is not None:
            self.after_request(environ, exchange.status, exchange.headers, exchange.sent)
        now = time.monotonic()
        if self._log is not None:
            self._log.answered(connection, environ, exchange, name, now - began, waited)
        took = self._loop.took = now - began
        deadline = now + self._loop.idle_patience
        self._page.end(now, deadline, exchange.status, took, waited, connection.received, exchange.handed)
        if gone is None and exchange.broken and exchange.unbounded:
            gone = ClientGone("its reply could not be completed")
        if gone is None:
            self._loop.finish(connection, exchange.keep_alive, not exchange.unbounded, now)
        else:
            self._loop.lose(connection, gone, reset=True)
        if self._at_limit is not None and self._page.requests >= self._limit:
            self._at_limit()
            self._at_limit = None

    def _comes_too_late(self, connection: Connection, now: float) -> bool:
        """Whether its request has waited for too long, or its client has left: then it has been refused, or closed."""
        waited = max(now - connection.since, connection.quiet)  # in our queue, and unread
        if self._queue_timeout and waited > self._queue_timeout:
            self._loop.refuse(connection, ProtocolError(503, f"it has waited {waited:.1f} s for a worker"), now)
            return True
        if waited > STALE and connection.is_gone:
            self._loop.lose(connection, ClientGone("it did not wait for its turn"))
            return True
        return False

    def is_willing(self, connection: Connection) -> bool:
        """Whether to keep the connection after its reply: we do not end, and it has not had its share of requests. A
        worker that retires keeps what can travel, since its successor will have it."""
        return connection.served < self._served_most and (
            connection.travels or (self._loop.stance is SERVING and not self.should_exit)
        )


_SERVERS: weakref.WeakSet[Server] = weakref.WeakSet()


def _abandon_in_child() -> None:
    """Be no server in a process that the application has forked: it keeps no client's connection open, its
    requests do not count, and it does not come back from the application."""
    for server in list(_SERVERS):
        server._loop.abandon()
        server._page = private_page()
        server.acquire = end_fork


os.register_at_fork(after_in_child=_abandon_in_child)
