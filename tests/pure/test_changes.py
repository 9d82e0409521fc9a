"""What counts as an edit of what counts as a file, and how many edits are one roll."""

import pytest

from minicorn.reload.changes import REST_MANY, REST_MOST, REST_ONE, Changes, Filter, Fingerprint, describe

ROOT = "/srv/site"


@pytest.mark.parametrize("path", ["main.py", "shop/views.py", "shop/env_tools/x.py", "a b/ü.py", "distance/build.py"])
def test_sources_count(path: str) -> None:
    assert Filter().covers(f"{ROOT}/{path}", [ROOT])


EXCLUDED = [
    "__pycache__",
    ".git",
    ".svn",
    ".hg",
    "venv",
    ".venv",
    "env",
    ".env",
    "node_modules",
    ".tox",
    ".nox",
    ".eggs",
    "minicorn.egg-info",
    "dist",
    "build",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
]


@pytest.mark.parametrize("directory", EXCLUDED)
def test_what_lies_where_nobody_edits_does_not_count(directory: str) -> None:
    assert not Filter().covers(f"{ROOT}/{directory}/main.py", [ROOT])
    assert not Filter().covers(f"{ROOT}/shop/{directory}/deep/main.py", [ROOT])


@pytest.mark.parametrize(
    "name", ["main.pyc", "notes.txt", "main.py~", ".main.py.swp", "#main.py#", ".#main.py", "x.log"]
)
def test_logs_caches_and_editors_files_do_not_count(name: str) -> None:
    assert not Filter().covers(f"{ROOT}/{name}", [ROOT])


def test_a_root_is_entered_whatever_it_is_called() -> None:
    assert Filter().covers("/home/me/build/main.py", ["/home/me/build"])


def test_what_is_outside_all_roots_does_not_count() -> None:
    assert not Filter().covers("/srv/other/main.py", [ROOT])
    assert not Filter().covers("/srv/site2/main.py", [ROOT])


def test_include_replaces_and_exclude_takes_away() -> None:
    chosen = Filter(include=["*.html", "*.py"], exclude=["test_*", f"{ROOT}/gen/"])
    assert chosen.covers(f"{ROOT}/page.html", [ROOT])
    assert not chosen.covers(f"{ROOT}/test_x.py", [ROOT])
    assert not chosen.covers(f"{ROOT}/gen/x.py", [ROOT])
    assert not chosen.covers(f"{ROOT}/gen/deep/x.py", [ROOT]) and not chosen.enters(f"{ROOT}/gen/deep")
    assert not chosen.covers(f"{ROOT}/shop/test_data/x.py", [ROOT])
    assert not Filter(exclude=[f"{ROOT}/main.py"]).covers(f"{ROOT}/main.py", [ROOT])
    assert not Filter(include=["*.html"]).covers(f"{ROOT}/main.py", [ROOT])


def test_an_extra_file_counts_wherever_it_is() -> None:
    assert Filter(extra=["/etc/site.conf"]).covers("/etc/site.conf", [ROOT])
    assert Filter(extra=[f"{ROOT}/.env"]).covers(f"{ROOT}/.env", [ROOT])
    assert Filter(extra=[f"{ROOT}/.env"]).wants(f"{ROOT}/.env")


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        (Fingerprint(5, 1, "a"), Fingerprint(5, 2, "a"), False),  # touch
        (Fingerprint(5, 2, "a"), Fingerprint(5, 1, "b"), True),  # replaced by an older file
        (Fingerprint(5, 1, "a"), Fingerprint(6, 1, "a"), True),
        (Fingerprint(5, 1), Fingerprint(5, 1, "a"), False),  # not read before
        (Fingerprint(5, 1), Fingerprint(5, 2, "a"), True),
    ],
)
def test_contents_decide_where_they_are_known(before: Fingerprint, after: Fingerprint, differs: bool) -> None:
    assert before.differs(after) is differs
    assert after.differs(before) is differs


def test_changes_are_told_in_one_line() -> None:
    assert describe({"b.py": "modified", "a.py": "modified"}) == "Detected modified: a.py, b.py"
    assert describe({"a.py": "deleted", "b.py": "created"}) == "Detected created: b.py; deleted: a.py"
    few = {f"{number}.py": "modified" for number in range(4)}
    assert describe(few) == "Detected modified: 0.py, 1.py, 2.py and 1 more"
    assert describe(dict.fromkeys(list(few)[:3], "modified")) == "Detected modified: 0.py, 1.py, 2.py"
    many = {f"{number}.py": "modified" for number in range(50)}
    assert describe(many) == "Detected modified: 0.py, 1.py, 10.py and 47 more"


def test_one_file_waits_least_and_a_burst_is_one_roll() -> None:
    changes = Changes()
    changes.note({"a.py": "modified"}, 10.0)
    assert changes.wake_at == pytest.approx(10 + REST_ONE)
    assert not changes.take(10.0)
    for number in range(50):
        changes.note({f"{number}.py": "modified"}, 10.01 + number / 100)
    assert not changes.take(10.6)
    assert changes.take(10.51 + REST_MANY).endswith("and 48 more")
    assert not changes.take(100.0)


def test_changes_without_end_are_taken_up_at_last() -> None:
    changes = Changes()
    taken = 0
    for step in range(1000):
        now = step / 100
        changes.note({f"{step}.py": "modified"}, now)
        taken += bool(changes.take(now))
    assert taken == pytest.approx(10 / REST_MOST, abs=1)
