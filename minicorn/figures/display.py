"""How a server is shown in a terminal: `minicornctl status` and `top`. Snapshots in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from minicorn.figures.snapshot import QUANTILES, Condition, Snapshot, WorkerView
from minicorn.record import Value

BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " .:-=+*#%"
SORTS = {"s": "slot", "r": "requests", "c": "cpu", "m": "memory", "t": "time"}


def duration(seconds: float) -> str:
    """Render a duration shortly: 870 ms, 12.3 s, 4 min, 3 h 12 min, 2 d 5 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def latency(seconds: float) -> str:
    """Render a latency in three figures: 0.12 ms, 45 ms, 1.2 s."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def size(amount: float) -> str:
    """Render a number of bytes: 1,023 B, 12.3 MiB."""
    power = min(4, max(0, int(amount).bit_length() - 1) // 10)
    shown = amount / 1024**power
    return f"{shown:.0f} B" if not power else f"{shown:.{0 if shown >= 100 else 1}f} {'KMGT'[power - 1]}iB"


def bars(values: Sequence[float], width: int, alphabet: str = BARS) -> str:
    """Render the last `width` of `values` as a bar each; the highest is a full one."""
    shown = values[-width:]
    most = max(shown, default=0.0) or 1.0
    steps = len(alphabet) - 1
    return "".join(alphabet[min(steps, -(-int(value / most * steps * 100) // 100))] for value in shown).rjust(width)


def clean(text: str) -> str:
    """A client's text for a terminal: what is no printable character is shown as a dot."""
    return "".join(char if char.isprintable() else "." for char in text)


def doing(worker: WorkerView, now: float, room: int = 10_000) -> str:
    """Describe what a worker does now, or did last while it is idle; with its client, where `room` (columns) allows."""
    took = duration(max(0.0, now - worker.since))
    if worker.busy:
        text, client = f"{took} in {worker.request}", f" for {worker.client}" if worker.client else ""
        return clean(text + client if len(text + client) <= room else text)
    return clean(f"{took} since {worker.request}" if worker.request and worker.state is Condition.IDLE else took)


def headline(snapshot: Snapshot) -> str:
    """A line on the server: the application, who serves it, since when."""
    standing = snapshot.standing
    age = duration(snapshot.now - standing.started)
    name = standing.app if standing.title == standing.app else f"{standing.title} ({standing.app})"
    return f"{name}, pid {standing.pid}, minicorn {standing.version}, up {age}"


def condition(snapshot: Snapshot) -> str:
    """A line on its condition: the stage, the generation, the workers."""
    standing, states = snapshot.standing, snapshot.states
    able = states[Condition.IDLE] + states[Condition.BUSY]
    parts = [standing.stage.value, f"generation {standing.generation}", f"{able} of {standing.size} workers ready"]
    if states[Condition.BUSY]:
        parts.append(f"{states[Condition.BUSY]} busy")
    if standing.rolling:
        parts.append(f"rolling to generation {standing.rolling}")
    if snapshot.silence:
        parts.append(f"the arbiter has not been heard for {duration(snapshot.silence)}")
    return ", ".join(parts)


def status(snapshot: Snapshot, epoch: float, width: int) -> list[str]:
    """The whole of `minicornctl status`; `epoch` is the time of day."""
    return [
        headline(snapshot),
        *(f"  {line[: width - 2]}" for line in _facts(snapshot, epoch)),
        "",
        *table(snapshot, width),
    ]


def _facts(snapshot: Snapshot, epoch: float) -> list[str]:
    standing, totals = snapshot.standing, snapshot.totals
    lines = [condition(snapshot), "listening on " + ", ".join(each.name for each in standing.listeners)]
    if standing.rolled:
        ago = duration(epoch - standing.rolled_at)
        lines.append(f"last roll: to generation {standing.rolled.generation}, {standing.rolled.outcome}, {ago} ago")
        lines += [f"  {clean(line)}" for line in standing.roll_error.splitlines()[-3:]]
    if standing.upgrade_error:
        lines.append(f"last upgrade: off, {clean(standing.upgrade_error.splitlines()[0])}")
    if standing.exits:
        lines.append(
            "workers gone: " + ", ".join(f"{count:,} {cause}" for cause, count in sorted(standing.exits.items()))
        )
    by_status = ", ".join(f"{name} {count:,}" for name, count in totals.by_status.items() if count)
    lines.append(
        f"requests: {totals.requests:,}" + f" ({by_status})" * bool(by_status) + f", refused {totals.refused:,}"
    )
    quantiles = (f"{name} {latency(totals.latency.quantile(share))}" for name, share in QUANTILES.items())
    lines.append(f"latency: {', '.join(quantiles)}; in the queue p95 {latency(totals.queue.quantile(0.95))}")
    lines.append(f"bytes: {size(totals.received)} received, {size(totals.sent)} sent")
    held = snapshot.connections
    lines.append(f"connections: {totals.accepted:,} accepted, {held:,} open, {totals.given:,} handed over")
    count, private, told = len(snapshot.processes), size(snapshot.private), snapshot.private > 0
    lines.append(f"memory: {size(snapshot.pss)} in {count} processes" + f", {private} of it not shared" * told)
    lines += [f"accept queue: {each.waiting} of {each.room} on {each.listener}" for each in snapshot.queues]
    if snapshot.errors:
        last = snapshot.errors[-1]
        lines.append(f"last error, {duration(max(0.0, epoch - last.at))} ago: {clean(last.text)}")
    return lines


