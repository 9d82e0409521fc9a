"""Plain flags are read as argparse would, and what is not plain is left to it."""

from hypothesis import given
from hypothesis import strategies as st

from minicorn.cli import read_plain
from minicorn.config.settings import OPTIONS
from minicorn.errors import UsageError
from minicorn.parser import build_parser

PARSER = build_parser()
FLAGS = [flag for option in OPTIONS.values() for flag in option.flags]
OFF = [option.off for option in OPTIONS.values() if option.switch]
VALUES = ["m:app", "4", "-", "", "-1", "--", "-x y", "a=b", "--no", "/tmp/x", "30 s"]
ODD = ["-h", "--version", "-c", "-w4", "-w=4", "--work", "--workers", "--threads", "--paste", "-k", "--print-config"]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(FLAGS + OFF).flatmap(lambda flag: st.sampled_from(VALUES).map(lambda value: f"{flag}={value}")),
    st.sampled_from(OFF + VALUES + ODD),
)
PAIRS = st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)).map(list)


@given(st.lists(st.one_of(PAIRS, WORDS.map(lambda word: [word])), max_size=6))
def test_what_is_plain_is_read_as_argparse_does(parts: list[list[str]]) -> None:
    argv = [word for part in parts for word in part]
    plain = read_plain(argv)
    if plain is None:
        return
    try:
        said = vars(PARSER.parse_args(argv))
    except (UsageError, SystemExit) as error:
        raise AssertionError(f"argparse refuses {argv}, of which was read {plain}") from error
    assert {name: value for name, value in said.items() if value not in (None, False)} == plain


def test_the_usual_needs_no_argparse() -> None:
    argv = ["main:app", "-b", ":80", "--bind=unix:/x", "--preload", "--no-sendfile", "-w", "4", "--access-logfile", "-"]
    assert read_plain(argv) == {
        "app": "main:app",
        "bind": [":80", "unix:/x"],
        "preload": ["true"],
        "sendfile": ["false"],
        "workers": ["4"],
        "access_logfile": ["-"],
    }


def test_help_mistakes_and_rare_spellings_are_left_to_argparse() -> None:
    for argv in (["-h"], ["--nope"], ["-w4"], ["a", "b"], ["--bind"], ["--bind", "--preload"], ["--preload=1"], ["-"]):
        assert read_plain(argv) is None, argv
