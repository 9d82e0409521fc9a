"""What an access log tells apart: statuses, sizes, framings, users, durations; and requests that end badly."""

import ctypes
import resource
import sys
import time


def read_all(environ):
    return environ["wsgi.input"].read()


def hang(environ):
    time.sleep(60)


def crash(environ):
    ctypes.string_at(0)


def devour(environ):
    """More than the process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (2**29, resource.RLIM_INFINITY))
    try:
        return bytes(2**31)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def swallow(environ):
    """Ever more, each page written."""
    held = []
    while True:
        held.append(b"x" * 2**20)


def nap(environ):
    time.sleep(float(environ["QUERY_STRING"].partition("&")[0]))
    return b"slept"


def grind(environ):
    """In C code that keeps the GIL: twice for 1.5 s, which a signal cuts short."""
    for _ in range(2):
        ctypes.PyDLL(None).usleep(1_500_000)
    return b"ground"


def say(environ):
    print("said", environ["QUERY_STRING"])
    print("complained", environ["QUERY_STRING"], file=sys.stderr)
    return b"said"


ROUTES = {
    "/hang": hang,
    "/crash": crash,
    "/devour": devour,
    "/swallow": swallow,
    "/nap": nap,
    "/grind": grind,
    "/say": say,
    "/echo": read_all,
    "/none": lambda environ: b"",
    "/id": lambda environ: environ["minicorn.request_id"].encode(),
}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("X-Cache", "first"), ("X-Cache", "second")])
        return [b"one", b"", b"three"]
    if path == "/missing":
        start_response("404 Not Found", [("Content-Length", "4")])
        return [b"gone"]
    body = ROUTES.get(path, lambda environ: b"hello")(environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
