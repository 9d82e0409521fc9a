"""What came between two looks, as statsd datagrams; with tags, in DogStatsD's dialect.

Counters are sent as what was added since the last datagram, gauges as they are. The names are
gunicorn's where it has them (`requests`, `request.status.2xx`, `workers`), below a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator

from minicorn.figures.snapshot import QUANTILES, Condition, Snapshot

# Bytes: an Ethernet frame, less the heads of IP and UDP, and some room for tunnels
DATAGRAM_MOST = 1432


def datagrams(before: Snapshot, after: Snapshot, prefix: str, tags: str) -> list[bytes]:
    """The datagrams for what came from `before` to `after`; `tags` as `name:value,...`, either text may be empty."""
    stem = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    tail = f"|#{tags}" if tags else ""
    found: list[bytes] = []
    for line in _lines(before, after):
        data = f"{stem}{line}{tail}".encode()
        if found and len(found[-1]) + 1 + len(data) <= DATAGRAM_MOST:
            found[-1] += b"\n" + data
        else:
            found.append(data)
    return found


def _lines(before: Snapshot, after: Snapshot) -> Iterator[str]:
    passed, states = after.totals - before.totals, after.states
    counters = {
        "requests": passed.requests,
        "requests.refused": passed.refused,
        "connections": passed.accepted,
        "handoffs": passed.given,
        "bytes.received": passed.received,
        "bytes.sent": passed.sent,
    }
    counters |= {f"request.status.{name}": count for name, count in passed.by_status.items()}
    ended = {f"worker.exits.{cause}": count for cause, count in after.standing.exits.items()}
    gone = before.standing.exits
    counters |= {name: count - gone.get(name.rpartition(".")[2], 0) for name, count in ended.items()}
    for name, count in counters.items():
        if count:
            yield f"{name}:{count}|c"
    yield f"workers:{len(after.workers)}|g"
    yield f"workers.busy:{states[Condition.BUSY]}|g"
    yield f"workers.idle:{states[Condition.IDLE]}|g"
    yield f"connections.open:{after.connections}|g"
    if passed.requests:
        for name, share in QUANTILES.items():
            yield f"request.duration.{name}:{passed.latency.quantile(share) * 1000:.3f}|g"
