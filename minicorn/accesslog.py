"""The access log: a format in gunicorn's atoms, compiled once; one `write` a line.

`compile_format` turns the format into a %-template and the functions that fill it, so that
a line costs what its atoms cost.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from minicorn.errors import ConfigError


@dataclass(slots=True)
class Entry:
    """One answered request."""

    environ: WSGIEnvironment
    status: str  # "200 OK"
    headers: list[tuple[str, str]]
    sent: int  # bytes of body
    seconds: float  # in the application and in handing its reply over


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {34: '\\"', 92: "\\\\"}


def _quoted(value: object) -> str:
    """A client's text inside the format's quotes: it can end neither them nor the line."""
    text = str(value)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


def _from_environ(key: str) -> Callable[[Entry], str]:
    return lambda entry: _quoted(entry.environ.get(key) or "-")


def _request_line(entry: Entry) -> str:
    environ = entry.environ
    # The application may have done anything to it
    return _quoted(f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')} {environ.get('SERVER_PROTOCOL')}")


def _local_time(entry: Entry) -> str:
    return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")


def _remote_user(entry: Entry) -> str:
    """The name in Basic credentials, checked by nobody here."""
    import base64  # only for this atom's rare case

    scheme, _, credentials = str(entry.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        name, _, _ = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return "-"
    return _quoted(name) or "-"


ATOMS: dict[str, Callable[[Entry], str]] = {
    "h": _from_environ("REMOTE_ADDR"),
    "l": lambda entry: "-",
    "u": _remote_user,
    "t": _local_time,
    "r": _request_line,
    "s": lambda entry: entry.status.split(" ", 1)[0],
    "m": _from_environ("REQUEST_METHOD"),
    "U": _from_environ("PATH_INFO"),
    "q": lambda entry: _quoted(entry.environ.get("QUERY_STRING", "")),
    "H": _from_environ("SERVER_PROTOCOL"),
    "b": lambda entry: str(entry.sent) if entry.sent else "-",
    "B": lambda entry: str(entry.sent),
    "f": _from_environ("HTTP_REFERER"),
    "a": _from_environ("HTTP_USER_AGENT"),
    "T": lambda entry: str(int(entry.seconds)),
    "D": lambda entry: str(int(entry.seconds * 1e6)),
    "M": lambda entry: str(int(entry.seconds * 1e3)),
    "L": lambda entry: f"{entry.seconds:.6f}",
    "p": lambda entry: f"<{os.getpid()}>",
}


def _in_headers(name: str) -> Callable[[Entry], str]:
    wanted = name.lower()

    def get(entry: Entry) -> str:
        return next((_quoted(value) for key, value in entry.headers if key.lower() == wanted), "-")

    return get


def _in_request(name: str) -> Callable[[Entry], str]:
    key = name.upper().replace("-", "_")
    return _from_environ(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")


_NAMED = {"i": _in_request, "o": _in_headers, "e": _from_environ}
_ATOM = re.compile(r"%\((?:\{([^}]+)\}([ioe])|([A-Za-z]))\)s|%%")


def compile_format(format: str) -> Callable[[Entry], bytes]:
    """A function from an entry to its line; ConfigError names what is no atom."""
    getters: list[Callable[[Entry], str]] = []
    template, position = "", 0
    for match in _ATOM.finditer(format):
        template += _literal(format[position : match.start()], format)
        position = match.end()
        name, kind, letter = match.groups()
        if name is None and letter is None:
            template += "%%"
            continue
        template += "%s"
        if name is not None:
            getters.append(_NAMED[kind](name))
        elif letter in ATOMS:
            getters.append(ATOMS[letter])
        else:
            raise ConfigError(f"--access-logformat: %({letter})s is no atom: there are {' '.join(ATOMS)}")
    template += _literal(format[position:], format) + "\n"

    def render(entry: Entry) -> bytes:
        return (template % tuple([get(entry) for get in getters])).encode("ascii", "backslashreplace")

    return render


def _literal(text: str, format: str) -> str:
    if "%" in text:
        raise ConfigError(f"--access-logformat: a % that begins no atom in {format!r}")
    return text
