"""Where the monitor listens: bound by the arbiter, for all monitors that come one after the other."""

from __future__ import annotations

from minicorn.config.address import Tcp
from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.http.peers import is_loopback
from minicorn.system import activation, listeners
from minicorn.system.listeners import Legacy, Listener
from minicorn.system.systemd import ServiceManager


def open_endpoint(settings: Settings, manager: ServiceManager, left: list[Legacy]) -> Listener | None:
    """The listener of the monitor: a new one, or what the arbiter's image before has `left`; None without --monitor.

    ConfigError when that cannot be had, or when other machines would reach it and nobody has allowed that.
    """
    before = [listeners.adopt(each) for each in left]
    if settings.monitor is None:
        listeners.close_all(before)
        return None
    try:
        endpoint = before[0] if before else activation.open_endpoint(settings.monitor, manager)
    except ConfigError as error:
        raise ConfigError(f"--monitor: {error}") from error
    if not (settings.monitor_allow or _is_private(endpoint)):
        listeners.close_all([endpoint])
        raise _refusal(endpoint.name)
    return endpoint


def check_endpoint(settings: Settings) -> None:
    """Raise ConfigError where the monitor could not listen, or may not, whoever listens there now."""
    if settings.monitor is None:
        return
    try:
        listeners.check(settings.monitor)
    except ConfigError as error:
        raise ConfigError(f"--monitor: {error}") from error
    if isinstance(settings.monitor, Tcp) and not settings.monitor_allow:
        _, (host, *_) = listeners.resolve(settings.monitor)
        if not is_loopback(str(host)):
            raise _refusal(str(settings.monitor))


def _is_private(endpoint: Listener) -> bool:
    """Whether only this machine reaches the endpoint."""
    return not endpoint.port or is_loopback(endpoint.host)


def _refusal(name: str) -> ConfigError:
    return ConfigError(f"--monitor: other machines reach {name}: if they may, add --monitor-allow")
