"""The same figures as JSON has them: for `minicornctl status --json`, /status and the monitor's page.

Durations are seconds, sizes bytes, latencies milliseconds.
"""

from __future__ import annotations

from minicorn.figures.counters import BOUNDS, Counters, Histogram
from minicorn.figures.snapshot import QUANTILES, Condition, Snapshot, WorkerView
from minicorn.pool.standing import Standing
from minicorn.record import as_dict


def _quantiles(histogram: Histogram) -> dict[str, float]:
    """The quantiles of `histogram` by name, in milliseconds."""
    return {name: round(histogram.quantile(share) * 1000, 3) for name, share in QUANTILES.items()}


def sample(snapshot: Snapshot, epoch: float) -> dict[str, object]:
    """What a chart needs of one moment: totals, so that the difference of two is what came between them."""
    totals = snapshot.totals
    return {
        "at": round(epoch, 3),
        "by_status": totals.by_status,
        "latency_counts": list(totals.latency.counts),
        "busy": snapshot.states[Condition.BUSY],
        "workers": len(snapshot.workers),
    }


def document(snapshot: Snapshot) -> dict[str, object]:
    """All figures of a server as one JSON document."""
    standing = snapshot.standing
    return {
        "pid": standing.pid,
        "version": standing.version,
        "app": standing.app,
        "title": standing.title,
        "listeners": [each.name for each in standing.listeners],
        "stage": standing.stage.value,
        "ready": not snapshot.unready,
        "reason": snapshot.unready,
        "age": round(snapshot.now - standing.started, 1),
        "silent": round(snapshot.now - snapshot.heard, 1),
        "workers_wanted": standing.size,
        "generation": standing.generation,
        "rolling": standing.rolling,
        "last_roll": _last_roll(standing),
        "upgrades": standing.upgrades,
        "upgrade_error": standing.upgrade_error,
        "worker_exits": dict(standing.exits),
        "signals": dict(standing.obeyed),
        "totals": _totals(snapshot.totals),
        "usage": as_dict(snapshot.usage),
        "memory": {"processes": len(snapshot.processes), "pss": snapshot.pss, "private": snapshot.private},
        "accept_queues": [as_dict(queue) for queue in snapshot.queues],
        "workers": [_worker(worker, snapshot.now) for worker in snapshot.workers],
        "errors": [as_dict(complaint) for complaint in snapshot.errors],
    }


def _last_roll(standing: Standing) -> dict[str, object] | None:
    rolled = standing.rolled
    if rolled is None:
        return None
    at = round(standing.rolled_at, 3)
    return {"generation": rolled.generation, "outcome": rolled.outcome, "at": at, "error": standing.roll_error}


def _totals(totals: Counters) -> dict[str, object]:
    return {
        "requests": totals.requests,
        "by_status": totals.by_status,
        "refused": totals.refused,
        "connections": totals.accepted,
        "handed_off": totals.given,
        "received_bytes": totals.received,
        "sent_bytes": totals.sent,
        "latency_ms": _quantiles(totals.latency),
        "latency_counts": list(totals.latency.counts),
        "latency_bounds": list(BOUNDS),
        "queue_ms": _quantiles(totals.queue),
    }


def _worker(worker: WorkerView, now: float) -> dict[str, object]:
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "generation": worker.generation,
        "state": worker.state,
        "age": round(now - worker.born, 1),
        "for": round(max(0.0, now - worker.since), 3),
        "request": worker.request,
        "client": worker.client,
        "connections": worker.connections,
        "requests": worker.counters.requests,
        "latency_ms": _quantiles(worker.counters.latency),
        **as_dict(worker.usage),
    }
