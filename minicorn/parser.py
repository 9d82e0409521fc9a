"""The command line's parser: `argparse`, from the table of settings, with `--help` in groups.

It is imported where it is needed: for help, for mistakes, for what is rarely written. Plain flags
are read without it, by `cli`.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from minicorn.config import gunicorn
from minicorn.config.settings import NAMES, OPTIONS
from minicorn.errors import UsageError
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise UsageError with one line, not the usage before it, and with what may have been meant."""
        near = ""
        if found := re.match(r"unrecognized arguments: ([^-]\S*)", message):
            message = f"one APP is served, and {found[1]} is an argument too many: there is no command before it"
        if found := re.match(r"unrecognized arguments: (--[^ =]+)", message):
            near = gunicorn.nearest(found[1], [flag for flag in self._option_string_actions if flag != found[1]])
        raise UsageError(f"{message}{near} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The parser; values stay strings, `layers` converts and judges them."""
    parser = _Parser(
        prog="minicorn",
        usage="minicorn [options] APP",
        description="Serve a synchronous WSGI application with pre-forked workers.",
        epilog=_EXAMPLES,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument_group("what to serve").add_argument(
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
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys(o.group for o in OPTIONS.values())}
    for name, option in OPTIONS.items():
        group, default = groups[option.group], option.default
        shown = "" if default in (None, (), "") or option.switch else f" (default: {option.kind.show(default)})"
        text = (option.help + shown).replace("%", "%%")
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
