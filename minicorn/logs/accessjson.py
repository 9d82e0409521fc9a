"""The access log as JSON, an object a line, under OpenTelemetry's names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from minicorn.logs.entry import Entry, each_second
from minicorn.memo import Memo

_utc = each_second("%Y-%m-%dT%H:%M:%S", time.gmtime)
_encode = json.encoder.encode_basestring_ascii


def _optional(name: str, encode: Callable[[str], str] = _encode) -> Memo[str | None, str]:
    """The JSON members `name` for values of an environ key; "" where it is missing, or `encode` gives nothing."""

    def make(value: str | None) -> str:
        encoded = encode(value) if value is not None else ""
        return f',"{name}":{encoded}' if encoded else ""

    return Memo(make, measure=lambda value: len(value or ""))


def _number(text: str) -> str:
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < 20 else ""


def _outcome(status: str) -> str:
    error = f',"error.type":"{status}"' if status[:1] == "5" else ""
    return f',"http.response.status_code":{status}{error}' if status else ""


_encoded = Memo(_encode)
_version = Memo[str, str](lambda protocol: _encode(protocol.removeprefix("HTTP/")))
_outcomes = Memo(_outcome)
_port = _optional("client.port", _number)
_size = _optional("http.request.body.size", _number)
_host = _optional("server.address")
_agent = _optional("user_agent.original")
_referer = _optional("http.request.header.referer", lambda text: f"[{_encode(text)}]")
_milliseconds = [f".{number:03d}Z" for number in range(1000)]


def render_json(entry: Entry) -> bytes:
    """Render an entry as JSON, in one line, with OpenTelemetry's names (HTTP semantic conventions 1.27) if it has any.

    Strings go through the json module's own encoder; the frame around them is fixed, since the
    general encoder takes three times as long.
    """
    environ, origin, now = entry.environ, entry.origin, time.time()
    get = environ.get
    try:
        line = (
            f'{{"timestamp":"{_utc[int(now)]}{_milliseconds[int(now % 1 * 1000)]}"'
            f',"client.address":{_encoded[get("REMOTE_ADDR", "")]}'
            f',"http.request.method":{_encoded[get("REQUEST_METHOD", "")]}'
            f',"url.path":{_encode(get("PATH_INFO", ""))}'
            f',"url.query":{_encode(get("QUERY_STRING", ""))}'
            f',"url.scheme":{_encoded[get("wsgi.url_scheme", "")]}'
            f',"network.protocol.version":{_version[get("SERVER_PROTOCOL", "")]}'
            f',"http.response.body.size":{entry.sent}'
            f',"http.server.request.duration":{entry.seconds:.6f}'
            f',"minicorn.request.id":{_encode(entry.request_id)}'
            f',"minicorn.duration.queue":{entry.queued:.6f}'
            f',"minicorn.duration.read":{entry.reading:.6f}'
            f',"minicorn.duration.app":{entry.inside:.6f}'
            f',"minicorn.duration.write":{entry.seconds - entry.inside:.6f}'
            f',"minicorn.worker":{origin.slot},"minicorn.generation":{origin.generation},"process.pid":{origin.pid}'
            f"{_outcomes[entry.status[:3]]}{_port[get('REMOTE_PORT')]}{_size[get('CONTENT_LENGTH')]}"
            f"{_host[get('HTTP_HOST')]}{_agent[get('HTTP_USER_AGENT')]}{_referer[get('HTTP_REFERER')]}"
        )
        if "HTTP_AUTHORIZATION" in environ and (user := entry.user):
            line += f',"user.name":{_encode(user)}'
    except Exception as error:
        return render_json(entry.as_texts(error))
    if entry.cause:
        line += f',"error.type":{_encode(entry.cause)}'
    return f"{line}}}\n".encode("ascii")
