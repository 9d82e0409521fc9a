"""plain.py that writes down what each request came with, a line of JSON a request, by worker."""

import json
import os
from pathlib import Path

import plain

HERE = Path.cwd()


def app(environ, start_response):
    record = {key: value for key, value in environ.items() if isinstance(value, str)}
    record["body"] = environ["wsgi.input"].read().decode()
    record["keys"] = sorted(environ)
    record["requests before"] = environ["minicorn.worker"].requests
    with open(HERE / f"seen-{os.getpid()}", "a") as file:
        file.write(json.dumps(record) + "\n")
    return plain.app(environ, start_response)
