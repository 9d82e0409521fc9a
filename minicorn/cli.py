"""The command line: argv -> Settings -> arbiter; one line for a mistake, and an exit code."""

import argparse
import os
import sys
from typing import NoReturn

from minicorn.errors import ConfigError, ExitCode, UsageError
from minicorn.settings import OPTIONS, Settings, from_strings
from minicorn.version import VERSION

_EXAMPLES = """
examples:
  minicorn main:app --workers 4
  minicorn 'shop:create_app("production")' --bind unix:/run/shop.sock
  minicorn minicorn.demo:app
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, not the usage before it."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The parser; values stay strings, `settings` converts and judges them."""
    parser = _Parser(
        prog="minicorn",
        description="Serve a synchronous WSGI application with pre-forked workers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="APP", help="module:attribute, module:factory() or module")
    defaults = Settings()
    for name, option in OPTIONS.items():
        default = getattr(defaults, name)
        shown = "" if default in (None, ()) or name == "access_logformat" else f" (default: {default})"
        parser.add_argument(
            *option.flags,
            dest=name,
            action="append",
            metavar=option.metavar,
            default=argparse.SUPPRESS,
            help=option.help.replace("%", "%%") + shown,
        )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    if os.name == "nt":
        print("minicorn: error: it forks, which Windows cannot; use WSL", file=sys.stderr)
        return ExitCode.CONFIG
    from minicorn.app import run_arbiter  # needs a POSIX system
    from minicorn.spawn import leave

    try:
        given = vars(build_parser().parse_args(argv))
        code = run_arbiter(from_strings(given.pop("app"), given, os.environ))
    except ConfigError as error:
        print(f"minicorn: error: {error}", file=sys.stderr)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.CONFIG
    # The interpreter's own end would let a second TERM kill us with another exit code
    leave(code)
