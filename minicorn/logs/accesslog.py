"""The access log: a format in gunicorn's atoms, or JSON, compiled once; one `write` a line.

An atom is an expression over `entry` and its `environ`; `compile_format` makes one function of
those that a format has, so that a line costs what its atoms cost. What requests have in common
(a browser's name, a method, the second) is quoted once and remembered. Where gunicorn lets
control characters, backslashes and octets beyond ASCII through as they are, they are escaped:
no client can forge a line.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from minicorn.errors import ConfigError
from minicorn.memo import Memo
from minicorn.record import Record, Value, replace


class Origin(Value):
    """The worker that a request was given to."""

    slot: int
    generation: int
    pid: int


class Entry(Record, quick=True):
    """One request that was given to the application. Durations are seconds."""

    environ: WSGIEnvironment
    status: str  # "200 OK"; "" where it was never answered
    headers: list[tuple[str, str]]
    sent: int  # bytes of body
    seconds: float  # in the application and in handing its reply over
    origin: Origin
    request_id: str = "-"
    reading: float = 0.0  # from its first byte to its last
    queued: float = 0.0  # from then, or since a trusted proxy took it on, until the application was called
    inside: float = 0.0  # in the application
    cause: str = ""  # of its worker's end (a `life.Cause`), where nobody has answered it


Renderer = Callable[[Entry], bytes]

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {34: '\\"', 92: "\\\\"}


def _quote(value: object) -> str:
    """A client's text inside the format's quotes: it can end neither them nor the line."""
    text = str(value)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


def _each_second(format: str, convert: Callable[[int], time.struct_time]) -> Memo[int, str]:
    return Memo(lambda second: time.strftime(format, convert(second)), most=1, measure=lambda second: 0)


_quoted = Memo[str, str](_quote)
_local = _each_second("[%d/%b/%Y:%H:%M:%S %z]", time.localtime)
_utc = _each_second("%Y-%m-%dT%H:%M:%S", time.gmtime)


def _user(environ: WSGIEnvironment) -> str:
    """The name in Basic credentials, checked by nobody here; "" where there is none."""
    import base64  # only for this atom's rare case

    scheme, _, credentials = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        name, _, _ = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return ""
    return name


def _from_environ(key: str) -> str:
    return f"_quoted[environ.get({key!r}, '-')]"


ATOMS = {
    "h": _from_environ("REMOTE_ADDR"),
    "l": "'-'",
    "u": "_quote(_user(environ)) or '-' if 'HTTP_AUTHORIZATION' in environ else '-'",
    "t": "_local[int(time.time())]",
    # In full, since the application may have put anything into its environ
    "r": "_quote(f\"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')} {environ.get('SERVER_PROTOCOL')}\")",
    "s": "entry.status[:3] or '-'",
    "m": _from_environ("REQUEST_METHOD"),
    "U": "_quote(environ.get('PATH_INFO', '-'))",
    "q": "_quote(environ.get('QUERY_STRING', '-'))",
    "H": _from_environ("SERVER_PROTOCOL"),
    "b": "str(entry.sent) if entry.status else '-'",
    "B": "entry.sent",
    "f": _from_environ("HTTP_REFERER"),
    "a": _from_environ("HTTP_USER_AGENT"),
    "T": "int(entry.seconds)",
    "D": "int(entry.seconds * 1e6)",
    "M": "int(entry.seconds * 1e3)",
    "L": "f'{entry.seconds:.6f}'",
    "p": "f'<{entry.origin.pid}>'",
}
# Atoms that gunicorn has not, as %({name}x)s; durations are seconds
EXTRAS = {
    "request_id": "_quote(entry.request_id)",
    "worker": "entry.origin.slot",
    "generation": "entry.origin.generation",
    "queue": "f'{entry.queued:.6f}'",
    "read": "f'{entry.reading:.6f}'",
    "app": "f'{entry.inside:.6f}'",
    # Time to hand the reply over; a slow client takes it later, which costs the worker nothing
    "write": "f'{entry.seconds - entry.inside:.6f}'",
    "cause": "entry.cause or '-'",
}


def _in_headers(name: str) -> str:
    return f"_find({name.lower()!r}, entry.headers)"


def _find(wanted: str, headers: list[tuple[str, str]]) -> str:
    # The last of several, as in gunicorn
    return next((_quote(value) for name, value in reversed(headers) if name.lower() == wanted), "-")


def _in_request(name: str) -> str:
    key = name.upper().replace("-", "_")
    return _from_environ(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")


def _extra(name: str) -> str:
    if name not in EXTRAS:
        raise ConfigError(f"--access-logformat: %({{{name}}}x)s is no atom: there are {' '.join(EXTRAS)}")
    return EXTRAS[name]


def _in_environ(key: str) -> str:
    return f"_quote(environ.get({key!r}, '-'))"  # of any kind: no key of a memory


_NAMED = {"i": _in_request, "o": _in_headers, "e": _in_environ, "x": _extra}
_ATOM = re.compile(r"%\((?:\{([^}]+)\}([ioex])|([A-Za-z]))\)([-+ #0]*[0-9]*(?:\.[0-9]+)?[sdif])|%%")
_EXAMPLE = Entry({}, "200 OK", [], 0, 0.0, Origin(1, 1, 1))


_RENDER = """
def render(entry):
    environ = entry.environ
    try:
        {values}
        line = {line}
    except Exception as error:
        return render(_as_text(entry, error))
    if entry.cause:
        line = line[:-1] + " killed=" + entry.cause + "\\n"
    return line.encode("ascii", "backslashreplace")
