"""The command line: argv -> Configuration -> Settings -> arbiter; one line for a mistake, and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable

from minicorn.config import gunicorn
from minicorn.config.kinds import Kind
from minicorn.config.layers import Layer, from_argv, render
from minicorn.config.settings import NAMES, OPTIONS
from minicorn.errors import ConfigError, ExitCode, UsageError
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# By flag, its setting and, for a switch, the value that it stands for; but for flags whose value may be left out
_PLAIN = {name: option for name, option in OPTIONS.items() if not option.bare}
_FLAGS = {flag: (name, "true" if option.switch else "") for name, option in _PLAIN.items() for flag in option.flags}
_FLAGS |= {option.off: (name, "false") for name, option in _PLAIN.items() if option.switch}


def read_plain(argv: Iterable[str]) -> dict[str, Any] | None:
    """Read plain flags into values by setting, as `argparse` would: APP and flags of the table, with their values.

    None for anything else, mistakes among it. It spares most starts the import of `argparse`, and
    the making of a parser.
    """
    given: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if word and not word.startswith("-") and "app" not in given:
            given["app"] = word
            continue
        if flag not in _FLAGS:
            return None
        name, says = _FLAGS[flag]
        if not equals:
            value = says or next(words, "--")
        elif says:
            return None
        if value.startswith("-") and value != "-":
            return None
        given.setdefault(name, []).append(value)
    return given


def _spelled_out(argv: list[str]) -> list[str]:
    """The words of a command line, in which each flag that was given without its value has it now."""
    bare = {flag: option for option in OPTIONS.values() if option.bare for flag in option.flags}
    words = argv.copy()
    for place, (word, after) in enumerate(zip(argv, [*argv[1:], ""], strict=False)):
        if word in bare and not _fits(bare[word].kind, after):
            words[place] = f"{word}={bare[word].bare}"
    return words


def _fits(kind: Kind[object], text: str) -> bool:
    try:
        kind.parse(text)
    except ValueError:
        return False
    return True


class _Called:
    """How the command was called: the layer of its flags, and what else it was asked for."""

    def __init__(self, argv: list[str], origin: str = "") -> None:
        given = read_plain(argv)
        if given is None:
            from minicorn.parser import build_parser

            given = vars(build_parser().parse_args(_spelled_out(argv)))
        self.config: str | None = given.pop("config", None)
        self.check: bool = given.pop("check_config", False)
        self.print: bool = given.pop("print_config", False)
        self.completion: str | None = given.pop("print_completion", None)
        if "app" in given:
            given["app"] = [given["app"]]
        for name in [name for name in given if name in gunicorn.FOREIGN and name not in NAMES]:
            try:
                gunicorn.judge(name, given.pop(name), "/".join(gunicorn.FOREIGN[name].flags))
            except ConfigError as error:
                raise UsageError(f"{origin}: {error}" if origin else str(error)) from None
        self.layer: Layer = from_argv(given, origin)


def _split(text: str) -> list[str]:
    import shlex  # not before a variable is set

    return shlex.split(text)


def _from_variable(name: str) -> _Called:
    words = os.environ.get(name, "")
    try:
        return _Called(_split(words) if words else [], name)
    except UsageError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(name) else f"{name}: {text}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _complete(shell: str) -> str:
    """A script that makes `shell` complete our flags."""
    from minicorn.parser import build_parser

    try:
        import shtab
    except ImportError:
        raise ConfigError("--print-completion needs shtab: pip install shtab") from None
    parser = build_parser()
    places = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for action in parser._actions:
        if action.dest in OPTIONS and (words := OPTIONS[action.dest].kind.words):
            action.choices = words
        elif action.metavar in places:
            action.complete = places[action.metavar]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)


def _show(text: str) -> None:
    """Print what was asked for; ConfigError where that cannot be."""
    try:
        print(text, flush=True)
    except OSError as error:
        sys.stdout = None  # the interpreter's end must not try again
        raise ConfigError(f"cannot write it: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    if os.name == "nt":
        print("minicorn: error: it forks, which Windows cannot; use WSL", file=sys.stderr)
        return ExitCode.CONFIG
    from minicorn import app
    from minicorn.arbiter import succession
    from minicorn.config import configuration  # they need a POSIX system
    from minicorn.system.spawn import leave
    from minicorn.system.surroundings import logical_directory

    gc.freeze()  # what has been imported stays: no collection need look at it, here or in a worker
    gc.enable()

    try:
        called = _Called(sys.argv[1:] if argv is None else argv)
        if called.completion:
            _show(_complete(called.completion))
            return ExitCode.OK
        theirs, ours = _from_variable("GUNICORN_CMD_ARGS"), _from_variable("MINICORN_CMD_ARGS")
        config = configuration.from_environment(
            (theirs.layer, ours.layer, called.layer),
            called.config or ours.config or theirs.config,
            logical_directory(),
        )
        outcome = succession.read(config)
        if called.print:
            _show(render(outcome))
            return ExitCode.OK
        if not outcome.settings.app:
            raise UsageError("APP is missing: a module and what is in it, such as main:app (see minicorn --help)")
        if called.check:
            return app.check(outcome.settings)
        code = app.run_arbiter(outcome.settings, config)
    except ConfigError as error:
        print(f"minicorn: error: {error}", file=sys.stderr)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.CONFIG
    # The interpreter's own end would let a second TERM kill us with another exit code
    leave(code)
