"""The applications of the workloads, each as little as its purpose allows. `hello` has its own module."""

import tempfile

BLOCK = b"x" * 1024
BLOCKS = 1000
HUNDRED_KB = b"x" * 100_000
TEN_MB = b"x" * 10_000_000
FILE = tempfile.NamedTemporaryFile(prefix="minicorn-bench-")
FILE.write(BLOCK * BLOCKS)
FILE.flush()


def _reply(start_response, length=None):
    headers = [("Content-Type", "application/octet-stream")]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    start_response("200 OK", headers)


def post(environ, start_response):
    """Reads what it was sent, whole."""
    body = str(len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", 0))))).encode()
    _reply(start_response, len(body))
    return [body]


def upload(environ, start_response):
    """Reads what it was sent, block by block."""
    left = int(environ.get("CONTENT_LENGTH", 0))
    while left:
        left -= len(environ["wsgi.input"].read(min(left, 65536)))
    _reply(start_response, 2)
    return [b"ok"]


def hundred_kb(environ, start_response):
    _reply(start_response, len(HUNDRED_KB))
    return [HUNDRED_KB]


def ten_mb(environ, start_response):
    _reply(start_response, len(TEN_MB))
    return [TEN_MB]


def file(environ, start_response):
    _reply(start_response, len(BLOCK) * BLOCKS)
    file = open(FILE.name, "rb")
    return environ["wsgi.file_wrapper"](file) if "wsgi.file_wrapper" in environ else iter(lambda: file.read(65536), b"")


def stream(environ, start_response):
    """Its length is not known before its end."""
    _reply(start_response)
    return (BLOCK for _ in range(BLOCKS))
