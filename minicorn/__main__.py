"""`python -m minicorn APP [options]`, and the command `minicorn`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command; its exit code. Nothing is collected until it has imported all: none of that is garbage."""
    gc.disable()
    from minicorn import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
