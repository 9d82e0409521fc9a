"""The PROXY protocol, versions 1 and 2: bytes -> who the client is, or "need more" (None).

A proxy that forwards TCP and not HTTP says so before the first byte of its client's. Rules:
haproxy.org/download/2.8/doc/proxy-protocol.txt. What is not understood is refused, for the
bytes behind it would be read as something that they are not.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable

from minicorn.errors import ProtocolError
from minicorn.record import Value

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_BEGINNING = b"PROXY "
_V1_MOST = 107  # section 2.1: the longest line with its CRLF
_V2_HEAD = struct.Struct("!12sBBH")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_TCP4, _TCP6 = 0x11, 0x21
_TYPE_SSL, _CLIENT_SSL = 0x20, 0x01  # section 2.2.6


class Source(Value, quick=True):
    """Who has connected to the proxy; address "": it does not say, or it is the proxy itself.

    `secure`: by TLS, which the proxy has ended.
    """

    address: str = ""
    port: str = ""
    secure: bool = False


def parse_proxy(data: bytes, version: str) -> tuple[Source, int] | None:
    """The header at the start of `data` and its length; None to ask for more, ProtocolError (400) for none.

    `version`: "v1" or "v2", which the other is not; "auto" for either.
    """
    if version != "v1" and _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        return _parse_v2(data) if len(data) >= _V2_HEAD.size else None
    if version == "v2" or not _BEGINNING.startswith(data[: len(_BEGINNING)]):
        raise ProtocolError(400, "no PROXY header, which --proxy-protocol asks of this peer")
    end = data.find(b"\r\n", 0, _V1_MOST)
    if end < 0:
        if len(data) >= _V1_MOST:
            raise ProtocolError(400, "PROXY line without an end")
        return None
    return _parse_v1(data[:end].decode("latin-1")), end + 2


def _parse_v1(line: str) -> Source:
    _, protocol, *words = line.split(" ")
    if protocol == "UNKNOWN":  # section 2.1: what follows is ignored
        return Source()
    parse: Callable[[str], object] | None = _V1_ADDRESSES.get(protocol)
    if parse is None or len(words) != 4 or "%" in line:  # inet_pton(3) knows no zone
        raise ProtocolError(400, "malformed PROXY line")
    source, destination, *ports = words
    try:
        parse(source), parse(destination)
    except ValueError:
        raise ProtocolError(400, "malformed address in the PROXY line") from None
    if not all(_PORT.fullmatch(port) and int(port) <= 65535 for port in ports):
        raise ProtocolError(400, "malformed port in the PROXY line")
    return Source(source, ports[0])


_V1_ADDRESSES: dict[str, Callable[[str], object]] = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}


def _parse_v2(data: bytes) -> tuple[Source, int] | None:
    _, command, family, size = _V2_HEAD.unpack_from(data)
    if command not in (0x20, 0x21):
        raise ProtocolError(400, "unknown version or command in the PROXY header")
    end = _V2_HEAD.size + size
    if len(data) < end:
        return None
    payload = data[_V2_HEAD.size : end]
    if command == 0x20:  # LOCAL: the proxy's own, such as a health check
        return Source(), end
    layout = _V2_LAYOUTS.get(family)
    if layout is None:  # section 2.2: of another family nothing is known, and nothing to be refused
        return Source(), end
    if size < layout.size:
        raise ProtocolError(400, "PROXY header shorter than its addresses")
    secure = _is_secure(payload[layout.size :])
    if family not in (_TCP4, _TCP6):
        return Source(secure=secure), end
    source, _, port, _ = layout.unpack_from(payload)
    ip = ipaddress.ip_address(source)
    wrapped = getattr(ip, "ipv4_mapped", None)  # written as the system does, and Python from 3.13 on
    return Source(f"::ffff:{wrapped}" if wrapped else str(ip), str(port), secure), end


_V2_LAYOUTS = {
    0x00: struct.Struct("!"),
    _TCP4: struct.Struct("!4s4sHH"),
    _TCP6: struct.Struct("!16s16sHH"),
    0x31: struct.Struct("!108s108s"),
}


def _is_secure(extensions: bytes) -> bool:
    """Whether the type-length-values say that the client came by TLS."""
    position, secure = 0, False
    while position < len(extensions):
        if position + 3 > len(extensions):
            raise ProtocolError(400, "cut extension in the PROXY header")
        kind, size = struct.unpack_from("!BH", extensions, position)
        value = extensions[position + 3 : position + 3 + size]
        if len(value) < size:
            raise ProtocolError(400, "cut extension in the PROXY header")
        if kind == _TYPE_SSL and value:
            secure = bool(value[0] & _CLIENT_SSL)
        position += 3 + size
    return secure
