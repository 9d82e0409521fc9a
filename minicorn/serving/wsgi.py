"""One request through the application: start_response, write, iterate, close (PEP 3333).

The head is sent with the first block that is not empty, so that an application may change its
mind until then. What goes wrong before is a 500; what goes wrong after cuts the reply short,
visibly: never a false end, never a second reply behind it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from minicorn.errors import ClientGone
from minicorn.http import reply
from minicorn.http.reply import CHUNKED, LENGTH, NOTHING, ApplicationFault, Fields, Head
from minicorn.http.request import REQUEST_LINE, Request
from minicorn.logs.explanation import explain, find_place
from minicorn.logs.logger import LOGGER
from minicorn.serving.connection import Connection
from minicorn.serving.filewrapper import BlockWrapper, FileWrapper
from minicorn.serving.outbox import PIECE
from minicorn.system.listeners import Listener
from minicorn.typed import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any
    from wsgiref.types import WSGIApplication, WSGIEnvironment

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_END: Any = object()
_SEQUENCES = (list, tuple)


class Gateway(Protocol):
    """The way between the event loop and the application, for the thread that serves."""

    def release(self) -> None:
        """Go into the application: others may touch the connections now."""

    def acquire(self) -> None:
        """Come back from it: the connections are ours alone again."""

    def is_willing(self, connection: Connection) -> bool:
        """Whether the server is willing to keep the connection after this reply."""

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        """The media type and text of a 500 for what the application has raised; "" for its status alone."""

    def wait_writable(self, connection: Connection) -> None:
        """See to what is not sent yet of a reply, and wait while the outbox is full."""


def base_environ(listener: Listener, multiprocess: bool, sendfile: bool) -> WSGIEnvironment:
    """The environ that is the same for every request that comes by `listener`, with a place for what is not: a
    copy that has all keys does not grow. What a head says is put upon it, then the client and the body."""
    # PEP 3333: neither is ever empty; a Unix socket has no such names
    name, port = (listener.host, str(listener.port)) if listener.port else ("localhost", "80")
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_SOFTWARE": "minicorn",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper if sendfile else BlockWrapper,
        "wsgi.input_terminated": True,
        "wsgi.input": None,
        **dict.fromkeys((*REQUEST_LINE, "REMOTE_ADDR", "REMOTE_PORT"), ""),
    }


def _is_interruptible() -> bool:
    """Whether Ctrl-C comes as an exception here: where it does not, the application has raised it."""
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _iterate(result: Any) -> Iterator[bytes]:
    """What the application has returned, begun; ApplicationFault for what is no iterable."""
    try:
        return iter(result)
    except TypeError:
        if hasattr(type(result), "__iter__"):
            raise  # by its own code
        kind = "None" if result is None else type(result).__name__
        advice = ""
        if hasattr(type(result), "__await__"):
            advice = "; is it async?"
        elif callable(result):
            advice = "; a factory is called in the name, as in main:create_app()"
        raise ApplicationFault(f"it returned {kind}, no iterable of bytes{advice}") from None


class Exchange:
    """One request and its reply. `run` calls the application; then `status`, `headers`, `sent`
    and `keep_alive` say what became of it."""

    _fields: Fields  # these two come with `status`
    headers: list[tuple[str, str]]

    __slots__ = (
        "_connection",
        "_date",
        "_fields",
        "_gateway",
        "_gone",
        "_head",
        "_produced",
        "_request",
        "broken",
        "handed",
        "headers",
        "keep_alive",
        "status",
        "unbounded",
    )

    def __init__(self, connection: Connection, request: Request, date: str, gateway: Gateway) -> None:
        """`date` is the line for Date; `gateway` leads into the application and out of it."""
        self._connection = connection
        self._request = request
        self._date = date
        self._gateway = gateway
        self._head: Head | None = None
        self._produced = 0
        self._gone: ClientGone | None = None
        self.handed = 0  # bytes, head and framing included
        self.status: str | None = None
        self.broken = True  # the reply has no end yet: if it stays so, only a close can tell
        self.keep_alive = False
        self.unbounded = False  # the reply has no end but the connection's

    @property
    def sent(self) -> int:
        """Bytes of body handed over."""
        if self._head is None:
            return self._produced  # of an error page, or nothing
        if self._head.delimiter is NOTHING:
            return 0
        if self._head.delimiter is LENGTH:
            return min(self._produced, self._head.length)
        return self._produced

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """PEP 3333's callable; a second call needs `exc_info`, which is raised once the head is sent."""
        if exc_info and exc_info[1] is not None:
            try:
                if self._head is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle through this frame otherwise
        elif self.status is not None:
            raise ApplicationFault("start_response was called twice without exc_info")
        self._fields = reply.check_fields(status, headers)
        self.status, self.headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333's imperative way to send: at once."""
        if data:
            self._gateway.acquire()
            try:
                if self._gone is not None:
                    raise self._gone  # an application that has caught it once meets it again
                self._send(data, -1)
            except ClientGone as gone:
                self._gone = gone
                raise
            finally:
                self._gateway.release()

    def run(self, application: WSGIApplication) -> None:
        """Call the application and hand its reply over; `close()` is called whatever happens.

        Raises ClientGone; whatever the application raises is answered and logged.
        """
        try:
            environ, gateway = self._request.meta, self._gateway
            environ["wsgi.input"] = self._connection.body
            gateway.release()
            try:
                result: Any = application(environ, self.start_response)
            finally:
                gateway.acquire()
            # One block in a plain list, as most give: nothing to iterate inside the application, nor to close
            if type(result) in _SEQUENCES and len(result) == 1 and self._head is None:
                self._send_whole(result[0] or b"")
            else:
                self._deliver(result)
        except ClientGone:
            raise
        except BaseException as error:  # SystemExit and its kin are an application's error, no order to us
            gateway.acquire()  # if what a signal's handler has raised has kept us from it
            if isinstance(error, KeyboardInterrupt) and _is_interruptible():
                raise
            self._fail(error)

    def _deliver(self, result: Iterable[bytes]) -> None:
        try:
            if self._gone is not None:
                raise self._gone  # which the application has caught
            if isinstance(result, FileWrapper) and self._head is None and (span := result.span()) is not None:
                self._send_file(*span)
            else:
                blocks = _iterate(result)
                while (block := self._inside(next, blocks, _END)) is not _END:
                    if block:  # an empty one would end a chunked reply
                        self._send(block, -1)
            self._conclude()
        except ClientGone as gone:
            self._gone = gone
            raise
        finally:
            close: Callable[[], object] | None = getattr(result, "close", None)
            if close is not None:
                try:
                    self._inside(close)
                except Exception as error:
                    if self._gone is not None and error is not self._gone:
                        self._report(error)  # which nobody else will: `_fail` is silent when the client has gone
                    raise

    def _inside(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Do `call` inside the application: the connections are the helper's meanwhile."""
        self._gateway.release()
        try:
            return call(*arguments)
        finally:
            self._gateway.acquire()

    def _begin(self, known: int) -> Head:
        """Settle the head, which is sent with what comes next; `known` is the whole body's length or -1."""
        if self.status is None:
            raise ApplicationFault("start_response was not called before the body")
        keep_alive = self._request.keep_alive and self._gateway.is_willing(self._connection)
        self._head = head = reply.render_head(self._request, self._fields, known, keep_alive, self._date)
        return head

    def _send_whole(self, body: bytes) -> None:
        """Send all of the body; most are small and as long as their head says, and go with it in one piece."""
        if isinstance(body, bytes) and (size := len(body)) < PIECE:
            head = self._begin(size)
            if size == head.length:
                self._produced = size
                self._hand_over(head.data + body)
                self.broken, self.keep_alive = False, head.keep_alive
                return
        self._send(body, len(body) if isinstance(body, bytes) else -1)
        self._conclude()

    def _send(self, data: bytes, known: int) -> None:
        """Send one block, with the head before the first; `known` is the whole body's length or -1."""
        if not isinstance(data, bytes):
            advice = ": encode it" if isinstance(data, str) else ""
            raise ApplicationFault(f"the body has {type(data).__name__} in it, not bytes{advice}")
        head = self._head or self._begin(known)
        prefix = b"" if self.handed else head.data
        self._produced = produced = self._produced + len(data)
        if head.delimiter is LENGTH:
            if produced > head.length:
                data = data[: max(0, len(data) - (produced - head.length))]
        elif head.delimiter is CHUNKED:
            data = reply.chunk(data)
        elif head.delimiter is NOTHING:
            data = b""
        else:
            self.unbounded = True
        if len(data) < PIECE:
            self._hand_over(prefix + data)
        else:
            self._hand_over(prefix)
            view = memoryview(data)
            for start in range(0, len(data), PIECE):
                self._hand_over(view[start : start + PIECE])

    def _hand_over(self, data: bytes | memoryview) -> None:
        outbox = self._connection.outbox
        if data:
            self.handed += len(data)
            outbox.send(data)
        if outbox.size:
            self._gateway.wait_writable(self._connection)

    def _send_file(self, fd: int, offset: int, size: int) -> None:
        head = self._begin(size)
        self._hand_over(head.data)
        # The application's own Content-Length may ask for less than the file has
        self._produced = min(size, head.length) if head.delimiter is LENGTH else size
        if self._produced and head.delimiter is not NOTHING:
            self.handed += self._produced
            self._connection.outbox.send_file(fd, offset, self._produced)

    def _conclude(self) -> None:
        """End the body, of which the application has given all; log it where that is not as long as the head says."""
        head = self._head
        if head is None:
            self._send_whole(b"")
            return
        if head.delimiter is CHUNKED:
            self._hand_over(reply.LAST_CHUNK)
        elif head.delimiter is LENGTH and self._produced != head.length:
            LOGGER.error(
                "%s: the application gave %d bytes where its Content-Length says %d",
                self._subject,
                self._produced,
                head.length,
            )
            return
        self.broken, self.keep_alive = False, head.keep_alive

    def _fail(self, error: BaseException) -> None:
        if self._gone is not None:
            raise self._gone
        self._report(error)
        if self._head is None:
            self.status, self.headers = "500 Internal Server Error", []
            kind, text = self._gateway.explain(error, self._request)
            data = reply.render_error(500, self._date, self._request.method, text, kind)
            self._produced = len(data.partition(b"\r\n\r\n")[2])
            self._hand_over(data)

    def _report(self, error: BaseException) -> None:
        if isinstance(error, ApplicationFault):
            LOGGER.error("%s: the application broke WSGI: %s%s", self._subject, error, find_place(error))
        else:
            LOGGER.error("%s: the application raised\n%s", self._subject, explain(error))

    @property
    def _subject(self) -> str:
        return f"{self._request.method} {self._request.target}"
