"""`python -m minicorn APP [options]`."""

import sys

from minicorn.cli import main

sys.exit(main())
