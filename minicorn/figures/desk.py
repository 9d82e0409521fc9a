"""Where the monitor listens: bound by the arbiter, for all monitors that come one after the other."""

import ipaddress

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.system import listeners
from minicorn.system.listeners import Listener

BACKLOG = 64


def open_desk(settings: Settings, left: list[tuple[int, str, tuple[int, int] | None]]) -> Listener | None:
    """Where the monitor listens: anew, or what the arbiter's image before has `left`; None where nobody asked.

    ConfigError when that cannot be had, or when other machines would reach it and nobody has allowed that.
    """
    before = [listeners.adopt(*each, 0) for each in left]
    if settings.monitor is None:
        listeners.close_all(before)
        return None
    try:
        desk = before[0] if before else listeners.bind(settings.monitor, BACKLOG)
    except ConfigError as error:
        raise ConfigError(f"--monitor: {error}") from error
    if not (settings.monitor_allow or _is_private(desk)):
        listeners.close_all([desk])
        raise ConfigError(f"--monitor: other machines reach {desk.name}: if they may, add --monitor-allow")
    return desk


def _is_private(desk: Listener) -> bool:
    """Whether only this machine reaches it."""
    return not desk.port or ipaddress.ip_address(desk.host).is_loopback
