"""What Prometheus and KEDA are told to look at exists."""

import re
from pathlib import Path

import pytest
import yaml

from minicorn.metrics import NAMES

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["prometheus/alerts.yml", "kubernetes/keda.yaml"])
def test_the_metrics_that_are_asked_for_are_shown(name: str) -> None:
    asked = set(re.findall(r"\bminicorn_\w+", (DEPLOY / name).read_text()))
    assert asked
    assert asked <= set(NAMES)


def test_each_alert_says_what_is_wrong() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["expr"] and rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


def test_the_rules_are_loaded_by_the_scrape_configuration() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    assert [job["job_name"] for job in scrape["scrape_configs"]] == ["minicorn"]
