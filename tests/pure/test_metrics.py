"""What Prometheus reads and statsd is sent, from made-up snapshots; the dashboard that reads it."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minicorn.figures.counters import ACCEPTED, BOUNDS, GIVEN, NOTHING, RECEIVED, REFUSED, ROWS, SENT, TOOK, Counters
from minicorn.figures.metrics import NAMES, render
from minicorn.figures.snapshot import Condition, QueueView, Snapshot, Usage, WorkerView
from minicorn.figures.statsd import DATAGRAM_MOST, datagrams
from minicorn.pool.rolls import Ending, Rolled
from minicorn.pool.standing import Listening, Stage, Standing
from minicorn.record import replace

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def served(count: int, status: str = "2") -> Counters:
    values = list(NOTHING.values)
    values[ROWS[status] + 5] = count
    values[TOOK] = count * 0.25
    return Counters(tuple(values))


@pytest.fixture
def snapshot() -> Snapshot:
    standing = Standing(
        pid=7,
        version="1.2",
        app='odd"app\\with\nall',
        listeners=(Listening("unix:/run/x", 1),),
        started=50.0,
        stage=Stage.SERVING,
        size=2,
        generation=2,
        rolled=Rolled(3, 1, Ending.FAILED),
        rolled_at=900.5,
        exits={"timeout": 2, "retired": 4},
    )
    workers = tuple(
        WorkerView(slot, 100 + slot, 2, state, 40.0, 99.0, "GET /", "", 3, served(10), None, Usage(1.5, 2000, 1000))
        for slot, state in ((1, Condition.IDLE), (2, Condition.BUSY))
    )
    queues = (QueueView("unix:/run/x", 4, 2048),)
    return Snapshot(100.0, 99.5, standing, workers, served(5, "5"), Usage(2.0, 500, 400), queues)


def series(text: str) -> dict[str, float]:
    """All samples, by name and labels, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}"] = each.value
    return found


def test_prometheus_reads_what_the_snapshot_says(snapshot: Snapshot) -> None:
    read = series(render(snapshot, 1000.0))
    assert read['minicorn_info{app=odd"app\\with\nall,version=1.2}'] == 1
    assert read["minicorn_requests_total{status=2xx}"] == 20
    assert read["minicorn_requests_total{status=5xx}"] == 5
    assert read["minicorn_workers{state=busy}"] == read["minicorn_requests_in_flight{}"] == 1
    assert read["minicorn_worker_exits_total{cause=timeout}"] == 2
    assert read["minicorn_cpu_seconds_total{}"] == 5.0
    assert read["minicorn_start_time_seconds{}"] == 950.0
    assert (read["minicorn_last_roll_success{}"], read["minicorn_last_roll_timestamp_seconds{}"]) == (0, 900.5)
    assert read["minicorn_accept_queue_connections{listener=unix:/run/x}"] == 4
    assert read["minicorn_connections_open{}"] == 6
    assert read["minicorn_worker_proportional_memory_bytes{slot=2}"] == 1000


def test_a_histogram_is_cumulative_and_ends_with_all(snapshot: Snapshot) -> None:
    read = series(render(snapshot, 1000.0))
    counts = [read[f"minicorn_request_duration_seconds_bucket{{le={bound}}}"] for bound in [*map(str, BOUNDS), "+Inf"]]
    assert counts == sorted(counts)
    assert counts[4] == 0 and counts[5] == counts[-1] == 25
    assert read["minicorn_request_duration_seconds_count{}"] == 25
    assert read["minicorn_request_duration_seconds_sum{}"] == 6.25


def test_every_family_is_rendered_with_its_type_and_help(snapshot: Snapshot) -> None:
    families = {family.name: family for family in text_string_to_metric_families(render(snapshot, 1000.0))}
    # Its parser takes _total off the names of counters
    assert set(families) == {name.removesuffix("_total") for name in NAMES}
    for name, metric in NAMES.items():
        assert (families[name.removesuffix("_total")].type, name.endswith("_total")) == (
            metric.kind,
            metric.kind == "counter",
        )
        assert families[name.removesuffix("_total")].documentation == metric.help