def table(snapshot: Snapshot, width: int) -> list[str]:
    """The table of workers, one line each, with its head."""
    lines = [
        f"{'SLOT':>4} {'PID':>8} {'GEN':>4} {'STATE':8} {'AGE':>10} {'REQUESTS':>10} {'CPU':>7} "
        f"{'PSS':>9} {'SHARED':>9} {'PRIVATE':>9}  DOING"
    ]
    for worker in snapshot.workers:
        usage = worker.usage
        cells = f"{worker.slot:>4} {worker.pid:>8} {worker.generation:>4} {worker.state:8} "
        cells += f"{duration(snapshot.now - worker.born):>10} {worker.counters.requests:>10,} "
        cells += f"{usage.cpu:>6.1f}s {size(usage.pss):>9} {size(usage.shared):>9} {size(usage.private):>9}  "
        cells += doing(worker, snapshot.now, width - len(cells))
        lines.append(cells)
    return [line[:width].rstrip() for line in lines]


class Rates(Value):
    """What happened between two looks, per second."""

    requests: float = 0.0
    errors: float = 0.0
    refused: float = 0.0
    given: float = 0.0
    cpu: float = 0.0  # of one processor, 1.0 is all of it
    quantiles: tuple[float, ...] = ()  # of latency, in seconds
    queued: float = 0.0  # p95 of the queue, in seconds


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """The rates from `before` to `after`."""
    span = max(1e-9, after.now - before.now)
    passed = after.totals - before.totals
    used = {worker.pid: worker.usage.cpu for worker in before.workers}
    cpu = sum(worker.usage.cpu - used.get(worker.pid, 0.0) for worker in after.workers)
    return Rates(
        passed.requests / span,
        passed.by_status["5xx"] / span,
        passed.refused / span,
        passed.given / span,
        max(0.0, cpu) / span,
        tuple(passed.latency.quantile(share) for share in QUANTILES.values()),
        passed.queue.quantile(0.95),
    )


def frame(
    looks: Sequence[Snapshot], history: Sequence[Rates], sort: str, width: int, height: int, alphabet: str = BARS
) -> list[str]:
    """One frame of `top`, at most `height` lines of `width` columns; the last two `looks`, and the `history` before."""
    now, last = looks[-1], history[-1]
    room = max(10, width - 30)
    quantiles = "  ".join(f"{name} {latency(value)}" for name, value in zip(QUANTILES, last.quantiles, strict=False))
    waiting = sum(queue.waiting for queue in now.queues)
    memory = size(sum(worker.usage.pss for worker in now.workers))
    lines = [
        headline(now),
        condition(now),
        f"latency   {quantiles}",
        f"queue p95 {latency(last.queued)}  waiting {waiting}  5xx {last.errors:,.0f}/s  refused {last.refused:,.0f}/s",
        f"cpu {last.cpu:.0%}  memory {memory}  connections {now.connections:,}  hand-offs {last.given:,.0f}/s",
        f"requests {last.requests:>9,.0f} /s  {bars([each.requests for each in history], room, alphabet)}",
        f"p95      {_p95(last):>9} ms  {bars([_p95_of(each) for each in history], room, alphabet)}",
        "",
        *_lanes(looks, sort, width, max(1, height - 11)),
    ]
    footer = "sort: " + ", ".join(f"{key} {name}" for key, name in SORTS.items()) + "; q quit"
    return [line[:width].rstrip() for line in [*lines, "", footer]][:height]


def _p95_of(each: Rates) -> float:
    return each.quantiles[1] if each.quantiles else 0.0


def _p95(each: Rates) -> str:
    return f"{_p95_of(each) * 1000:.3g}"


def _lanes(looks: Sequence[Snapshot], sort: str, width: int, most: int) -> list[str]:
    before, now = looks[0], looks[-1]
    span = max(1e-9, now.now - before.now)
    served = {worker.pid: worker.counters.requests for worker in before.workers}
    used = {worker.pid: worker.usage.cpu for worker in before.workers}
    rows = []
    for worker in now.workers:
        rate = (worker.counters.requests - served.get(worker.pid, 0)) / span
        cpu = max(0.0, worker.usage.cpu - used.get(worker.pid, worker.usage.cpu)) / span
        since = now.now - worker.since if worker.busy else 0.0
        keys = {"slot": worker.slot, "requests": -rate, "cpu": -cpu, "memory": -worker.usage.pss, "time": -since}
        text = f"{worker.slot:>4} {worker.pid:>8} {worker.generation:>4} {worker.state:8} {rate:>7,.0f} {cpu:>5.0%} "
        text += f"{size(worker.usage.pss):>9}  "
        rows.append((keys[sort], worker.slot, text + doing(worker, now.now, width - len(text))))
    head = f"{'SLOT':>4} {'PID':>8} {'GEN':>4} {'STATE':8} {'REQ/S':>7} {'CPU':>5} {'PSS':>9}  DOING"
    shown = [text for _, _, text in sorted(rows)][:most]
    hidden = len(rows) - len(shown)
    return [head, *shown, *([f"... and {hidden} more"] if hidden else [])]