"""


def is_json(format: str) -> bool:
    """Whether its lines are JSON objects, and not made of atoms."""
    return format.lower() == "json"


def tells_inside(format: str) -> bool:
    """Whether its lines tell how long the application took, which must be measured then."""
    return is_json(format) or "%({app}x)" in format or "%({write}x)" in format


def compile_format(format: str) -> Renderer:
    """A function from an entry to its line; ConfigError names what is no atom."""
    if is_json(format):
        return render_json
    values: list[str] = []
    line, position = "", 0
    for match in _ATOM.finditer(format):
        line += _literal(format[position : match.start()], format)
        position = match.end()
        name, kind, letter, conversion = match.groups()
        if conversion is None:
            line += "%"
            continue
        atom = _NAMED[kind](name) if name is not None else ATOMS.get(letter)
        if atom is None:
            raise ConfigError(f"--access-logformat: %({letter})s is no atom: there are {' '.join(ATOMS)}")
        line += f"{{v{len(values)}}}"
        values.append(f"v{len(values)} = " + (atom if conversion == "s" else f"'%{conversion}' % ({atom},)"))
    line += _literal(format[position:], format) + "\n"

    names = globals().copy()
    exec(_RENDER.format(values="; ".join(values) or "pass", line=f"f{line!r}"), names)
    render: Renderer = names["render"]
    try:
        render(_EXAMPLE)
    except TypeError as error:
        raise ConfigError(f"--access-logformat: {format!r}: {error}") from None
    return render


def _literal(text: str, format: str) -> str:
    if "%" in text:
        raise ConfigError(f"--access-logformat: a % that begins no atom in {format!r}")
    return text.replace("{", "{{").replace("}", "}}")


class _Texts(dict[str, object]):
    """An environ that has been the application's, of which each value that is asked for is a text."""

    def get(self, key: str, default: object = None) -> object:
        value = super().get(key, default)
        return value if value is default else _text(value)


def _text(value: object) -> str:
    try:
        return str.__str__(str(value))  # a plain one, where it gives a str of its own kind
    except Exception:
        return f"<{type(value).__name__}>"


def _as_text(entry: Entry, error: Exception) -> Entry:
    """The entry with all values as texts: no line came of it, as the application may put anything into environ and
    headers, which are its own. Raises `error`, what went wrong, where they are texts already."""
    if isinstance(entry.environ, _Texts):
        raise error
    # Copies first, each made in one step: a thread of the application may still be at it
    environ = _Texts((key, value) for key, value in list(entry.environ.items()) if type(key) is str)
    pairs = [pair for pair in list(entry.headers) if type(pair) in (tuple, list) and len(pair) == 2]
    headers = [(_text(name), _text(value)) for name, value in pairs]
    return replace(entry, environ=environ, headers=headers)


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
        if "HTTP_AUTHORIZATION" in environ and (user := _user(environ)):
            line += f',"user.name":{_encode(user)}'
    except Exception as error:
        return render_json(_as_text(entry, error))
    if entry.cause:
        line += f',"error.type":{_encode(entry.cause)}'
    return f"{line}}}\n".encode("ascii")
