"""One client: its buffers, its state, its deadline. No WSGI, no waiting.

The server calls `receive` when there is something to read, `flush` when there is room to
write, `expire` when `deadline` has passed, and polls for what `interest` says. Whoever holds
the connection in APP owns it until `finish`. An error ends it: nothing behind it is parsed.
"""

from __future__ import annotations

import io
import socket

from minicorn.errors import ClientGone, ProtocolError
from minicorn.http.reply import CONTINUE, render_error
from minicorn.http.request import Framing, Request
from minicorn.serving.deadlines import UNFILED
from minicorn.serving.handoff import INPUT_MOST, Parcel
from minicorn.serving.ingress import Ingress
from minicorn.serving.outbox import Outbox
from minicorn.serving.state import APP, BODY, CLOSED, HEAD, IDLE, KEPT, LINGER, MOVES, PREFACE, REPLY, State
from minicorn.serving.upload import Upload
from minicorn.system import poller, rights, sockets
from minicorn.system.listeners import Listener
from minicorn.system.sockets import has_unread
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

NO_BODY, SIZED = Framing.NONE, Framing.LENGTH  # looked up once: dear in an enumeration, up to Python 3.11

RECEIVE = 65536  # bytes at once
# For so many seconds, and so many bytes, a client that is being left may go on sending
LINGER_TIME = 2.0
LINGER_BYTES = 16 * 2**20
# Bytes, all in memory, of a request that may travel with --reload, so that the new code answers it
RELOAD_MOST = 16 * 2**20


