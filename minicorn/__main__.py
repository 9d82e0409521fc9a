"""`python -m minicorn APP [options]`, and the command `minicorn`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command; its exit code. Nothing is collected until it has imported all: none of that is garbage."""
    gc.disable()
    try:
        from minicorn import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130  # before the server has begun; 128 + SIGINT, as a shell has it


if __name__ == "__main__":
    sys.exit(main())
