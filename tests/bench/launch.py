"""Starts the servers that have no command of their own: launch.py SERVER module:attribute PORT WORKERS."""

import importlib
import os
import sys


def main() -> None:
    server, app, port, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    module, _, attribute = app.partition(":")
    sys.path.insert(0, ".")
    if server == "fastpysgi":
        import fastpysgi

        fastpysgi.run(getattr(importlib.import_module(module), attribute), "127.0.0.1", port, workers=workers)
    else:
        import bjoern

        bjoern.listen(getattr(importlib.import_module(module), attribute), "127.0.0.1", port)
        for _ in range(workers - 1):
            if os.fork() == 0:
                break
        bjoern.run()


main()
