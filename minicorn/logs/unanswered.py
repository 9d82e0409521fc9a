"""The access log's line of a request that the application has not answered: what is known of it.

Its worker has died in it, and the arbiter writes the line, from what the worker's page says of
the request in hand; or the worker has refused it, and writes the line itself.
"""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from minicorn.errors import ProtocolError
from minicorn.figures.heartbeat import Activity, Beat
from minicorn.http.request import REQUEST_LINE, Request, parse_head
from minicorn.logs.entry import Entry, Origin

# Bytes of a refused head that are looked at
HEAD_MOST = 2048


def unanswered(beat: Beat, origin: Origin, cause: str, now: float) -> Entry | None:
    """The entry of the request that was in the application; None when there was none."""
    if beat.activity is not Activity.BUSY:
        return None
    request = _parse(beat.head or f"{beat.request} HTTP/1.1")  # a long target leaves no room for the head
    environ = environ_of(request, beat.client)
    took = max(0.0, now - beat.since)
    return Entry(environ, "", [], 0, took, origin, beat.request_id, inside=took, cause=cause)


def environ_of(request: Request, client: str) -> WSGIEnvironment:
    """The environ that a line of the access log is made of."""
    return {**request.meta, "REMOTE_ADDR": client}


def read_request(data: bytes) -> Request:
    """The request of which `data` has come, as far as that can be read; "-" for all of it where nothing has."""
    if not data:
        return Request("-", "-", "-", dict.fromkeys(REQUEST_LINE, ""))
    return _parse(data[:HEAD_MOST].decode("latin-1"))


def _parse(head: str) -> Request:
    """The request of a head that may be cut: a page has no room for a long one, so its last line may be half a line."""
    text = head if head.endswith("\r\n\r\n") else head.rpartition("\r\n")[0] + "\r\n\r\n"
    try:
        parsed = parse_head(text.encode("latin-1"), len(text))
    except ProtocolError:  # the Host was further behind
        parsed = None
    if parsed is not None:
        return parsed[0]
    method, _, rest = head.partition("\r\n")[0].partition(" ")
    target, _, version = rest.partition(" ")
    request = Request(method, target, version or "HTTP/1.1", {})
    request.meta["PATH_INFO"], _, request.meta["QUERY_STRING"] = target.partition("?")
    return request
