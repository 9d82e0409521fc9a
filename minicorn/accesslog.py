"""The access log: a format in gunicorn's atoms, or JSON, compiled once; one `write` a line.

`compile_format` turns a format into a %-template and the functions that fill it, so that
a line costs what its atoms cost. Where gunicorn lets control characters, backslashes and
octets beyond ASCII through as they are, they are escaped: no client can forge a line.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from minicorn.errors import ConfigError

JSON = "json"


@dataclass(frozen=True, slots=True)
class Origin:
    """The worker that a request was given to."""

    slot: int
    generation: int
    pid: int


@dataclass(slots=True)
class Entry:
    """One request that was given to the application. Durations are seconds."""

    environ: WSGIEnvironment
    status: str  # "200 OK"; "" where it was never answered
    headers: list[tuple[str, str]]
    sent: int  # bytes of body
    seconds: float  # in the application and in handing its reply over
    origin: Origin
    request_id: str = "-"
    started: float | None = None  # when a trusted proxy took it on, seconds since 1970
    reading: float = 0.0  # from its first byte to its last
    waited: float = 0.0  # from then until the application was called
    inside: float = 0.0  # in the application
    cause: str = ""  # of its end, where nobody has answered it: "timeout", "crash", ...

    @property
    def queued(self) -> float:
        """From when the proxy took it on, or else from its last byte, until the application was called."""
        if self.started is None:
            return self.waited
        return max(0.0, time.time() - self.seconds - self.started)

    @property
    def writing(self) -> float:
        """In handing the reply over; a slow client takes it later, and costs the worker nothing."""
        return max(0.0, self.seconds - self.inside)


Getter = Callable[[Entry], object]
Renderer = Callable[[Entry], bytes]

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {34: '\\"', 92: "\\\\"}


def _quoted(value: object) -> str:
    """A client's text inside the format's quotes: it can end neither them nor the line."""
    text = str(value)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


def _from_environ(key: str) -> Getter:
    return lambda entry: _quoted(entry.environ.get(key, "-"))


def _request_line(entry: Entry) -> str:
    environ = entry.environ
    # The application may have done anything to it
    return _quoted(f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')} {environ.get('SERVER_PROTOCOL')}")


class _Clock:
    """A time in words, rendered once a second."""

    def __init__(self, render: Callable[[float], str]) -> None:
        self._render = render
        self._second = -1
        self._text = ""

    def read(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._text = second, self._render(second)
        return self._text


_local = _Clock(lambda now: time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(now)))
_utc = _Clock(lambda now: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)))


def timestamp(now: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    return f"{_utc.read(now)}.{int(now % 1 * 1000):03d}Z"


def _user(entry: Entry) -> str:
    """The name in Basic credentials, checked by nobody here; "" where there is none."""
    import base64  # only for this atom's rare case

    scheme, _, credentials = str(entry.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        name, _, _ = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return ""
    return name


ATOMS: dict[str, Getter] = {
    "h": _from_environ("REMOTE_ADDR"),
    "l": lambda entry: "-",
    "u": lambda entry: _quoted(_user(entry)) or "-" if "HTTP_AUTHORIZATION" in entry.environ else "-",
    "t": lambda entry: _local.read(time.time()),
    "r": _request_line,
    "s": lambda entry: entry.status.partition(" ")[0] or "-",
    "m": _from_environ("REQUEST_METHOD"),
    "U": _from_environ("PATH_INFO"),
    "q": _from_environ("QUERY_STRING"),
    "H": _from_environ("SERVER_PROTOCOL"),
    "b": lambda entry: str(entry.sent) if entry.status else "-",
    "B": lambda entry: entry.sent,
    "f": _from_environ("HTTP_REFERER"),
    "a": _from_environ("HTTP_USER_AGENT"),
    "T": lambda entry: int(entry.seconds),
    "D": lambda entry: int(entry.seconds * 1e6),
    "M": lambda entry: int(entry.seconds * 1e3),
    "L": lambda entry: f"{entry.seconds:.6f}",
    "p": lambda entry: f"<{entry.origin.pid}>",
}
# Beyond gunicorn's, as %({name}x)s; durations are seconds
EXTRAS: dict[str, Getter] = {
    "request_id": lambda entry: _quoted(entry.request_id),
    "worker": lambda entry: entry.origin.slot,
    "generation": lambda entry: entry.origin.generation,
    "queue": lambda entry: f"{entry.queued:.6f}",
    "read": lambda entry: f"{entry.reading:.6f}",
    "app": lambda entry: f"{entry.inside:.6f}",
    "write": lambda entry: f"{entry.writing:.6f}",
    "cause": lambda entry: entry.cause or "-",
}


def _in_headers(name: str) -> Getter:
    wanted = name.lower()

    def get(entry: Entry) -> str:
        # Of several it is the last, as in gunicorn
        return next((_quoted(value) for key, value in reversed(entry.headers) if key.lower() == wanted), "-")

    return get


def _in_request(name: str) -> Getter:
    key = name.upper().replace("-", "_")
    return _from_environ(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")


def _extra(name: str) -> Getter:
    if name not in EXTRAS:
        raise ConfigError(f"--access-logformat: %({{{name}}}x)s is no atom: there are {' '.join(EXTRAS)}")
    return EXTRAS[name]


_NAMED = {"i": _in_request, "o": _in_headers, "e": _from_environ, "x": _extra}
_ATOM = re.compile(r"%\((?:\{([^}]+)\}([ioex])|([A-Za-z]))\)([-+ #0]*[0-9]*(?:\.[0-9]+)?[sdif])|%%")
_EXAMPLE = Entry({}, "200 OK", [], 0, 0.0, Origin(1, 1, 1))


def compile_format(format: str) -> Renderer:
    """A function from an entry to its line; ConfigError names what is no atom."""
    if format.lower() == JSON:
        return render_json
    getters: list[Getter] = []
    template, position = "", 0
    for match in _ATOM.finditer(format):
        template += _literal(format[position : match.start()], format)
        position = match.end()
        name, kind, letter, conversion = match.groups()
        if conversion is None:
            template += "%%"
            continue
        template += f"%{conversion}"
        if name is not None:
            getters.append(_NAMED[kind](name))
        elif letter in ATOMS:
            getters.append(ATOMS[letter])
        else:
            raise ConfigError(f"--access-logformat: %({letter})s is no atom: there are {' '.join(ATOMS)}")
    template += _literal(format[position:], format)

    def render(entry: Entry) -> bytes:
        line = template % tuple([get(entry) for get in getters])
        if entry.cause:
            line += f" killed={entry.cause}"
        return f"{line}\n".encode("ascii", "backslashreplace")

    try:
        render(_EXAMPLE)
    except TypeError as error:
        raise ConfigError(f"--access-logformat: {format!r}: {error}") from None
    return render


def _literal(text: str, format: str) -> str:
    if "%" in text:
        raise ConfigError(f"--access-logformat: a % that begins no atom in {format!r}")
    return text


_encode = json.encoder.encode_basestring_ascii


def _string(value: object) -> str:
    """As JSON; the application may have put anything into environ."""
    return _encode(value if isinstance(value, str) else str(value))


def render_json(entry: Entry) -> bytes:
    """One object in one line, under OpenTelemetry's names (semantic conventions for HTTP, 1.27) where it has some.

    Strings go through the json module's own encoder; the frame around them is fixed, since the
    general encoder takes three times as long.
    """
    environ, origin = entry.environ, entry.origin
    get = environ.get
    line = (
        f'{{"timestamp":"{timestamp(time.time())}"'
        f',"client.address":{_string(get("REMOTE_ADDR", ""))}'
        f',"http.request.method":{_string(get("REQUEST_METHOD", ""))}'
        f',"url.path":{_string(get("PATH_INFO", ""))}'
        f',"url.query":{_string(get("QUERY_STRING", ""))}'
        f',"url.scheme":{_string(get("wsgi.url_scheme", ""))}'
        f',"network.protocol.version":{_string(str(get("SERVER_PROTOCOL", "")).removeprefix("HTTP/"))}'
        f',"http.response.body.size":{entry.sent}'
        f',"http.server.request.duration":{entry.seconds:.6f}'
        f',"minicorn.request.id":{_encode(entry.request_id)}'
        f',"minicorn.duration.queue":{entry.queued:.6f}'
        f',"minicorn.duration.read":{entry.reading:.6f}'
        f',"minicorn.duration.app":{entry.inside:.6f}'
        f',"minicorn.duration.write":{entry.writing:.6f}'
        f',"minicorn.worker":{origin.slot},"minicorn.generation":{origin.generation},"process.pid":{origin.pid}'
    )
    if entry.status:
        line += f',"http.response.status_code":{entry.status[:3]}'
    if entry.cause or entry.status[:1] == "5":
        line += f',"error.type":{_encode(entry.cause or entry.status[:3])}'
    if (port := _number(get("REMOTE_PORT"))) is not None:
        line += f',"client.port":{port}'
    if (size := _number(get("CONTENT_LENGTH"))) is not None:
        line += f',"http.request.body.size":{size}'
    if "HTTP_HOST" in environ:
        line += f',"server.address":{_string(environ["HTTP_HOST"])}'
    if "HTTP_USER_AGENT" in environ:
        line += f',"user_agent.original":{_string(environ["HTTP_USER_AGENT"])}'
    if "HTTP_REFERER" in environ:
        line += f',"http.request.header.referer":[{_string(environ["HTTP_REFERER"])}]'
    if "HTTP_AUTHORIZATION" in environ and (user := _user(entry)):
        line += f',"user.name":{_encode(user)}'
    return f"{line}}}\n".encode("ascii")


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 20 else None
