"""The names that a certificate is for, from its DER bytes (RFC 5280 4.2.1.6), and names as mod_ssl writes them."""

from __future__ import annotations

from collections.abc import Iterable

_SUBJECT_ALT_NAME = b"\x06\x03\x55\x1d\x11"  # 2.5.29.17
_OCTET_STRING, _SEQUENCE, _DNS_NAME = 0x04, 0x30, 0x82

# RFC 4514 3, and mod_ssl's for the address
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "emailAddress": "Email",
    "userId": "UID",
    "domainComponent": "DC",
}

Name = Iterable[Iterable[tuple[str, str]]]  # as ssl.SSLSocket.getpeercert has it


def dns_names(der: bytes) -> list[str]:
    """The DNS names of the certificate `der`, lower-case; ValueError for what is cut or misshapen."""
    found = der.find(_SUBJECT_ALT_NAME)
    if found < 0:
        return []
    position = found + len(_SUBJECT_ALT_NAME)
    tag, start, end = _element(der, position)
    if tag != _OCTET_STRING:  # the flag that says critical
        tag, start, end = _element(der, end)
    tag, position, end = _element(der, start)
    if tag != _SEQUENCE:
        raise ValueError("subjectAltName is no sequence")
    names = []
    while position < end:
        tag, start, position = _element(der, position)
        if tag == _DNS_NAME:
            names.append(der[start:position].decode("ascii").lower())
    return names


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Tag, start and end of the element at `position` (X.690 8.1)."""
    if position + 2 > len(der):
        raise ValueError("a certificate that is cut")
    tag, size, start = der[position], der[position + 1], position + 2
    if size > 0x7F:
        start += size & 0x7F
        size = int.from_bytes(der[position + 2 : start], "big")
    if start + size > len(der):
        raise ValueError("a certificate that is cut")
    return tag, start, start + size


def distinguished(prefix: str, name: Name) -> dict[str, str]:
    """mod_ssl's variables for a name: SSL_CLIENT_S_DN and its parts, for `prefix` SSL_CLIENT_S_DN."""
    pairs = [(_SHORT.get(kind, kind), value) for part in name for kind, value in part]
    variables = {prefix: ",".join(f"{kind}={_escape(value)}" for kind, value in reversed(pairs))}
    counts: dict[str, int] = {}
    for kind, value in pairs:
        counts[kind] = counts.get(kind, 0) + 1
        again = f"_{counts[kind] - 1}" if counts[kind] > 1 else ""
        variables[f"{prefix}_{kind}{again}"] = value
    return variables


def _escape(value: str) -> str:
    """Escape a value as RFC 4514 2.4 has it."""
    text = "".join(f"\\{character}" if character in ',+"\\<>;' else character for character in value)
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(value) > 1 else text
