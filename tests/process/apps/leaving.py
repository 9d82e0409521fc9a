"""A WSGI application that makes leaving hard: long replies, threads, exit functions, children."""

import atexit
import os
import threading
import time

import plain

SHELL_WAITS = "while [ ! -e release ]; do sleep 0.05; done"


def word(environ):
    """/word/<word>: the word again and again, more than a socket takes at once."""
    return f"{last(environ)} " * 50_000


def trickle(environ):
    """/trickle/<word>: a line again and again until the server stops, and then a hundred times more."""
    line = f"{last(environ)}\n".encode()
    while not environ["minicorn.shutting_down"]():
        yield line
        time.sleep(0.01)
    for _ in range(100):
        yield line
        time.sleep(0.005)
    yield b"the end\n"


def tell_shutdown(environ):
    """Whether we are shutting down: at first, and when that has changed."""
    is_ending = environ["minicorn.shutting_down"]
    told = str(is_ending())
    while not is_ending():
        time.sleep(0.01)
    return f"{told}, then {is_ending()}"


def extend(environ):
    """/extend/<seconds>: put the deadline off, then take as long as the test wants."""
    environ["minicorn.extend_deadline"](float(last(environ)))
    return plain.hold(environ)


def start_thread(environ):
    """A thread that has something to finish when the worker leaves; an exit function looks for it."""
    is_ending = environ["minicorn.shutting_down"]

    def finish():
        while not is_ending():
            time.sleep(0.01)
        time.sleep(1)
        (plain.HERE / "thread-ended").touch()

    threading.Thread(target=finish).start()
    atexit.register(lambda: (plain.HERE / f"exit-saw-{(plain.HERE / 'thread-ended').exists()}").touch())
    return "started"


def never_ends():
    while True:
        time.sleep(1)


def hang_thread(environ):
    threading.Thread(target=never_ends).start()
    return "started"


def hang_atexit(environ):
    atexit.register(never_ends)
    return "registered"


def fork(environ):
    """A copy of the worker that lives on."""
    child = os.fork()
    if not child:
        while not (plain.HERE / "release").exists():
            time.sleep(0.01)
        os._exit(0)
    return str(child)


def run(environ):
    """A program that lives on, with all that it may inherit."""
    import subprocess

    return str(subprocess.Popen(["sh", "-c", SHELL_WAITS], close_fds=False).pid)


def last(environ):
    return environ["PATH_INFO"].rpartition("/")[2]


ROUTES = {
    "word": word,
    "trickle": trickle,
    "tell-shutdown": tell_shutdown,
    "extend": extend,
    "start-thread": start_thread,
    "hang-thread": hang_thread,
    "hang-atexit": hang_atexit,
    "fork": fork,
    "run": run,
    "hold": plain.hold,
}


def app(environ, start_response):
    name = environ["PATH_INFO"].split("/")[1]
    if name not in ROUTES:
        return plain.app(environ, start_response)
    (plain.HERE / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
    answer = ROUTES[name](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()] if isinstance(answer, str) else answer
