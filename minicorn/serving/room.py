"""How many connections a process may have, and who goes for one more.

Whoever is between two requests loses nothing: the oldest of them goes. Else those go who have kept us
waiting for the longest, if that is long.
"""

from __future__ import annotations

import resource
from collections.abc import Collection

from minicorn.serving.connection import Connection
from minicorn.serving.state import IDLE

# Descriptors left to the application
SPARE_DESCRIPTORS = 64
# Who has kept us waiting for so long may be closed where others want its place
SLOW_CLIENT = 2.0
# One in so many is closed at once then, so that a crowd of them costs little
SLOW_SHARE = 64


def find_capacity(worker_connections: int) -> int:
    """Find how many it may have, where the settings say so many; 0: as many as there are descriptors for."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    capacity = limit - min(SPARE_DESCRIPTORS, limit // 2)
    return min(capacity, worker_connections or capacity)


def choose(connections: Collection[Connection], now: float) -> list[Connection]:
    """Choose those to close for others; none where nobody can be spared."""
    for connection in connections:
        if connection.state is IDLE:
            return [connection]
    most = len(connections) // SLOW_SHARE + 1
    ranked = sorted(connections, key=lambda connection: connection.waited(now), reverse=True)
    return [each for each in ranked[:most] if each.waited(now) >= SLOW_CLIENT and not each.lags]
