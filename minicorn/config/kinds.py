"""The kinds of value that settings take: each in words, and as a function from a text, which judges it.

A kind knows nothing of the setting whose it is. What it refuses it refuses by ValueError: the layer
that the text came from makes that one line for the operator, with the words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from minicorn.config.address import Address, parse_address, parse_port, render_address
from minicorn.http.peers import Peers
from minicorn.record import Value, replace
from minicorn.typed import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import Literal

T = TypeVar("T")


class Kind(Value, Generic[T], quick=True):
    """What a setting takes: in words, and as a function that raises ValueError.

    `show` gives the text that stands for a value; `types` are those of Python's that may stand
    for a text in a file; `words` are all that it takes, where those are few.
    """

    takes: str
    parse: Callable[[str], T]
    show: Callable[[T], str] = str
    types: tuple[type, ...] = ()
    words: tuple[str, ...] = ()


def _show_number(value: float) -> str:
    """Render a number with all its digits, and without a fraction of 0."""
    return repr(value).removesuffix(".0")


def seconds(least: float = 0.0) -> Kind[float]:
    """A duration in seconds, fractions allowed."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= 1e9:  # also refuses nan
            raise ValueError(text)
        return value

    return Kind(f"seconds, {least:g} or more, at most 1e9", parse, _show_number, (int, float))


def count(least: int, most: int = 2**31 - 1) -> Kind[int]:
    """A whole number from `least` to `most`, by default what a C int holds."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Kind(f"a whole number from {least} to {most}", parse, types=(int,))


def size(least: int = 0) -> Kind[int]:
    """A number of bytes: 65536, 64K, 10M, 2G."""
    units = {"G": 2**30, "M": 2**20, "K": 2**10}

    def show(value: int) -> str:
        for letter, unit in units.items():
            if value and value % unit == 0:
                return f"{value // unit}{letter}"
        return str(value)

    def parse(text: str) -> int:
        unit = units.get(text[-1:].upper(), 1)
        value = int(text[:-1] if unit > 1 else text) * unit
        if not least <= value < 2**63:
            raise ValueError(text)
        return value

    return Kind(f"bytes, {least} or more, with K, M or G if wanted", parse, show, (int,))


def choice(*names: str, also: Mapping[str, str] = MappingProxyType({})) -> Kind[str]:
    """One of a few words; `also` has other spellings for some."""

    def parse(text: str) -> str:
        word = also.get(text.lower(), text.lower())
        if word not in names:
            raise ValueError(text)
        return word

    return Kind("one of " + ", ".join(names), parse, types=(int,) if also else (), words=names)


def words(*names: str) -> Kind[str]:
    """Some of a few words, with commas; none is an empty text."""

    def parse(text: str) -> str:
        found = [word.strip().lower() for word in text.split(",") if word.strip()]
        if not set(found) <= set(names):
            raise ValueError(text)
        return ",".join(found)

    return Kind("some of " + ", ".join(names) + ", with commas", parse)


def _parse_peers(text: str) -> str:
    Peers(text).check()
    return text


def _parse_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _parse_name(text: str) -> str:
    _parse_text(text).encode()  # a UnicodeEncodeError, which is a ValueError, for bytes that were no UTF-8
    return text


def _parse_pidfile(text: str) -> str:
    if text.isdecimal():  # a port, as many other servers have it
        raise ValueError(text)
    return _parse_text(text)


def _parse_target(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError(text)
    return text


def _parse_workers(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else count(1, 1000).parse(text)


def _parse_statsd(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not parse_port(port):
        raise ValueError(text)
    return text


def _parse_metric(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]*", text):
        raise ValueError(text)
    return text


def _parse_tags(text: str) -> str:
    if not text.isprintable() or not text.isascii() or "|" in text:
        raise ValueError(text)
    return text


def _parse_umask(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError(text)
    return value


def _parse_counts(text: str) -> tuple[int, ...]:
    return tuple(count(1).parse(each) for each in text.split(",") if text)


def _show_counts(value: int | Sequence[int]) -> str:
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


def _parse_switch(text: str) -> bool:
    word = text.lower()
    if word not in _SWITCHED:
        raise ValueError(text)
    return _SWITCHED[word]


def _parse_variable(text: str) -> str:
    if not re.fullmatch(r"[^=\0]+=[^\0]*", text):
        raise ValueError(text)
    return text


_SWITCHED = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}
SWITCH: Kind[bool] = Kind("true or false", _parse_switch, lambda value: str(value).lower(), (bool,))
VARIABLE: Kind[str] = Kind("NAME=VALUE", _parse_variable)


TEXT: Kind[str] = Kind("a text", _parse_text)
TARGET: Kind[str] = Kind("a path of the application, such as /health", _parse_target)
PATH: Kind[str] = Kind("a path", _parse_text)
PIDFILE: Kind[str] = Kind("the path of a file for our pid; a port is --port's", _parse_pidfile)
LOGFILE: Kind[str] = Kind("a path, or - for the terminal", _parse_text)
NAME: Kind[str] = Kind("a text", _parse_name, types=(int,))
APP: Kind[str] = Kind("a text", _parse_name)
PORT: Kind[int] = Kind("a port from 0 to 65535", parse_port, types=(int,))
ADDRESS: Kind[Address] = Kind("host:port, :port, [v6]:port, unix:/path or fd://N", parse_address, render_address)
WORKERS: Kind[int | Literal["auto"]] = Kind("a whole number from 1 to 1000, or auto", _parse_workers, types=(int,))
UMASK: Kind[int] = Kind("an octal mode such as 027", _parse_umask, "{:03o}".format, (int,))
COUNTS: Kind[tuple[int, ...]] = Kind(
    "whole numbers from 1 to 2147483647, with commas", _parse_counts, _show_counts, (int, tuple, list)
)
MILLISECONDS = Kind("milliseconds, 0 or more", seconds().parse, _show_number, (int, float))
PEERS = Kind("addresses, networks such as 10.0.0.0/8, unix, or *, with commas", _parse_peers)
# With the spellings of gunicorn and the numbers of Python's ssl, which its files have
CERT_REQS = choice("none", "optional", "required", also={"0": "none", "1": "optional", "2": "required"})
TLS_VERSION = choice(
    "1.2", "1.3", also=dict.fromkeys(("2", "5", "16", "tls", "tls_server", "tlsv1_2"), "1.2") | {"tlsv1_3": "1.3"}
)
PROXY = replace(
    choice(
        "off",
        "v1",
        "v2",
        "auto",
        also={word: "auto" if on else "off" for word, on in _SWITCHED.items()} | {"none": "off"},
    ),
    types=(bool,),
)
FACILITY = choice(
    *["auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "security", "syslog", "user", "uucp"],
    *(f"local{n}" for n in range(8)),
)
STATSD: Kind[str] = Kind("host:port", _parse_statsd)
TAGS = Kind("name:value, with commas between", _parse_tags)
METRIC = Kind("a name of letters, digits, dots, - and _", _parse_metric)
LEVEL = choice("debug", "info", "warning", "error", "critical")
