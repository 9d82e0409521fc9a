"""Who is believed: addresses, networks, `unix` for Unix sockets, `*` for whoever connects.

`*` speaks of the peer alone: an address that a header names is never trusted for it, or a
client could put any address in front of its own.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


class Peers:
    """The list that an operator wrote: "10.0.0.0/8,::1,unix"."""

    def __init__(self, text: str) -> None:
        self._words = [word.strip() for word in text.split(",") if word.strip()]
        self._everyone = "*" in self._words
        self._unix = "unix" in self._words
        # Remembered for the last addresses, so that it is not decided anew for each request
        self.lists = lru_cache(maxsize=1024)(self._lists)
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def check(self) -> None:
        """Raise ValueError where a word of the list is neither an address nor a network."""
        _ = self._networks

    @cached_property
    def _networks(self) -> list[IPv4Network | IPv6Network]:
        import ipaddress  # dear, and a first request need not wait for it: so it is below

        return [ipaddress.ip_network(word) for word in self._words if word not in ("*", "unix")]

    def _trusts(self, peer: str) -> bool:
        """Whether a connection from `peer` ("": a Unix socket's) comes from somebody who is believed."""
        return self._everyone or (self.lists(peer) if peer else self._unix)

    def _lists(self, address: str) -> bool:
        """Whether the list names `address`, by itself or by its network."""
        ip = parse_ip(address)
        return ip is not None and any(ip in network for network in self._networks)


# RFC 6874 2: what may name a zone; ipaddress takes anything
_ZONE = r"[A-Za-z0-9\-._~]+"


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` is, an IPv4 one where IPv6 only wraps it (RFC 4291 2.5.5.2); None for no address."""
    import ipaddress

    _, percent, zone = text.partition("%")
    if percent and not re.fullmatch(_ZONE, zone):
        return None
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def is_ours(host: str) -> bool:
    """Whether a Host field names this machine, by its address or by a name that nobody can register (RFC 6761):
    a page of somebody else's, whose name leads here, cannot make a browser send that."""
    name = re.sub(r":[0-9]*$", "", host).lower()
    return "." not in name or name.endswith((".localhost", ".test")) or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether `address` is of this machine, as the peer of a Unix socket is, whose address is ""."""
    ip = parse_ip(address)
    return not address or (ip is not None and ip.is_loopback)
