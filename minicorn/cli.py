"""The command line: argv -> Configuration -> Settings -> arbiter; one line for a mistake, and an exit code."""

import argparse
import gc
import os
import re
import shlex
import sys
from typing import Any, NoReturn

from minicorn.config import gunicorn
from minicorn.config.settings import NAMES, OPTIONS, Kind, Layer, Settings, from_argv, render
from minicorn.errors import ConfigError, ExitCode, UsageError
from minicorn.version import VERSION

_EXAMPLES = """
examples:
  minicorn main:app --workers 4
  minicorn 'shop:create_app("production")' --bind unix:/run/shop.sock
  minicorn -c gunicorn.conf.py main:app --print-config
  minicorn minicorn.demo:app

Settings are read from minicorn.conf.py, minicorn.toml or [tool.minicorn] in pyproject.toml,
then from MINICORN_* and MINICORN_CMD_ARGS, then from the command line; HUP reads all again.
"""
# The first setting of each group of --help
_GROUPS = {
    "host": "where to listen",
    "workers": "workers and their time",
    "recv_timeout": "clients",
    "backlog": "starting and recycling",
    "forwarded_allow_ips": "proxies",
    "certfile": "TLS",
    "reload": "development",
    "chdir": "process",
    "access_logfile": "logs",
    "monitor": "figures",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, not the usage before it; with the flag that may have been meant."""
        near = ""
        if found := re.match(r"unrecognized arguments: (--[^ =]+)", message):
            near = gunicorn.nearest(found[1], [flag for flag in self._option_string_actions if flag != found[1]])
        raise UsageError(f"{message}{near} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The parser; values stay strings, `settings` converts and judges them."""
    parser = _Parser(
        prog="minicorn",
        usage="minicorn [options] APP",
        description="Serve a synchronous WSGI application with pre-forked workers.",
        epilog=_EXAMPLES,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser._positionals.title = "what to serve"
    parser.add_argument(
        "app",
        nargs="?",
        metavar="APP",
        default=argparse.SUPPRESS,
        help="module:attribute, module:factory(), module, or paste:FILE.ini (PasteDeploy)",
    )
    asked = parser.add_argument_group("configuration")
    asked.add_argument("-h", "--help", action="help", help="Show this.")
    asked.add_argument("--version", action="version", version=f"%(prog)s {VERSION}", help="Show the version.")
    asked.add_argument("-c", "--config", metavar="FILE", help="Read this file, or python:MODULE.")
    asked.add_argument(
        "--check-config",
        action="store_true",
        help="Try all that a start needs, the application too; say what is wrong.",
    )
    asked.add_argument("--print-config", action="store_true", help="Show each setting and where it came from.")
    shells = ("bash", "zsh", "fish")
    asked.add_argument("--print-completion", choices=shells, metavar="SHELL", help="For bash, zsh, fish; needs shtab.")
    _add_settings(parser)
    others = parser.add_argument_group()
    _add_hidden(others, "--paste", "--paster", dest="app", type=gunicorn.paste_app)
    taken = {flag for option in OPTIONS.values() for flag in option.flags}
    for name, foreign in gunicorn.FOREIGN.items():
        flags = [flag for flag in foreign.flags if flag not in taken]
        if flags and name not in NAMES:
            _add_hidden(others, *flags, dest=name, action="store" if foreign.takes_value else "store_true")
    return parser


def _add_hidden(parser: argparse._ActionsContainer, *flags: str, **how: Any) -> None:
    """A flag that --help does not show."""
    parser.add_argument(*flags, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **how)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    defaults = Settings()
    group = parser.add_argument_group("settings")
    for name, option in OPTIONS.items():
        if name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[name])
        default = getattr(defaults, name)
        hidden = default in (None, (), "") or option.switch or name == "access_logformat"
        shown = "" if hidden else f" (default: {option.kind.show(default)})"
        text = option.help.replace("%", "%%") + shown
        if option.switch:
            group.add_argument(
                *option.flags, dest=name, action="append_const", const="true", default=argparse.SUPPRESS, help=text
            )
            _add_hidden(group, option.off, dest=name, action="append_const", const="false")
        else:
            group.add_argument(
                *option.flags,
                dest=name,
                action="append",
                metavar=option.metavar,
                default=argparse.SUPPRESS,
                help=text,
                nargs="?" if option.bare else None,
                const=option.bare or None,
            )


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """`-w, --workers N`: the value's name once, as manual pages have it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return f"{names} {action.metavar}" if names and action.metavar else super()._format_action_invocation(action)


def _spelled_out(argv: list[str]) -> list[str]:
    """The words of a command line, in which a flag that may go without a value takes none of its neighbours."""
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
    """How the command was called: the values of its flags, and what it was asked for."""

    def __init__(self, parser: argparse.ArgumentParser, argv: list[str] | None, origin: str = "") -> None:
        given = vars(parser.parse_args(_spelled_out(sys.argv[1:] if argv is None else argv)))
        self.config: str | None = given.pop("config")
        self.check: bool = given.pop("check_config")
        self.print: bool = given.pop("print_config")
        self.completion: str | None = given.pop("print_completion")
        if "app" in given:
            given["app"] = [given["app"]]
        for name in [name for name in given if name in gunicorn.FOREIGN and name not in NAMES]:
            try:
                gunicorn.judge(name, given.pop(name), "/".join(gunicorn.FOREIGN[name].flags))
            except ConfigError as error:
                raise UsageError(f"{origin}: {error}" if origin else str(error)) from None
        self.layer: Layer = from_argv(given, origin)


def _from_variable(parser: argparse.ArgumentParser, name: str) -> _Called:
    try:
        return _Called(parser, shlex.split(os.environ.get(name, "")), name)
    except UsageError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(name) else f"{name}: {text}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _complete(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that makes `shell` complete our flags."""
    try:
        import shtab
    except ImportError:
        raise ConfigError("--print-completion needs shtab: pip install shtab") from None
    places = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for action in parser._actions:
        if action.dest in OPTIONS and (words := OPTIONS[action.dest].kind.words):
            action.choices = words
        elif action.metavar in places:
            action.complete = places[action.metavar]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    if os.name == "nt":
        print("minicorn: error: it forks, which Windows cannot; use WSL", file=sys.stderr)
        return ExitCode.CONFIG
    gc.disable()
    from minicorn import app
    from minicorn.config import configuration  # they need a POSIX system
    from minicorn.system.spawn import leave

    gc.freeze()  # what has been imported stays: no collection need look at it, here or in a worker
    gc.enable()

    try:
        parser = build_parser()
        called = _Called(parser, argv)
        if called.completion:
            print(_complete(parser, called.completion))
            return ExitCode.OK
        theirs, ours = _from_variable(parser, "GUNICORN_CMD_ARGS"), _from_variable(parser, "MINICORN_CMD_ARGS")
        config = configuration.from_environment(
            (theirs.layer, ours.layer, called.layer),
            called.config or ours.config or theirs.config,
            app.logical_directory(),
        )
        outcome = config.read()
        if called.print:
            print(render(outcome))
            return ExitCode.OK
        if not outcome.settings.app:
            raise UsageError("the following arguments are required: APP (see minicorn --help)")
        if called.check:
            return app.check(outcome.settings)
        code = app.run_arbiter(outcome.settings, config)
    except ConfigError as error:
        print(f"minicorn: error: {error}", file=sys.stderr)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.CONFIG
    except KeyboardInterrupt:
        return 130  # while the file was read; 128 + SIGINT, as a shell has it
    # The interpreter's own end would let a second TERM kill us with another exit code
    leave(code)
