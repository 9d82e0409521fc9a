"""What the tests of `--reload` share: an application that says a word, and the clients that await it."""

import time
from pathlib import Path

from harness import Reply, Server, Starter, read, wait_until

HTML = {"Accept": "text/html,*/*"}
APP = """
{extra}
WORD = {word!r}

def app(environ, start_response):
    if environ["PATH_INFO"] == "/boom":
        raise ZeroDivisionError("as the path says")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [WORD.encode() + body]
"""


def write(start: Starter, word: str, extra: str = "", name: str = "project.py") -> Path:
    return start.write(name, APP.format(word=word, extra=extra))


def serve(start: Starter, *flags: str, app: str = "project:app", **options: object) -> Server:
    server = start(app, "--reload", *flags, **options)
    # A file that was made just before the server is no edit
    server.wait_log("is ready after")
    return server


def get(server: Server, path: str = "/", **headers: str) -> Reply:
    connection = server.connect()
    connection.request("GET", path, headers={"Connection": "close"} | headers)
    try:
        return read(connection)
    finally:
        connection.close()


def await_word(server: Server, word: str) -> None:
    """Poll without pause: nothing but 200s and in the end `word`."""

    def says() -> bool:
        reply = get(server)
        assert reply.status == 200, reply.text
        return reply.text == word

    wait_until(says, f"{word} is served:\n{server.log.text}")


def await_status(server: Server, status: int, path: str = "/") -> Reply:
    found: list[Reply] = []

    def has() -> bool:
        found[:] = [get(server, path, **HTML)]
        return found[0].status == status

    wait_until(has, f"status {status}")
    return found[0]


def rolls(server: Server) -> int:
    return server.log.text.count("Reloaded in")


def settle(server: Server, start: Starter) -> None:
    """Until the watcher has seen all that was done before: it sees a further edit."""
    before = server.log.text.count("Detected")
    write(start, f"marker {time.monotonic_ns()}", name="marker.py")
    wait_until(
        lambda: "marker.py" in server.log.text[-400:] and server.log.text.count("Detected") > before, "it is seen"
    )
