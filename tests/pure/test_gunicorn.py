"""The table for those who come from gunicorn, held against the installed gunicorn's own list of settings."""

import re
import shlex
from pathlib import Path

import gunicorn.config
import pytest

from minicorn import gunicorn as foreign
from minicorn.cli import build_parser, main
from minicorn.errors import ConfigError
from minicorn.settings import NAMES, Given, from_argv, from_values, settle

TABLE = Path(__file__).parents[2] / "deploy" / "from-gunicorn.md"
ROWS = dict(re.findall(r"^\| `(\w+)` \| (same|different|not here) \|", TABLE.read_text(), re.MULTILINE))
THEIRS = {setting.name: setting for setting in gunicorn.config.KNOWN_SETTINGS}
ACTIONS = {"config", "check_config", "print_config"}  # the command's, no settings

# For each row that says "same": a value on the command line, and in a file
SAME = {
    "ca_certs": ("ca.pem", "ca.pem"),
    "ciphers": ("ECDHE", "ECDHE"),
    "graceful_timeout": ("7", 7),
    "initgroups": (None, True),
    "limit_request_fields": ("50", 50),
    "loglevel": ("debug", "debug"),
    "proc_name": ("shop", "shop"),
    "pythonpath": ("/srv/a,/srv/b", "/srv/a,/srv/b"),
    "raw_env": ("A=1", ["A=1"]),
    "reuse_port": (None, True),
    "workers": ("3", 3),
}
BY_FILE_ALONE = {"wsgi_app"}


def test_the_table_has_every_setting_of_gunicorn_and_no_other() -> None:
    assert set(ROWS) == set(THEIRS)


@pytest.mark.parametrize("name", sorted(set(ROWS) - ACTIONS))
def test_a_row_says_what_is_so(name: str) -> None:
    here = name in NAMES or name in foreign.HOOKS or name == "paste"  # which stands for APP
    assert (ROWS[name] != "not here") == here
    assert here or name in foreign.FOREIGN


def test_every_same_row_is_tried() -> None:
    same = {name for name, kind in ROWS.items() if kind == "same"} - BY_FILE_ALONE
    assert same - set(foreign.HOOKS) == set(SAME)


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("flag", [0, -1])
def test_a_same_row_means_the_same_by_flag_and_in_a_file(name: str, flag: int) -> None:
    text, value = SAME[name]
    theirs = THEIRS[name]
    argv = [theirs.cli[flag]] + ([text] if text is not None else [])
    given = vars(build_parser().parse_args([*argv, "m:app"]))
    field = NAMES[name]
    by_flag = settle([from_argv({field: given[field]})], {}).settings
    by_file = settle([from_values("gunicorn.conf.py", {name: value})], {}).settings
    assert getattr(by_flag, field) == getattr(by_file, field)
    assert getattr(by_flag, field) != getattr(settle([], {}).settings, field)


@pytest.mark.parametrize("name", sorted(set(ROWS) - ACTIONS))
def test_gunicorns_flags_are_all_known(name: str) -> None:
    parser = build_parser()
    for flag in THEIRS[name].cli or ():
        assert flag in parser._option_string_actions, flag


@pytest.mark.parametrize("name", sorted(foreign.FOREIGN))
def test_what_is_foreign_is_harmless_or_refused_with_advice(name: str) -> None:
    if name in NAMES:
        return
    entry = foreign.FOREIGN[name]
    foreign.judge(name, entry.harmless[0] if entry.harmless else "", "x") if entry.harmless != () else None
    if entry.harmless is not None:
        with pytest.raises(ConfigError, match=re.escape(entry.advice)):
            foreign.judge(name, "something else", f"gunicorn.conf.py: {name}")


def test_gunicorns_defaults_are_all_taken() -> None:
    """Whoever writes out what gunicorn does anyway is not refused."""
    for name, kind in ROWS.items():
        default = THEIRS[name].default
        if kind == "not here" and not callable(default) and name not in ("secure_scheme_headers", "cert_reqs"):
            foreign.judge(name, default, name)


def test_a_procfiles_flags_are_read_as_a_shell_gives_them() -> None:
    line = "-w 4 -b 0.0.0.0:$PORT --log-file - --access-logfile=- -k sync --threads 1 shop.wsgi"
    given = vars(build_parser().parse_args(shlex.split(line.replace("$PORT", "5000"))))
    settings = settle([from_argv({name: given[name] for name in ("workers", "bind", "error_logfile")})], {}).settings
    assert (settings.workers, settings.error_logfile) == (4, "-")
    assert given["app"] == "shop.wsgi"


def test_a_layer_above_wins_and_one_below_is_still_judged() -> None:
    below, above = {"workers": Given(("none",), "below")}, {"workers": Given(("2",), "above")}
    with pytest.raises(ConfigError, match="below"):
        settle([below, above], {})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    assert "graceful-timeout" in capsys.readouterr().out
