"""A WSGI application that brings its worker into trouble; what it does not know is plain.py's."""

import os
import time

import plain


def eat(environ):
    """Memory until there is none."""
    eaten = []
    while True:
        eaten.append(b"x" * 2**20)


def start_and_hold(environ):
    """A program that lives on; its pid is in a file named after the worker. Then until released."""
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    (plain.HERE / f"child-{os.getpid()}").write_text(str(child.pid))
    return plain.hold(environ)


def half(environ):
    """The first megabyte of a reply, the second only when released."""
    yield b"x" * 2**20
    while not (plain.HERE / "release").exists():
        time.sleep(0.01)
    yield b"x" * 2**20


ROUTES = {"/eat": eat, "/start-and-hold": start_and_hold, "/half": half, "/half-sized": half}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path not in ROUTES:
        return plain.app(environ, start_response)
    (plain.HERE / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
    answer = ROUTES[path](environ)
    sized = [("Content-Length", str(2 * 2**20))] if path == "/half-sized" else []
    start_response("200 OK", [("Content-Type", "text/plain"), *sized])
    return [answer.encode()] if isinstance(answer, str) else answer
