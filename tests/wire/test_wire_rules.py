"""Each rule of the table has a test, and that test is collected."""

import ast
from functools import cache
from pathlib import Path

import pytest
from rules import RULES, Rule
from test_wire_semantics import PASSING

TESTS = Path(__file__).parents[1]


@cache
def collected() -> set[str]:
    """The tests at the top of each file, as pytest collects them."""
    found = set()
    for path in TESTS.glob("*/test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem}::{node.name}")
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rfc} {rule.section} {rule.says[:40]}")
def test_a_rule_names_a_test_that_is_collected(rule: Rule) -> None:
    assert rule.test in collected()
    assert rule.level in ("MUST", "SHOULD", "MAY", "ought")
    assert rule.says and rule.does


def test_what_is_read_from_the_source_is_what_pytest_collects(request: pytest.FixtureRequest) -> None:
    """Of the files of this run, whichever they are."""
    run = {f"{item.path.stem}::{getattr(item, 'originalname', '')}" for item in request.session.items}
    here = {name for name in collected() if name.split("::")[0] == Path(__file__).stem}
    assert here <= run | {f"{Path(__file__).stem}::{request.node.originalname}"}
    assert {name for name in run if name.split("::")[0] in {test.split("::")[0] for test in collected()}} <= collected()


# Of each RFC, the sections that bind an origin server, or any sender or recipient
SECTIONS = {
    9112: "2.2 2.3 3 3.2 3.2.1 3.2.2 3.2.3 3.2.4 3.3 4 5 5.1 5.2 6 6.1 6.2 6.3 7.1 7.1.1 7.1.2 7.1.3 7.2 7.4 8 "
    "9.2 9.3 9.3.2 9.4 9.5 9.6 9.7 9.8 10.1 11.1 11.2 11.3",
    9110: "2.2 2.3 3.3 4.1 4.2.1 4.2.2 4.2.3 4.2.4 4.3.3 5.1 5.3 5.4 5.5 5.6.1.1 5.6.1.2 5.6.3 5.6.4 5.6.7 6.2 6.4.1 "
    "6.5.1 6.6.1 7.2 7.4 7.6.1 7.8 8.6 9.1 9.3.2 9.3.6 10.1.1 10.2.4 15 15.2 15.3.6 15.4.5 15.5.9 15.5.14 15.6.4 "
    "15.6.6 17.3 17.4 17.5 17.6 17.10 17.12 17.15",
    3986: "2.1 2.2 2.3 2.4 3.1 3.2 3.2.1 3.2.2 3.2.3 3.3 3.4 3.5 6.2.2.1 6.2.2.3 6.2.3 7.3",
}


@pytest.mark.parametrize("rfc", SECTIONS)
def test_every_section_that_binds_us_is_in_the_table(rfc: int) -> None:
    assert not set(SECTIONS[rfc].split()) - {rule.section for rule in RULES if rule.rfc == rfc}


def test_every_section_that_is_the_applications_is_tried() -> None:
    """With fields and statuses of its own, and each that is tried is in the table."""
    passing = {rule.section for rule in RULES if rule.does.startswith("the application's") and "semantics" in rule.test}
    assert passing == set(PASSING)
