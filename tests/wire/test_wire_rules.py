"""Each rule of the table has a test, and that test is collected."""

import ast
from pathlib import Path

import pytest
from rules import RULES, Rule

TESTS = Path(__file__).parents[1]


def collected() -> set[str]:
    """The tests at the top of each file, as pytest collects them."""
    found = set()
    for path in TESTS.glob("*/test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem}::{node.name}")
    return found


COLLECTED = collected()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rfc} {rule.section} {rule.says[:40]}")
def test_a_rule_names_a_test_that_is_collected(rule: Rule) -> None:
    assert rule.test in COLLECTED
    assert rule.level in ("MUST", "SHOULD", "MAY", "ought")
    assert rule.says and rule.does


def test_what_is_read_from_the_source_is_what_pytest_collects(request: pytest.FixtureRequest) -> None:
    """Of the files of this run, whichever they are."""
    run = {f"{item.path.stem}::{getattr(item, 'originalname', '')}" for item in request.session.items}
    here = {name for name in COLLECTED if name.split("::")[0] == Path(__file__).stem}
    assert here <= run | {f"{Path(__file__).stem}::{request.node.originalname}"}
    assert {name for name in run if name.split("::")[0] in {test.split("::")[0] for test in COLLECTED}} <= COLLECTED


def test_every_section_on_framing_is_in_the_table() -> None:
    wanted = {"2.2", "2.3", "3", "3.2", "3.2.1", "3.2.2", "3.2.3", "3.2.4", "3.3", "4", "5", "5.1", "5.2", "6", "6.1"}
    wanted |= {
        "6.2",
        "6.3",
        "7.1",
        "7.1.1",
        "7.1.2",
        "7.1.3",
        "7.2",
        "7.4",
        "8",
        "9.2",
        "9.3",
        "9.3.2",
        "9.4",
        "9.5",
        "9.6",
    }
    assert {rule.section for rule in RULES if rule.rfc == 9112} >= wanted
