"""Answers with its environ, as JSON; /hold once there is a file `release`."""

import json
import os
import time
from pathlib import Path


def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        Path("held").touch()
        while not Path("release").exists():
            time.sleep(0.01)
    body = json.dumps({key: value for key, value in environ.items() if isinstance(value, str)} | {"pid": os.getpid()})
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body.encode()]
