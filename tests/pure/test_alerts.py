"""What Prometheus and KEDA are told to look at exists."""

import re
from pathlib import Path

import pytest

from minicorn.figures.metrics import NAMES

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["prometheus/alerts.yml", "kubernetes/keda.yaml"])
def test_the_metrics_that_are_asked_for_are_shown(name: str) -> None:
    asked = set(re.findall(r"\bminicorn_\w+", (DEPLOY / name).read_text()))
    assert asked
    assert asked <= set(NAMES)
