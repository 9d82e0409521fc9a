"""A WSGI application that does what its path says: tell, hold, hang, crash, stream.

What only one path needs is imported there: thousands of workers boot in the tests, each by this file.
"""

import atexit
import json
import os
import re
import resource
import sys
import time
from pathlib import Path

HERE = Path.cwd()
VERSION = 1

_CHILD = """
import json, os, re
def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False
status = open("/proc/self/status").read()
print(json.dumps({
    "blocked": re.search(r"SigBlk:\\s*(\\w+)", status)[1],
    "descriptors": sorted(fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)),
}))
"""


def pid(environ):
    return str(os.getpid())


def version(environ):
    return str(VERSION)


def hold(environ):
    """Until the test says so."""
    while not (HERE / "release").exists():
        time.sleep(0.01)
    return "held " * 100_000


def until_told(environ):
    """Until the worker knows that the server stops."""
    while not environ["minicorn.shutting_down"]():
        time.sleep(0.01)
    return "held " * 100_000


def nap(environ):
    time.sleep(60)
    return "awake"


def spin(environ):
    while True:
        pass


def grind(environ):
    """C code that keeps the GIL: exponential backtracking."""
    return str(re.match("(a+)+$", "a" * 60 + "b"))


def crash(environ):
    import ctypes

    return str(ctypes.string_at(0))


def leave(environ):
    os._exit(3)


def leave_orphan(environ):
    """A grandchild that outlives its parent, and ends with exit code 3 when the test says so."""
    if os.fork() == 0:
        if os.fork() == 0:
            (HERE / "orphan").write_text(str(os.getpid()))
            while not (HERE / "release").exists():
                time.sleep(0.01)
            os._exit(3)
        os._exit(0)
    os.wait()
    return "left"


def fail(environ):
    raise ValueError("as the path says")


def stream(environ):
    """40 MB, block by block."""
    return (b"x" * 65536 for _ in range(40 * 16))


def big(environ):
    """More than a socket takes at once, less than makes the application wait."""
    return [b"x" * (8 * 2**20)]


def digest(environ):
    import hashlib

    return hashlib.sha256(environ["wsgi.input"].read()).hexdigest()


def tell_environment(environ):
    return json.dumps(dict(os.environ))


def tell_child(environ):
    """What a child of the application inherits; descriptors are left to their own flags."""
    import subprocess

    out = subprocess.run([sys.executable, "-S", "-c", _CHILD], close_fds=False, capture_output=True, check=True).stdout
    # cat leaves the dispositions as they come, which Python does not
    status = subprocess.run(["cat", "/proc/self/status"], close_fds=False, capture_output=True, check=True).stdout
    return json.dumps(json.loads(out) | {"ignored": re.search(rb"SigIgn:\s*(\w+)", status)[1].decode()})


def tell_limits(environ):
    return json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE))


def say(environ):
    """A line of the application's own on its standard error."""
    print("the application speaks", file=sys.stderr, flush=True)
    return "said"


ROUTES = {
    "/": pid,
    "/version": version,
    "/hold": hold,
    "/until-told": until_told,
    "/nap": nap,
    "/spin": spin,
    "/grind": grind,
    "/crash": crash,
    "/leave": leave,
    "/leave-orphan": leave_orphan,
    "/fail": fail,
    "/stream": stream,
    "/big": big,
    "/digest": digest,
    "/environment": tell_environment,
    "/child": tell_child,
    "/limits": tell_limits,
    "/say": say,
}


def app(environ, start_response):
    (HERE / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
    answer = ROUTES[environ["PATH_INFO"]](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()] if isinstance(answer, str) else answer


# Which worker has come, and gone in good order
(HERE / f"boot-{os.getpid()}").write_text(os.environ.get("MINICORN_WORKER", "none"))
atexit.register(lambda: (HERE / f"exit-{os.getpid()}").touch())
