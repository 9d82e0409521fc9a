"""The states of a connection, and which may follow which.

    (PREFACE ──►)
    HEAD ──► BODY ──► APP ──► REPLY ──► IDLE ──► HEAD ...
      └────────┴───── a doubt: error reply, LINGER, CLOSED

With --reload a whole request may be KEPT for newer code, and is in APP again then.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class State(IntEnum):
    """What a connection waits for, and the deadline that belongs to it."""

    PREFACE = 0  # before the first byte of HTTP: a PROXY header, a TLS handshake; the head's deadline
    HEAD = 1  # reading a request's head; `recv_timeout` for the whole of it
    BODY = 2  # reading its body; `recv_timeout` for each wait
    APP = 3  # the request is whole: it is the application's
    KEPT = 4  # the request is whole, and nobody's yet: newer code shall answer it
    REPLY = 5  # the application is done, the client is not; `send_timeout` without progress
    IDLE = 6  # between requests; `keep_alive`
    LINGER = 7  # our side is closed, the client's unread input is thrown away for a moment
    CLOSED = 8

    __hash__ = int.__hash__  # Enum's own is Python, and each move hashes two


PREFACE, HEAD, BODY, APP, KEPT, REPLY, IDLE, LINGER, CLOSED = State

MOVES: Mapping[State, frozenset[State]] = {
    PREFACE: frozenset({HEAD, REPLY, LINGER, CLOSED}),
    HEAD: frozenset({BODY, APP, REPLY, LINGER, CLOSED}),
    BODY: frozenset({APP, REPLY, LINGER, CLOSED}),
    APP: frozenset({KEPT, REPLY, IDLE, HEAD, LINGER, CLOSED}),
    KEPT: frozenset({APP, CLOSED}),
    REPLY: frozenset({IDLE, HEAD, LINGER, CLOSED}),
    IDLE: frozenset({HEAD, BODY, APP, REPLY, LINGER, CLOSED}),
    LINGER: frozenset({CLOSED}),
    CLOSED: frozenset(),
}
