"""A snapshot as Prometheus reads it: the text exposition format, version 0.0.4.

Names and units follow Prometheus' conventions (base units, `_total` for what only grows). `NAMES`
is all there is: what is not in the table cannot be rendered, and a dashboard can be checked by it.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minicorn.figures.counters import BOUNDS, Histogram
from minicorn.figures.snapshot import Condition, Snapshot
from minicorn.pool.rolls import Ending
from minicorn.record import Value
from minicorn.typed import TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(Value):
    """A family of samples: its type in the exposition format, and its help text."""

    kind: str
    help: str


NAMES: Mapping[str, Metric] = {
    "minicorn_info": Metric("gauge", "Which minicorn serves which application."),
    "minicorn_start_time_seconds": Metric("gauge", "When the server began, since the epoch."),
    "minicorn_ready": Metric("gauge", "Whether it should be sent requests."),
    "minicorn_generation": Metric("gauge", "Generation of the code that serves."),
    "minicorn_workers": Metric("gauge", "Workers by what they do."),
    "minicorn_workers_wanted": Metric("gauge", "Workers that there should be."),
    "minicorn_requests_total": Metric("counter", "Requests that the application has had, by status class."),
    "minicorn_requests_in_flight": Metric("gauge", "Requests in the application."),
    "minicorn_requests_refused_total": Metric("counter", "Requests that never reached the application."),
    "minicorn_request_duration_seconds": Metric("histogram", "From the call of the application to its reply's end."),
    "minicorn_request_queue_seconds": Metric("histogram", "From a whole request to the call of the application."),
    "minicorn_received_bytes_total": Metric("counter", "Bytes of requests."),
    "minicorn_sent_bytes_total": Metric("counter", "Bytes of the application's replies, heads included."),
    "minicorn_connections_total": Metric("counter", "Connections accepted."),
    "minicorn_connections_open": Metric("gauge", "Connections that workers hold."),
    "minicorn_handoffs_total": Metric("counter", "Connections that went from one worker to another."),
    "minicorn_accept_queue_connections": Metric("gauge", "Connections that wait to be accepted."),
    "minicorn_accept_queue_limit": Metric("gauge", "Connections that can wait to be accepted."),
    "minicorn_worker_exits_total": Metric("counter", "Workers that have ended, by cause."),
    "minicorn_rolling": Metric("gauge", "Whether workers are being replaced by a new generation."),
    "minicorn_last_roll_success": Metric("gauge", "Whether the last roll put its generation in place."),
    "minicorn_last_roll_timestamp_seconds": Metric("gauge", "When the last roll ended, since the epoch."),
    "minicorn_upgrades_total": Metric("counter", "Upgrades in place that were carried out."),
    "minicorn_cpu_seconds_total": Metric("counter", "CPU time of the arbiter and all its workers."),
    "minicorn_worker_resident_memory_bytes": Metric("gauge", "Resident memory of a worker, shared pages included."),
    "minicorn_worker_proportional_memory_bytes": Metric("gauge", "A worker's own memory and its share of the shared."),
    "minicorn_arbiter_resident_memory_bytes": Metric("gauge", "Resident memory of the arbiter."),
}

# Conditions that have a sample even when no worker is in them
SHOWN = (Condition.IDLE, Condition.BUSY, Condition.BOOTING, Condition.RETIRING)

Labels = Mapping[str, str]
Sample = tuple[Labels, float]
Text = TypeVar("Text", bound=str)


def render(snapshot: Snapshot, epoch: float) -> str:
    """The page of all metrics; `epoch` is the time of day."""
    lines: list[str] = []
    for name, samples in _samples(snapshot, epoch).items():
        lines += [*_head(name), *(_line(name, labels, value) for labels, value in samples)]
    totals = snapshot.totals
    lines += _histogram("minicorn_request_duration_seconds", totals.latency)
    lines += _histogram("minicorn_request_queue_seconds", totals.queue)
    return "\n".join(lines) + "\n"


def _samples(snapshot: Snapshot, epoch: float) -> dict[str, list[Sample]]:
    standing, totals, workers = snapshot.standing, snapshot.totals, snapshot.workers
    states = dict.fromkeys(SHOWN, 0) | snapshot.states
    rolled: list[Sample] = [({}, float(standing.rolled.outcome is Ending.DONE))] if standing.rolled else []
    return {
        "minicorn_info": [({"version": standing.version, "app": standing.app}, 1)],
        "minicorn_start_time_seconds": [({}, round(epoch - (snapshot.now - standing.started), 1))],
        "minicorn_ready": [({}, not snapshot.unready)],
        "minicorn_generation": [({}, standing.generation)],
        "minicorn_workers": _by("state", states),
        "minicorn_workers_wanted": [({}, standing.size)],
        "minicorn_requests_total": _by("status", totals.by_status),
        "minicorn_requests_in_flight": [({}, states[Condition.BUSY])],
        "minicorn_requests_refused_total": [({}, totals.refused)],
        "minicorn_received_bytes_total": [({}, totals.received)],
        "minicorn_sent_bytes_total": [({}, totals.sent)],
        "minicorn_connections_total": [({}, totals.accepted)],
        "minicorn_connections_open": [({}, snapshot.connections)],
        "minicorn_handoffs_total": [({}, totals.given)],
        "minicorn_accept_queue_connections": _by("listener", {each.listener: each.waiting for each in snapshot.queues}),
        "minicorn_accept_queue_limit": _by("listener", {each.listener: each.room for each in snapshot.queues}),
        "minicorn_worker_exits_total": _by("cause", standing.exits),
        "minicorn_rolling": [({}, bool(standing.rolling))],
        "minicorn_last_roll_success": rolled,
        "minicorn_last_roll_timestamp_seconds": [({}, standing.rolled_at)] if rolled else [],
        "minicorn_upgrades_total": [({}, standing.upgrades)],
        "minicorn_cpu_seconds_total": [({}, snapshot.cpu)],
        "minicorn_worker_resident_memory_bytes": _by("slot", {str(each.slot): each.usage.rss for each in workers}),
        "minicorn_worker_proportional_memory_bytes": _by("slot", {str(each.slot): each.usage.pss for each in workers}),
        "minicorn_arbiter_resident_memory_bytes": [({}, snapshot.usage.rss)],
    }


def _by(label: str, figures: Mapping[Text, float]) -> list[Sample]:
    return [({label: key}, value) for key, value in figures.items()]


def _head(name: str) -> Iterable[str]:
    metric = NAMES[name]
    return f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(name: str, histogram: Histogram) -> list[str]:
    lines, below = [*_head(name)], 0
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], histogram.counts, strict=True):
        below += count
        lines.append(_line(f"{name}_bucket", {"le": bound}, below))
    return [*lines, _line(f"{name}_sum", {}, histogram.total), _line(f"{name}_count", {}, below)]