def test_names_follow_the_conventions() -> None:
    for name, metric in NAMES.items():
        assert re.fullmatch(r"minicorn_[a-z_]+", name)
        assert not re.search(r"milli|micro|_ms|_kb|_mb|percent", name)
        assert metric.help.endswith(".")


def test_nothing_is_said_of_a_roll_that_has_not_been(snapshot: Snapshot) -> None:
    read = series(render(replace(snapshot, standing=replace(snapshot.standing, rolled=None)), 1000.0))
    assert not [name for name in read if "last_roll" in name]


def family_of(series: str) -> str | None:
    """The family in NAMES that a series' name belongs to, or None."""
    families = {name: rf"{name}_(bucket|sum|count)" if NAMES[name].kind == "histogram" else name for name in NAMES}
    return next((name for name, pattern in families.items() if re.fullmatch(pattern, series)), None)


def test_the_dashboard_uses_names_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [each["query"] for each in dashboard["templating"]["list"]]
    expressions += [query["query"] for query in queries if isinstance(query, dict)]
    used = {name for expression in expressions for name in re.findall(r"minicorn_\w+", expression)}
    assert used and {name for name in used if family_of(name) is None} == set()
    missing = set(NAMES) - {family_of(name) for name in used}
    # The resident one tells of shared pages again in each worker; whoever wants it can ask for it
    assert missing == {"minicorn_rolling", "minicorn_upgrades_total", "minicorn_worker_resident_memory_bytes"}


# statsd


def lines(before: Snapshot, after: Snapshot, prefix: str = "", tags: str = "") -> list[str]:
    return [line for data in datagrams(before, after, prefix, tags) for line in data.decode().split("\n")]


def test_statsd_is_sent_what_was_added_and_how_things_are(snapshot: Snapshot) -> None:
    later = replace(
        snapshot,
        now=101.0,
        gone=snapshot.gone + served(3, "5"),
        standing=replace(snapshot.standing, exits={"timeout": 3, "retired": 4}),
    )
    sent = lines(snapshot, later)
    assert {"requests:3|c", "request.status.5xx:3|c", "worker.exits.timeout:1|c"} <= set(sent)
    assert {"workers:2|g", "workers.busy:1|g", "connections.open:6|g"} <= set(sent)
    assert [line for line in sent if line.startswith("request.duration.p95:")]
    assert not [line for line in sent if "2xx" in line or "retired" in line]


def test_statsd_has_a_name_for_each_figure(snapshot: Snapshot) -> None:
    """Dashboards have them too."""
    moved = {RECEIVED: 1, SENT: 2, ACCEPTED: 3, GIVEN: 4, REFUSED: 5}
    gone = Counters(tuple(moved.get(place, value) for place, value in enumerate(NOTHING.values)))
    sent = lines(snapshot, replace(snapshot, gone=snapshot.gone + gone + served(1, "2")))
    assert [re.sub(r"(duration\S+):[\d.]+", r"\1", line) for line in sent] == [
        "requests:1|c",
        "requests.refused:5|c",
        "connections:3|c",
        "handoffs:4|c",
        "bytes.received:1|c",
        "bytes.sent:2|c",
        "request.status.2xx:1|c",
        "workers:2|g",
        "workers.busy:1|g",
        "workers.idle:1|g",
        "connections.open:6|g",
        "request.duration.p50|g",
        "request.duration.p95|g",
        "request.duration.p99|g",
    ]


def test_prefix_and_tags_are_on_each_line(snapshot: Snapshot) -> None:
    for prefix in ("shop", "shop."):
        sent = lines(snapshot, snapshot, prefix, "env:prod,team:a")
        assert sent and all(line.startswith(("shop.w", "shop.c")) for line in sent)
        assert all(line.endswith("|g|#env:prod,team:a") for line in sent)


def test_a_datagram_fits_in_a_frame(snapshot: Snapshot) -> None:
    later = replace(snapshot, gone=snapshot.gone + served(3, "5"))
    sent = datagrams(snapshot, later, "a" * 300, "")
    assert len(sent) > 1
    assert max(map(len, sent)) <= DATAGRAM_MOST
