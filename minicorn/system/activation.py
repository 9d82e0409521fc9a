"""The listeners that a server begins with: passed by the service manager, kept by it, or bound now.

A socket unit's descriptors are served in place of host and port, and beside what --bind says; where
--bind names descriptors (fd://NAME, fd://N) only those are; the one that --monitor names is the monitor's.
What the manager has kept for us over a restart is taken for the address that it was bound to, with whoever
waits in its queue.
"""

from __future__ import annotations

import os
import socket
import stat

from minicorn.config.address import Address, Bindable, Descriptor, Named, Tcp, Unix
from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.system import listeners, systemd
from minicorn.system.listeners import Listener, SocketOptions
from minicorn.system.systemd import Passed, ServiceManager

# Most listeners: a connection that is handed off tells in one byte by which it came
MOST = 256


def open_all(settings: Settings, manager: ServiceManager) -> list[Listener]:
    """All listeners, numbered; BindError or ConfigError, and none open, when one cannot be had."""
    opened: list[Listener] = []
    try:
        units = [each for each in manager.passed if _is_served(each, settings)]
        kept = {each.name: each for each in manager.passed if each.name.startswith(systemd.KEPT)}
        if not any(isinstance(address, (Named, Descriptor)) for address in settings.bind):
            opened += [_adopt_unit(each) for each in units]
        for address in settings.bind if opened else settings.addresses:
            if isinstance(address, Named):
                opened += [_adopt_unit(each) for each in _find(address, units)]
            elif str(address) not in [listener.name for listener in opened]:
                opened.append(_open(address, kept, settings, manager))
        for each in kept.values():  # of an address that is not wanted any more
            manager.forget(each.name)
            os.close(each.fd)
        if len(opened) > MOST:
            raise ConfigError(f"cannot listen on {len(opened)} addresses: {MOST} at most")
    except ConfigError:
        listeners.close_all(opened)
        raise
    for number, listener in enumerate(opened):
        listener.number = number
    return opened


def open_endpoint(address: Address, manager: ServiceManager) -> Listener:
    """The monitor's listener; BindError or ConfigError when it cannot be had."""
    if isinstance(address, Named):
        return _adopt_unit(_find(address, manager.passed)[0])
    return listeners.bind(address)


def _is_served(passed: Passed, settings: Settings) -> bool:
    """Whether it is for clients: neither kept for us nor the monitor's."""
    monitors = str(settings.monitor) in (f"fd://{passed.name}", f"fd://{passed.fd}")
    return not monitors and not passed.name.startswith(systemd.KEPT)


def _open(address: Bindable, kept: dict[str, Passed], settings: Settings, manager: ServiceManager) -> Listener:
    """The listener that was kept for `address`, or else a new one, to be kept from now on."""
    name = systemd.kept_name(str(address)) if kept or manager.keeps else ""
    before = kept.get(name)
    if before is not None and _has_its_path(address):
        del kept[name]
        return Listener(socket.socket(fileno=before.fd), path=_path(address))
    listener = listeners.bind(address, _socket_options(address, settings))
    if manager.keeps and not isinstance(address, Descriptor):
        listener.made = None  # its path outlives us with it
        if before is not None:
            manager.forget(name)
            os.close(kept.pop(name).fd)
        manager.keep(str(address), listener.fd)
    return listener


def _socket_options(address: Bindable, settings: Settings) -> SocketOptions:
    """How to listen on `address`: where another has IPv4's clients of the same port, for those of IPv6 alone."""
    ports = [other.port for other in settings.addresses if isinstance(other, Tcp) and ":" not in other.host]
    return SocketOptions(settings.backlog, settings.reuse_port, isinstance(address, Tcp) and address.port in ports)


def _path(address: Bindable) -> str:
    return os.path.abspath(address.path) if isinstance(address, Unix) else ""


def _has_its_path(address: Bindable) -> bool:
    """Whether clients still find the socket: somebody may have removed a Unix socket's name."""
    try:
        return not isinstance(address, Unix) or stat.S_ISSOCK(os.stat(address.path).st_mode)
    except OSError:
        return False


def _find(address: Named, units: list[Passed]) -> list[Passed]:
    found = [each for each in units if each.name == address.name]
    if not found:
        names = ", ".join(sorted({each.name for each in units})) or "none at all"
        raise ConfigError(f"cannot listen on {address}: the service manager has passed no such descriptor ({names})")
    return found


def _adopt_unit(passed: Passed) -> Listener:
    try:
        listening = socket.socket(fileno=passed.fd)
        serves = listening.type == socket.SOCK_STREAM and listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        serves = 0
    if not serves:
        needs = "its socket unit needs ListenStream= and Accept=no"
        raise ConfigError(
            f"cannot listen on descriptor {passed.fd} ({passed.name}): no listening stream socket; {needs}"
        )
    return Listener(listening)
