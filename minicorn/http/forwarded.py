"""What proxies say of their client: X-Forwarded-* and Forwarded (RFC 7239) -> CGI's keys.

Each hop appends to the right, so the right end is what our own peer says, and each hop further
left counts only if the one that reported it is trusted. Fields that a proxy overwrites have one
value, those that it appends to have one a hop: both are read from the right.

What a proxy that is believed says malformed, or in two ways, is refused and never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from minicorn.errors import ProtocolError
from minicorn.http.peers import parse_ip
from minicorn.http.quoting import unquote
from minicorn.http.request import is_host
from minicorn.record import Record

BELIEVABLE = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
)
_KEYS = {name: "HTTP_" + name.upper().replace("-", "_") for name in BELIEVABLE}
# Some proxies name the scheme of WebSockets, for an upgrade that WSGI cannot do
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": "80", "https": "443"}
# Patterns, compiled when a proxy first says something: `re` remembers them
_PORT = r"[1-9][0-9]{0,4}"
# RFC 3986 3.3
_PREFIX = r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*+)*+"
# What, decoded into a redirect, would lead browsers to another host, or begin another field
_ASTRAY = r"[/\\]{2}|[\0-\x1f\x7f]"
_WITH_PORT = r"(?:\[([0-9A-Fa-f:.]++)\]|([0-9.]++))(?::([0-9]{1,5}|_[A-Za-z0-9._\-]++))?"
# RFC 7239 4: pairs are separated by ";", elements by ",", either may be empty; not all quote the nodes that need it
_PAIR = r'[ \t]*+(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z]++)=(?:"((?:[^"\\]|\\.)*+)"|([^\s",;]*+)))?[ \t]*+([;,]|$)'
_ESCAPED = r"\\(.)"


class Client(Record, quick=True):
    """A client as proxies describe it; "" or None for what none has said."""

    address: str = ""
    port: str = ""
    scheme: str = ""
    host: str = ""
    server_port: str = ""
    prefix: str | None = None


def environ_keys(
    said: Mapping[str, str], believed: frozenset[str], trusts: Callable[[str], bool], host: str, scheme: str
) -> dict[str, str]:
    """The environ keys that follow from the fields that a trusted peer has `said`, by their CGI names.

    `believed` of BELIEVABLE, `trusts` tells which hops to look behind, `host` and `scheme` are the
    request's own. ProtocolError (400) for what is malformed or contradicts itself.
    """
    words = {name: said.get(_KEYS.get(name, ""), "") for name in believed}
    client = _read_x_forwarded(words, trusts)
    if words.get("forwarded"):
        _merge(client, _read_forwarded(words["forwarded"], trusts))
    return _render(client, host, scheme)


def _read_x_forwarded(words: Mapping[str, str], trusts: Callable[[str], bool]) -> Client:
    address, port, depth = _find_client(_split(words.get("x-forwarded-for", "")), trusts)

    def word(name: str) -> str:
        values = _split(words.get(name, ""))
        return values[max(0, len(values) - 1 - depth)] if values else ""

    client = Client(address, port, _scheme(word("x-forwarded-proto")), _host(word("x-forwarded-host")))
    client.server_port = word("x-forwarded-port")
    if client.server_port and not (re.fullmatch(_PORT, client.server_port) and int(client.server_port) <= 65535):
        raise ProtocolError(400, "X-Forwarded-Port is no port")
    if words.get("x-forwarded-prefix"):
        client.prefix = word("x-forwarded-prefix").rstrip("/")
        if not re.fullmatch(_PREFIX, client.prefix) or re.search(_ASTRAY, unquote(client.prefix)):
            raise ProtocolError(400, "X-Forwarded-Prefix is no path")
    return client


def _read_forwarded(text: str, trusts: Callable[[str], bool]) -> Client:
    elements = [element for element in _parse_forwarded(text) if element]
    if not elements:
        return Client()
    address, port, depth = _find_client([element.get("for", "") for element in elements], trusts)
    element = elements[len(elements) - 1 - depth]
    return Client(address, port, _scheme(element.get("proto", "")), _host(element.get("host", "")))


def _parse_forwarded(text: str) -> list[dict[str, str]]:
    elements: list[dict[str, str]] = [{}]
    position, pair = 0, re.compile(_PAIR)
    while position <= len(text):
        match = pair.match(text, position)
        if match is None:
            raise ProtocolError(400, "malformed Forwarded field")
        name, quoted, plain, separator = match.groups()
        if name is not None:
            name = name.lower()
            if name in elements[-1]:
                raise ProtocolError(400, f"{name} twice in one element of Forwarded")
            elements[-1][name] = plain if quoted is None else re.sub(_ESCAPED, r"\1", quoted)
        if not separator:
            break
        if separator == ",":
            elements.append({})
        position = match.end()
    return elements


def _split(text: str) -> list[str]:
    return [part for part in (part.strip(" \t") for part in text.split(",")) if part]


def _find_client(hops: list[str], trusts: Callable[[str], bool]) -> tuple[str, str, int]:
    """Address and port of the first hop from the right that is not trusted, and its place from the right.

    Where one is no address ("unknown", RFC 7239 6.2 and 6.3), the last that is one stands for it.
    """
    address = port = ""
    depth = 0
    for place, hop in enumerate(reversed(hops)):
        node = _parse_node(hop)
        if node is None:
            break
        (address, port), depth = node, place
        if not trusts(address):
            break
    return address, port, depth


def _parse_node(text: str) -> tuple[str, str] | None:
    """Address and port of `1.2.3.4`, `1.2.3.4:80`, `::1` or `[::1]:80`."""
    match = re.fullmatch(_WITH_PORT, text)
    address, port = (match[1] or match[2], match[3] or "") if match else (text, "")
    if parse_ip(address) is None:
        return None
    return address, "" if port.startswith("_") else port


def _scheme(text: str) -> str:
    scheme = _SCHEMES.get(text.lower(), "")
    if text and not scheme:
        raise ProtocolError(400, "the forwarded scheme is neither http nor https")
    return scheme


def _host(text: str) -> str:
    if text and (not is_host(text) or text.startswith(":")):
        raise ProtocolError(400, "the forwarded host is none")
    return text


def _merge(client: Client, other: Client) -> None:
    """Take over what only `other` says; ProtocolError (400) where both say something, and not the same."""
    for name in Client.__fields__:
        ours, theirs = getattr(client, name), getattr(other, name)
        if not ours:
            setattr(client, name, theirs if theirs is not None else ours)
        elif theirs and theirs != ours:
            raise ProtocolError(400, f"Forwarded and X-Forwarded-* contradict each other about the {name}")


def _render(client: Client, host: str, scheme: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    if client.address:
        keys["REMOTE_ADDR"], keys["REMOTE_PORT"] = client.address, client.port
    if client.scheme:
        keys["wsgi.url_scheme"] = client.scheme
    if client.host:
        keys["HTTP_HOST"] = client.host
    if client.server_port:
        keys["SERVER_PORT"] = client.server_port
        name, given = _split_port(client.host or host)
        if client.host and given and given != client.server_port:
            raise ProtocolError(400, "X-Forwarded-Host and X-Forwarded-Port contradict each other")
        usual = _DEFAULT_PORTS.get(client.scheme or scheme)
        if name:
            keys["HTTP_HOST"] = name if client.server_port == usual else f"{name}:{client.server_port}"
    if client.prefix is not None:
        keys["SCRIPT_NAME"] = unquote(client.prefix)
    return keys


def _split_port(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (host, "")