class Connection:
    """A client's connection, non-blocking."""

    travels = True  # another worker can take it over

    # From `finish` on
    _next: State  # where its reply leads: IDLE, LINGER or CLOSED
    _bounded: bool
    _unsent_then: int  # when it last had progress

    __slots__ = (
        "_bounded",
        "_heads",
        "_ingress",
        "_input",
        "_next",
        "_raw",
        "_searched",
        "_unsent_then",
        "_upload",
        "begun",
        "body",
        "deadline",
        "fd",
        "filed",
        "holds",
        "interest",
        "outbox",
        "peer",
        "peer_port",
        "polled",
        "received",
        "request",
        "served",
        "settings",
        "since",
        "sock",
        "state",
    )

    def __init__(self, sock: socket.socket, peer: tuple[str, str], ingress: Ingress, now: float) -> None:
        """`sock` is non-blocking; `peer` is its client's address and port, "" where it has none."""
        self.sock = sock
        self.fd = sock.fileno()
        self.peer, self.peer_port = peer
        self._ingress = ingress
        self.settings = settings = ingress.settings
        self.outbox = Outbox(sock)
        self.state: State = HEAD
        self.deadline = now + settings.recv_timeout
        self.filed = UNFILED  # belongs to the server's Deadlines
        self.holds = False  # `held` may be other than 0; never set by a request that comes and goes in one piece
        self.interest = poller.READ
        self.polled: int | None = None  # what the server polls for; None: not yet at all
        self.served = 0
        self.received = 0  # bytes that have come since the last reply
        self.request: Request | None = None
        self.body: IO[bytes] = io.BytesIO()
        self._input: bytes | bytearray = b""
        self._searched = 0
        self._heads = ingress.heads
        self._upload: Upload | None = None  # in BODY
        self.begun = now  # when the request's first byte came
        self.since = 0.0  # when the request was complete
        # The bytes of a request, while nothing is done of it and it may travel
        self._raw: bytes | bytearray | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.peer}:{self.peer_port} {self.state.name} served={self.served}>"

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"{self} cannot go to {state.name}")
        self.state = state

    @property
    def listener(self) -> Listener:
        """The listener that the client has come by."""
        return self._ingress.listener

    @property
    def quiet(self) -> float:
        """Seconds since the client's last byte came, whether we have read it or not; 0 where nobody tells."""
        return sockets.read_quiet(self.sock)

    @property
    def held(self) -> int:
        """Bytes in memory on this client's account."""
        size = len(self._input) + len(self._raw or b"") + self.outbox.memory
        if self._upload is not None:
            size += self._upload.held
        if isinstance(self.body, io.BytesIO) and not self.body.closed:
            size += self.body.getbuffer().nbytes
        return size

    def waited(self, now: float) -> float:
        """Seconds for which the client has kept us waiting since it last moved."""
        if self.state is HEAD or self.state is BODY:
            return now - self.deadline + self.settings.recv_timeout
        if self.state is REPLY:
            return now - self.deadline + self.settings.send_timeout
        return 0.0

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed or reset, as far as the system knows; half-closed looks the same."""
        try:
            return not rights.Socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def is_silent(self) -> bool:
        """Whether no byte of a request has come: closing it now costs the client nothing."""
        # RFC 9112 2.2: an empty line begins none, such as old clients put behind a body
        return self.state in (IDLE, HEAD, PREFACE) and self._input in (b"", b"\r\n")

    def parcel(self) -> Parcel | None:
        """The parcel with which another worker can go on in our place; None where only we can.

        A connection between requests can go, and one with a request of which nothing is done.
        In the middle of a reply it stays, and of a body without --reload.
        """
        whole = self.state is APP or self.state is KEPT
        if whole or (self.state is BODY and self.settings.reload):
            data = self._raw
        elif self.state is IDLE or self.state is HEAD:
            data = self._input
        else:
            return None
        if data is None or not self._is_portable(len(data)) or self.outbox.size:
            return None
        since = self.since if whole else 0.0
        return Parcel(self.listener.number, self.served, self.deadline, since, self.peer, self.peer_port, bytes(data))

    def _is_portable(self, size: int) -> bool:
        """Whether so many bytes of a request may travel."""
        return size <= (RELOAD_MOST if self.settings.reload else INPUT_MOST)

    def resume(self, parcel: Parcel, now: float) -> bool:
        """Go on where another worker left off; whether a request is whole (state APP)."""
        self.served = parcel.served
        self.deadline = parcel.deadline
        self._input = parcel.input
        self.received = len(parcel.input)
        if not parcel.input:
            self.state = IDLE if parcel.served else HEAD
            return False
        complete = self.advance(now)
        self.begun = self.since = parcel.since or now
        return complete

    def rest(self) -> None:
        """Read nothing more, and answer nothing, until `wake` or until another worker has the client."""
        self.interest = 0
        if self.state is APP:
            self._move(KEPT)

    def wake(self, now: float) -> bool:
        """Go on after `rest`, for which the client is given time; whether a request is whole (state APP)."""
        self.interest = poller.READ
        self.grant(now)
        if self.state is not KEPT:
            return False
        self._move(APP)
        return True

    def grant(self, now: float) -> None:
        """Begin its own time anew, as it has waited for us."""
        self.deadline = max(self.deadline, now + self.settings.recv_timeout)

    def release(self) -> None:
        """Let go of the socket without a word to the client: another worker has it."""
        self.state = CLOSED
        self._close_body()
        self.sock.close()

    @property
    def unparsed(self) -> bytes:
        """The bytes that have come of a request whose head is not whole, or cannot be read."""
        return bytes(self._input)

    @property
    def lags(self) -> bool:
        """Whether bytes of a further request are here already (pipelining), and have not been looked at."""
        return self.state is HEAD and bool(self._input) and not self._searched

    # Reading

    def receive(self, now: float) -> bool:
        """Read what has come; whether a request is whole (state APP).

        Raises ProtocolError for what must be refused, ClientGone when there is nobody to refuse.
        """
        if self.state is LINGER:
            self._discard()
            return False
        try:
            data = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ClientGone(str(error)) from error
        if not data:
            raise ClientGone("it closed the connection")
        self.received += len(data)
        if self._upload is not None:
            self._keep_raw(data)
            return self._take_in(self._upload, data, now)
        if self._input:
            if isinstance(self._input, bytes):
                self._input = bytearray(self._input)
            self._input += data
        else:
            self._input = data
            self.begun = now
        return self.advance(now)

    def advance(self, now: float) -> bool:
        """Parse what is here; whether a request is whole (state APP)."""
        data = self._input
        read = self._heads.read(data, self._searched)
        if read is None:
            self._searched = len(data)
            self.holds = True
            if self.state is IDLE:
                self._move(HEAD)
                self.deadline = now + self.settings.recv_timeout
            return False
        request, end = read
        self.request = request
        self._raw = data if type(data) is bytes else bytes(data)
        self._input = rest = data[end:]
        self._searched = 0
        if request.framing is not NO_BODY:
            return self._begin_body(request, now)
        self.body = io.BytesIO()
        if rest:
            self.holds = True
        self.since = now
        self.state = APP  # from HEAD or IDLE it is legal, and how most requests begin
        return True

    def _begin_body(self, request: Request, now: float) -> bool:
        data, self._input = bytes(self._input), b""
        length, limit = request.content_length, self.settings.max_body_size
        if request.framing is SIZED and length <= len(data) and (length <= limit or not limit):
            # As most do, it has come whole with its head: there is nothing to keep account of
            self.body = io.BytesIO(data[:length])
            return self._complete(request, data[length:], length, now)
        self._upload = Upload(request, self.settings, now)
        self._move(BODY)
        if self._take_in(self._upload, data, now):
            return True
        if not self._is_portable(len(self._raw or b"")):
            self._raw = None
        if request.expects_continue and not data:
            self.outbox.send(CONTINUE)
        return False

    def _keep_raw(self, data: bytes) -> None:
        """Keep the bytes of a request as they come, as long as it may travel."""
        if self._raw is None or not self._is_portable(len(self._raw) + len(data)):
            self._raw = None
        else:
            if isinstance(self._raw, bytes):
                self._raw = bytearray(self._raw)  # else each piece would copy all before it
            self._raw += data

    def _take_in(self, upload: Upload, data: bytes, now: float) -> bool:
        """Take in more of the body; whether the request is whole."""
        assert self.request is not None
        self.holds = True
        whole = upload.take(data)
        self.deadline = upload.due(now)
        if not whole:
            return False
        self._upload = None
        self.body, length, rest = upload.hand_over()
        return self._complete(self.request, rest, length, now)

    def _complete(self, request: Request, rest: bytes, length: int, now: float) -> bool:
        """Complete the request, whose body is here, `length` bytes; `rest` came behind it."""
        self._input = rest
        if rest:
            self.holds = True
        # Its length is known now, whatever has framed it: that is decoded and gone
        request.meta["CONTENT_LENGTH"] = str(length)
        self.since = now
        self.state = APP  # from HEAD, IDLE or BODY, as above
        return True

    def spill(self) -> bool:
        """Put what has come of a large body into a file, for memory is short; whether that was done."""
        return self._upload is not None and self._upload.spill()

    def _close_body(self) -> None:
        """Forget the body, be it whole or not."""
        try:
            self.body.close()
        except BufferError:
            pass  # the application has kept a view of it: it lives as long as that
        if self._upload is not None:
            self._upload.close()
            self._upload = None

    def _discard(self) -> None:
        """Read and forget, until the client closes or has sent too much."""
        try:
            for _ in range(16):
                data = self.sock.recv(RECEIVE)
                self.received += len(data)
                if not data or self.received > LINGER_BYTES:
                    raise ClientGone("lingered long enough")
        except BlockingIOError:
            pass
        except OSError as error:
            raise ClientGone(str(error)) from error

    def expire(self, now: float) -> None:
        """Judge the state whose deadline has passed: ProtocolError for a request that has begun, or else ClientGone."""
        if self.state is REPLY and self.unsent < self._unsent_then:
            self.note_progress(now)  # though there is no room for more yet: the system wants a third of its buffer free
            return
        if self.state is BODY or (self.state is HEAD and not self.is_silent):
            raise ProtocolError(408, f"its {self.state.name.lower()} did not come in time")
        if self.state is not APP and self.state is not KEPT:  # which have no deadline of the client's
            raise ClientGone(f"nothing came in time in {self.state.name}")

    # Replying

    def take_up(self) -> Request:
        """Take up the request for the application: from now on nobody else can answer it."""
        request = self.request
        assert request is not None
        request.meta["REMOTE_ADDR"], request.meta["REMOTE_PORT"] = self.peer, self.peer_port
        self._raw = None
        return request

    def flush_ahead(self) -> None:
        """Send what there is room for, of a reply of which the application has not given all yet."""
        try:
            self.outbox.flush()
        except ClientGone:
            self.outbox.close()  # the next block will meet the same end
        if not self.outbox.size:
            self.interest = 0

    def refuse(self, status: int, date: str, now: float) -> None:
        """Answer a doubt: a short error reply, then the end."""
        self._input, self._raw = b"", None
        self._close_body()
        self.outbox.send(render_error(status, date, self.request.method if self.request else ""))
        self.finish(False, now, unread=True)

    def finish(self, keep_alive: bool, now: float, unread: bool = False, bounded: bool = True) -> None:
        """The reply is handed over whole: go on with the next request, or close.

        `bounded`: it tells its own end, as one does not that only the close ends. `unread`: the
        client may still be sending, so a close lingers, lest a reset overtake the reply.
        """
        self.served += 1
        self.received = 0
        self.interest = poller.READ
        try:
            self.body.close()
        except BufferError:
            pass  # as in `_close_body`, whose call this saves
        if keep_alive and not (self.outbox.size or self._input):
            self.request = None
            self.state = IDLE  # from APP it is legal, and where most requests end
            self.deadline = now + self.settings.keep_alive
            return
        self.begun = now  # if more has come already
        asked = self.request is not None and not self.request.keep_alive
        self.request = None
        self._bounded = bounded
        if keep_alive:
            self._next = IDLE
        else:
            # A client that did not ask for the close may have sent its next request already
            self._next = LINGER if unread or self._input or not asked else CLOSED
        if self.outbox.size:
            self.holds = True
            self._move(REPLY)
            self.note_progress(now)
            self.interest = poller.WRITE
        else:
            self._settle(now)

    def flush(self, now: float) -> None:
        """Send what there is room for, of a reply that was handed over whole."""
        if self.outbox.flush():
            self.note_progress(now)
        if self.state is REPLY and not self.outbox.size:
            self._settle(now)

    def note_progress(self, now: float) -> None:
        """Note that the client has taken something of its reply: its deadline begins anew."""
        self._unsent_then = self.unsent
        self.deadline = now + self.settings.send_timeout

    @property
    def unsent(self) -> int:
        """Bytes of the reply that the system has, and the client not yet; 0 where nobody tells."""
        return sockets.count_unsent(self.fd)

    def _settle(self, now: float) -> None:
        """Go on to what comes after the reply, which the system has in full."""
        self.interest = poller.READ
        if self._next is not IDLE:
            self._end(now)
        else:
            self._move(HEAD if self._input else IDLE)
            patience = self.settings.recv_timeout if self._input else self.settings.keep_alive
            self.deadline = now + patience

    def _end(self, now: float) -> None:
        if self._next is CLOSED and not has_unread(self.fd):
            self._move(CLOSED)
            return
        self._move(LINGER)
        self.deadline = now + LINGER_TIME
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ClientGone(str(error)) from error

    def has_unread(self) -> bool:
        """Whether a close would be a reset, which may overtake the reply: there is input that we have not read."""
        return has_unread(self.fd)

    @property
    def is_cut(self) -> bool:
        """Whether a close now would make a reply that has not been sent in full look whole."""
        return self.state is REPLY and not self._bounded

    def close(self, reset: bool = False) -> None:
        """Close the socket, once the server has left off polling it (state CLOSED asks for that).

        `reset` tells a client whose reply has no other end that it is not whole.
        """
        self.state = CLOSED
        if self.outbox.size:
            self.outbox.close()
        self._close_body()
        try:
            if reset:
                sockets.reset_on_close(self.sock)
            else:
                # A child that the application has forked may hold the socket: close() alone ends nothing
                self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # ENOTCONN: the client was faster
        self.sock.close()
