"""The access log: a format in gunicorn's atoms, compiled once, or JSON (`accessjson`); one `write` a line.

An atom is an expression over `entry` and its `environ`; `compile_format` makes one function of
those that a format has, so that a line costs what its atoms cost. What requests have in common
(a browser's name, a method, the second) is quoted once and remembered. Where gunicorn lets
control characters, backslashes and octets beyond ASCII through as they are, they are escaped:
no client can forge a line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from minicorn.errors import ConfigError
from minicorn.logs.accessjson import render_json
from minicorn.logs.entry import Entry, Origin, each_second
from minicorn.memo import Memo

Renderer = Callable[[Entry], bytes]

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {34: '\\"', 92: "\\\\"}


def _quote(value: object) -> str:
    """A client's text inside the format's quotes: it can end neither them nor the line."""
    text = str(value)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


_quoted = Memo[str, str](_quote)
_local = each_second("[%d/%b/%Y:%H:%M:%S %z]", time.localtime)


def _from_environ(key: str) -> str:
    return f"_quoted[environ.get({key!r}, '-')]"


ATOMS = {
    "h": _from_environ("REMOTE_ADDR"),
    "l": "'-'",
    "u": "_quote(entry.user) or '-' if 'HTTP_AUTHORIZATION' in environ else '-'",
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
        return render(entry.as_texts(error))
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
