"""The event loop: listeners, connections, deadlines; one request at a time in the application.

`Server(app, host, port).serve()` is the whole of a single process, in the main thread or in any
other; a worker runs the same loop over listeners that the arbiter has bound. `step` polls,
reads, parses, writes, keeps deadlines, and calls `dispatch` for each complete request: the
loop waits for clients, the application never does.
"""

import errno
import logging
import os
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from wsgiref.types import WSGIApplication, WSGIEnvironment

from minicorn import accesslog, listeners, poller, signals
from minicorn.address import Tcp
from minicorn.connection import APP, CLOSED, HEAD, IDLE, Connection
from minicorn.deadlines import TICK, Deadlines
from minicorn.errors import ClientGone, ProtocolError
from minicorn.heartbeat import Identity, Page, private_page
from minicorn.http.reply import http_date
from minicorn.listeners import Listener
from minicorn.loader import load_app
from minicorn.log import Output
from minicorn.settings import Settings
from minicorn.wsgi import Exchange, base_environ, build_environ

__all__ = ["Server", "load_app"]

LOGGER = logging.getLogger("minicorn")
DEFAULTS = Settings()

# An idle worker promises to be back after its tick and this much more
IDLE_SLACK = 10.0
# A connection that was accepted as we stop has so long to send its first byte
SILENT_GRACE = 1.0
# Descriptors left to the application
SPARE_DESCRIPTORS = 64
# Names of dropped header fields that are logged; clients choose them
DROPPED_TOLD = 100


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
        page: Page | None = None,
        slot: int = 1,
        generation: int = 1,
        access: Output | None = None,
    ) -> None:
        """`host` and `port` are bound by `serve`, unless listeners come `bound` (a worker's)."""
        self.app = app
        self.host = host
        self.port = port
        self.should_exit = False
        self._settings = settings or DEFAULTS
        self._bound = bound
        self._listeners: list[Listener] = []
        self._page = page or private_page()
        self._identity = Identity(slot, generation, self._page)
        self._access = access
        self._render = accesslog.compile_format(self._settings.access_logformat)
        self._connections: dict[int, Connection] = {}
        self._turns: OrderedDict[Connection, None] = OrderedDict()  # each once, first come first served
        self._deadlines: Deadlines[Connection] = Deadlines()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._poller = poller.Poller()
        self._bases: dict[Listener, WSGIEnvironment] = {}
        self._retiring = False
        self._drain = True
        self._accepting = False
        self._capacity = 0
        self._next_tick = 0.0
        self._date = (0, "")
        self._dropped: set[str] = set()
        timeout = self._settings.timeout
        self._request_patience = timeout or float("inf")
        self._idle_patience = max(timeout, IDLE_SLACK) if timeout else float("inf")
        self._wake_fd, self._wake_write_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._wake_write_fd, False)

    # The public face

    def serve(self) -> None:
        """Serve until `signal_exit`, then finish what has begun. ConfigError when it cannot bind."""
        self._open()
        try:
            while not self.should_exit:
                self.step(TICK, self._answer)
            deadline = self._retire(time.monotonic())
            while self._connections and time.monotonic() < deadline:
                self.step(TICK, self._answer)
        finally:
            self.shutdown()

    def signal_exit(self, drain: bool = True) -> None:
        """Ask the server to finish; from a signal handler or another thread, at any time.

        `drain`: nobody else will serve what waits in the accept queue, so empty it first.
        """
        self._drain = drain
        self.should_exit = True
        try:
            os.write(self._wake_write_fd, b".")
        except OSError:
            pass  # EAGAIN: it is awake; EBADF: it has ended

    def shutdown(self) -> None:
        """Close everything now."""
        self.should_exit = True
        for connection in list(self._connections.values()):
            self._drop(connection)
        for listener in self._listeners:
            if self._bound is None:
                listener.unlink()
            listener.close()
        self._listeners.clear()
        if not self._poller.closed:
            self._poller.close()
            os.close(self._wake_fd)
            os.close(self._wake_write_fd)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop when `fd` is readable."""
        self._callbacks[fd] = callback
        self._poller.register(fd, poller.READ)

    def unwatch(self, fd: int) -> None:
        """Forget what `watch` was told."""
        del self._callbacks[fd]
        self._poller.unregister(fd)

    # Life

    def _open(self) -> None:
        if self._bound is None:
            self._listeners = [listeners.bind(Tcp(self.host, self.port), self._settings.backlog)]
            self.port = self._listeners[0].port
            LOGGER.info("Started server process [%d]", os.getpid())
            LOGGER.info("Listening on %s", self._listeners[0].name)
        else:
            self._listeners = list(self._bound)
        multiprocess = self._settings.workers != 1
        for listener in self._listeners:
            self._bases[listener] = base_environ(listener, multiprocess) | {
                "minicorn.worker": self._identity,
                "minicorn.extend_deadline": self._page.extend,
                "minicorn.shutting_down": lambda: self.should_exit,
            }
            self._callbacks[listener.fd] = partial(self._accept, listener, 1)
        self.watch(self._wake_fd, partial(signals.drain, self._wake_fd))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._capacity = limit - min(SPARE_DESCRIPTORS, limit // 2)
        self._set_accepting(True)

    def _retire(self, now: float) -> float:
        """Accept no more; what has begun is finished, each reply says that it is the last.

        Gives the instant at which what is unfinished even then is dropped.
        """
        self._retiring = True
        self._set_accepting(False)
        for listener in self._listeners:
            # The wake-up for a connection in the queue may have been ours: take it, else it waits
            self._accept(listener, self._settings.backlog if self._drain else 1)
        if self._bound is not None:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
        self.step(0, self._answer)  # a request that has just arrived is no idle connection
        for connection in list(self._connections.values()):
            if connection.state == IDLE:
                self._drop(connection)
            elif connection.is_silent:
                connection.deadline = min(connection.deadline, now + SILENT_GRACE)
                self._deadlines.note(connection)
        return now + self._settings.graceful_timeout

    # The loop

    def step(self, timeout: float, dispatch: Callable[[Connection], None]) -> None:
        """One turn: wait up to `timeout` seconds, do what is due, `dispatch` each whole request once."""
        if self._turns:
            timeout = 0
        self._page.promise(time.monotonic() + timeout + self._idle_patience)
        events = self._poller.poll(timeout)
        now = time.monotonic()
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is None:
                if fd in self._callbacks:  # else a connection closed earlier in this turn
                    self._callbacks[fd]()
            elif event & poller.WRITE and connection.interest == poller.WRITE:
                self._flush(connection, now)
            else:
                self._receive(connection, now)
        if now >= self._next_tick:
            self._tick(now)
        # One request a turn for each connection, however many it has sent
        for _ in range(len(self._turns)):
            connection, _ = self._turns.popitem(last=False)
            if connection.state == HEAD and not self._advance(connection, now):
                continue
            if connection.state == APP:
                dispatch(connection)

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK
        for connection in self._deadlines.due(now):
            self._expire(connection, now)
        if not self._retiring:
            self._set_accepting(True)
            for listener in self._listeners:
                # An exclusive wake-up can be lost on a process that has just stopped waiting
                self._accept(listener, 1)

    def _receive(self, connection: Connection, now: float) -> None:
        try:
            if connection.receive(now):
                self._turns[connection] = None
            else:
                self._deadlines.note(connection)
        except ProtocolError as error:
            self._refuse(connection, error, now)
        except ClientGone as gone:
            self._part(connection, gone)

    def _advance(self, connection: Connection, now: float) -> bool:
        """Parse a further request from what a connection has sent already."""
        try:
            complete = connection.advance(now)
            self._deadlines.note(connection)
            return complete
        except ProtocolError as error:
            self._refuse(connection, error, now)
        except ClientGone as gone:
            self._part(connection, gone)
        return False

    def _refuse(self, connection: Connection, error: ProtocolError, now: float) -> None:
        LOGGER.info("%s: refused with %d: %s", connection.peer or connection.listener.name, error.status, error.detail)
        try:
            connection.refuse(error.status, self._date_line(), now)
            self._follow(connection)
        except ClientGone as gone:
            self._part(connection, gone)

    def _flush(self, connection: Connection, now: float) -> None:
        try:
            connection.flush(now)
            self._follow(connection)
        except ClientGone as gone:
            self._part(connection, gone)

    def _expire(self, connection: Connection, now: float) -> None:
        try:
            connection.expire(self._date_line(), now)
            self._follow(connection)
        except ClientGone as gone:
            self._part(connection, gone)

    def _follow(self, connection: Connection) -> None:
        """Bring poller, deadlines and turns to what the connection wants now."""
        if connection.state == CLOSED:
            self._drop(connection)
            return
        if connection.interest != connection.polled:
            self._poller.modify(connection.fd, connection.interest)
            connection.polled = connection.interest
        if connection.state == HEAD and connection.has_input:
            self._turns[connection] = None
        elif connection.state == IDLE and self._retiring:
            self._drop(connection)
            return
        self._deadlines.note(connection)

    def _part(self, connection: Connection, gone: ClientGone, reset: bool = False) -> None:
        LOGGER.debug("%r has gone: %s", connection, gone)
        self._drop(connection, reset)

    def _drop(self, connection: Connection, reset: bool = False) -> None:
        # In this order: a child of the application's may hold the socket, and its epoll entry with it
        self._poller.unregister(connection.fd)
        del self._connections[connection.fd]
        self._deadlines.forget(connection)
        connection.close(reset)

    # Accepting

    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for listener in self._listeners:
            if accepting:
                self._poller.register(listener.fd, poller.READ_EXCLUSIVE)
            else:
                self._poller.unregister(listener.fd)

    def _accept(self, listener: Listener, most: int) -> None:
        for _ in range(most):
            if len(self._connections) >= self._capacity and not self._make_room():
                return
            try:
                sock, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    LOGGER.warning("cannot accept a connection: %s", error.strerror)
                    self._make_room()
                    return
                continue  # ECONNABORTED: the client was faster
            sock.setblocking(False)
            peer = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
            connection = Connection(sock, peer, listener, self._settings, time.monotonic())
            self._connections[connection.fd] = connection
            self._poller.register(connection.fd, poller.READ)
            self._deadlines.note(connection)

    def _make_room(self) -> bool:
        """At the descriptor limit: the oldest idle connection goes, or else accepting rests for a tick."""
        for connection in self._connections.values():
            if connection.state == IDLE:
                self._drop(connection)
                return True
        if not self._retiring:
            self._set_accepting(False)
        return False

    # The application

    def _answer(self, connection: Connection) -> None:
        """Give a complete request to the application, and its reply to the connection."""
        request = connection.request
        assert request is not None
        settings, page = self._settings, self._page
        most = settings.max_keepalive_requests
        willing = (
            request.keep_alive
            and not self.should_exit
            and settings.keep_alive > 0
            and (not most or connection.served + 1 < most)
        )
        if request.dropped:
            self._tell_dropped(request.dropped)
        began = time.monotonic()
        page.begin(f"{request.method} {request.target}", connection.peer, began, began + self._request_patience)
        environ = build_environ(self._bases[connection.listener], request, connection)
        exchange = Exchange(connection, request, willing, self._date_line(), self._wait_for_room)
        gone: ClientGone | None = None
        try:
            exchange.run(self.app, environ)
        except ClientGone as error:
            gone = error
        now = time.monotonic()
        page.end(now)
        if self._access is not None and exchange.status is not None:
            entry = accesslog.Entry(environ, exchange.status, exchange.headers, exchange.sent, now - began)
            self._access.write(self._render(entry))
        if gone is not None or (exchange.broken and exchange.unbounded):
            self._part(connection, gone or ClientGone("its reply could not be completed"), reset=True)
            return
        try:
            connection.finish(exchange.keep_alive, now)
            self._follow(connection)
        except ClientGone as error:
            self._part(connection, error)

    def _tell_dropped(self, names: tuple[str, ...]) -> None:
        """Say once of each name that it never reaches the application; not of ever new ones."""
        for name in names:
            if name not in self._dropped and len(self._dropped) < DROPPED_TOLD:
                self._dropped.add(name)
                LOGGER.warning("header %s is dropped: with an underscore it could pass for another", name)

    def _wait_for_room(self, connection: Connection) -> None:
        """The application produces faster than its client reads, and the outbox is full: the one
        wait for a client. The time is not the application's, so its deadline moves along."""
        patience = self._settings.send_timeout
        while connection.outbox.full:
            began = time.monotonic()
            self._page.extend(patience)
            if not poller.wait(connection.fd, poller.WRITE, patience):
                raise ClientGone(f"it took nothing of its reply for {patience:g} s")
            connection.outbox.flush()
            self._page.extend(time.monotonic() - began - patience)

    def _date_line(self) -> str:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, http_date(now))
        return self._date[1]
