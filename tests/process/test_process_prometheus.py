"""`deploy/prometheus`, `deploy/grafana.json` and KEDA's query: by a real Prometheus that scrapes a real monitor."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import CHECKOUT, Starter, free_port, wait_until

DEPLOY = CHECKOUT / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="NOT TESTED: prometheus is not installed")
# The series of an alert, a sample a minute, and when it is to fire
FIRING = {
    "MinicornNotReady": ({"minicorn_ready": "1 0x10"}, "3m"),
    "MinicornRollFailed": ({"minicorn_last_roll_success": "1 0x10"}, "1m"),
    "MinicornSaturated": ({"minicorn_requests_in_flight": "4x20", "minicorn_workers_wanted": "4x20"}, "12m"),
    "MinicornQueueFull": ({"minicorn_accept_queue_connections": "90x9", "minicorn_accept_queue_limit": "100x9"}, "3m"),
    "MinicornWorkersDie": ({'minicorn_worker_exits_total{cause="oom"}': "0+1x20"}, "10m"),
}
WELL = {
    "minicorn_ready": "1x60",
    "minicorn_last_roll_success": "1x60",
    "minicorn_requests_in_flight": "2x60",
    "minicorn_workers_wanted": "4x60",
    "minicorn_accept_queue_connections": "10x60",
    "minicorn_accept_queue_limit": "100x60",
    'minicorn_worker_exits_total{cause="retired"}': "0+4x60",
    'minicorn_worker_exits_total{cause="oom"}': "1x60",
    'up{job="minicorn"}': "1x60",
}


def promtool(*words: str | Path, text: str | None = None) -> None:
    done = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


def write_case(folder: Path, series: dict[str, str], at: str, firing: dict[str, int]) -> Path:
    """A test of the rules: how many alerts of each name fire."""
    case = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": at,
                        "exp_samples": [{"labels": "{}", "value": firing.get(name, 0)}],
                    }
                    for name in FIRING
                ],
            }
        ],
    }
    (folder / "case.yml").write_text(yaml.safe_dump(case))
    return folder / "case.yml"


def test_the_scrape_configuration_and_its_rules_are_right() -> None:
    promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")


@pytest.mark.parametrize("name", FIRING)
def test_an_alert_fires(name: str, tmp_path: Path) -> None:
    series, at = FIRING[name]
    promtool("test", "rules", write_case(tmp_path, series, at, {name: 1}))


def test_no_alert_fires_while_all_is_well(tmp_path: Path) -> None:
    promtool("test", "rules", write_case(tmp_path, WELL, "1h", {}))


class Prometheus:
    """One that scrapes `monitor` with the configuration of `deploy/`, faster."""

    def __init__(self, folder: Path, monitor: int) -> None:
        text = (DEPLOY / "prometheus/prometheus.yml").read_text()
        for there, here in (('"127.0.0.1:9100"', f'"127.0.0.1:{monitor}"'), ("15s", "1s"), ("alerts.yml", str(RULES))):
            assert text.count(there) == 1
            text = text.replace(there, here)
        (folder / "prometheus.yml").write_text(text)
        self._address = f"127.0.0.1:{free_port()}"
        flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        flags.append(f"--web.listen-address={self._address}")
        self._process = subprocess.Popen(["prometheus", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, query: str) -> list[dict[str, object]]:
        """The series that a query has now; none while Prometheus begins."""
        words = urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(f"http://{self._address}/api/v1/query?{words}", timeout=15) as reply:
                return list(json.load(reply)["data"]["result"])
        except ConnectionError:
            return []
        except OSError as error:
            assert "refused" in str(error) or "503" in str(error), f"{query}: {error}"
            return []

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(15)


@pytest.fixture
def prometheus(start: Starter) -> Iterator[Prometheus]:
    server = start("plain:app", "--monitor", "127.0.0.1:0")
    monitor = int(server.wait_log(r"Monitor on http://127\.0\.0\.1:(\d+)")[1])
    promtool("check", "metrics", text=server.get("/metrics", at=monitor).text)
    server.hup()
    prometheus = Prometheus(start.cwd, monitor)
    yield prometheus
    prometheus.end()


@pytest.mark.slow
def test_whatever_is_asked_for_has_an_answer(prometheus: Prometheus) -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    keda = yaml.safe_load((DEPLOY / "kubernetes/keda.yaml").read_text())
    asked += [re.sub(r"\{.*\}", "", trigger["metadata"]["query"]) for trigger in keda["spec"]["triggers"]]
    for expression in asked:
        expression = expression.replace("$instance", ".*").replace("$__rate_interval", "10s")
        wait_until(lambda it=expression: prometheus.ask(it), f"{expression} has an answer")
    assert prometheus.ask('ALERTS{alertstate="firing"}') == []
