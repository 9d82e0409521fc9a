"""Addresses to bind, as values: `host:port`, `[::1]:port`, `unix:/path`, `fd://N`, `fd://NAME`."""

from __future__ import annotations

import re

from minicorn.record import Value

# What systemd allows in FileDescriptorName=
_NAME = r"[!-9;-~]{1,255}"


class Tcp(Value):
    """A TCP address; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Unix(Value):
    """A Unix stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class Descriptor(Value):
    """A listening socket that the parent process has opened."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


class Named(Value):
    """Listening sockets that the service manager has passed by this name."""

    name: str

    def __str__(self) -> str:
        return f"fd://{self.name}"


Bindable = Tcp | Unix | Descriptor  # without a service manager
Address = Bindable | Named


def parse_port(text: str) -> int:
    """A port from 0 to 65535; ValueError otherwise."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def parse_address(text: str) -> Address:
    """The address that `text` names; ValueError when it names none."""
    if "\0" in text:
        raise ValueError(text)
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Unix(text.removeprefix("unix:"))
    text = text.removeprefix("tcp://")
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if re.fullmatch(r"[0-9]{1,9}", number):
            return Descriptor(int(number))
        if not re.fullmatch(_NAME, number) or number[0] in "+-.0123456789":
            raise ValueError(text)
        return Named(number)
    if not text:
        raise ValueError("a variable that was not set is no wish to listen everywhere")
    host, colon, port = text.rpartition(":")
    if re.fullmatch(r"[0-9]+", text):
        raise ValueError("a port alone is written :8000")
    if not colon or text.endswith("]"):
        host, port = text, "8000"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    return Tcp(host or "0.0.0.0", parse_port(port))


def render_address(address: Address) -> str:
    """The text that `parse_address` takes for this address."""
    return str(address).removeprefix("http://")
