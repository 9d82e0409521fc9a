"""`--reload` and the pages of applications: theirs are left as they are; ours have one path, and only here."""

import http.client
import re

import pytest
from harness import Server, Starter, descriptors, read, wait_until
from reloading import HTML, await_status, get, serve, write

FLASK = """
from flask import Flask
app = Flask(__name__)

@app.get("/boom")
def boom():
    raise ZeroDivisionError("as the path says")
"""
HANDLER = """
@app.errorhandler(Exception)
def apologize(error):
    return "<p>we are sorry</p>", 500
"""
DEBUGGER = """
from werkzeug.debug import DebuggedApplication
app = DebuggedApplication(app)
"""


def boom(start: Starter, app: str, path: str = "/boom", **env: str) -> str:
    # Where the import took long, who waited was told so, and the one who told may still answer
    reply = await_status(serve(start, app=app, env=env), 500, path)
    assert "text/html" in reply.headers["Content-Type"]
    return reply.text


def test_flask_in_debug_leaves_its_exceptions_to_our_page(start: Starter) -> None:
    start.write("project.py", FLASK)
    page = boom(start, "project:app", FLASK_DEBUG="1")
    assert "ZeroDivisionError: as the path says" in page
    assert '<code class="place">project.py:7</code>' in page


@pytest.mark.parametrize(
    ("extra", "sign"),
    [("", "The server encountered an internal error"), (HANDLER, "<p>we are sorry</p>"), (DEBUGGER, "__debugger__")],
    ids=["Flask's own", "the application's handler", "Werkzeug's debugger"],
)
def test_pages_of_flask_are_left_as_they_are(start: Starter, extra: str, sign: str) -> None:
    start.write("project.py", FLASK + extra)
    page = boom(start, "project:app", FLASK_DEBUG="" if extra != DEBUGGER else "1")
    assert sign in page
    assert "/.minicorn/" not in page


def test_the_debug_page_of_django_is_left_as_it_is(start: Starter) -> None:
    settings = (start.cwd / "django_site" / "settings.py").read_text()
    start.write("django_site/settings.py", settings.replace("DEBUG = False", "DEBUG = True"))
    page = boom(start, "django_site.wsgi:application", "/fail")
    assert "a secret of the application" in page
    assert "seeing this error because you have" in page
    assert "/.minicorn/" not in page


ECHO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


def test_an_application_that_has_changed_environ_has_its_page(start: Starter) -> None:
    start.write("meddles.py", "def app(environ, start_response):\n    environ['HTTP_ACCEPT'] = 5\n    1 / 0\n")
    reply = start("meddles:app", "--reload").get("/")
    assert (reply.status, reply.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert "ZeroDivisionError" in reply.text


def test_the_path_that_waits_is_the_applications_without_reload(start: Starter) -> None:
    start.write("project.py", ECHO)
    server = start("project:app")
    assert server.get("/.minicorn/newer-than/1").text == "/.minicorn/newer-than/1"


def asked_path(server: Server) -> str:
    """The path at which the error page of `server` asks for newer code."""
    found = re.search(r"/\.minicorn/newer-than/[^\"]+", get(server, "/boom", **HTML).text)
    assert found is not None
    return found[0]


def test_a_page_of_a_server_that_was_started_again_loads_itself_again(start: Starter) -> None:
    write(start, "one", extra="x = (")
    server = serve(start)
    path = asked_path(server)
    server.stop()
    write(start, "two")
    assert get(serve(start), path).status == 204


def test_pages_that_were_left_hold_no_connection(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    worker = int(server.wait_log(r"worker (\d+) \(slot")[1])
    before = len(descriptors(worker))
    path = asked_path(server)

    def ask() -> http.client.HTTPConnection:
        connection = server.connect()
        connection.request("GET", path)
        return connection

    for _ in range(20):
        asking = ask()
        assert get(server).status == 200  # by the same worker, which has kept the other
        asking.close()
    asking = ask()
    wait_until(lambda: len(descriptors(worker)) == before + 1, "only the last is kept")
    write(start, "two")
    assert read(asking).status == 204


def test_with_reload_every_other_path_is_the_applications(start: Starter) -> None:
    start.write("project.py", ECHO)
    server = serve(start)
    for path in ("/", "/.minicorn", "/.minicorn/newer-than", "/x/.minicorn/newer-than/1"):
        assert get(server, path).text == path


FAULTS = """
def app(environ, start_response):
    kind = environ["PATH_INFO"][1:]
    if kind == "headers":
        start_response("200 OK", {})
    elif kind == "pair":
        start_response("200 OK", [("X-A",)])
    elif kind == "value":
        start_response("200 OK", [("X-A", "\u2603")])
    start_response("200 OK", [])
    return {"none": None, "async": (lambda: later())(), "factory": app}.get(kind, ["text"])

async def later():
    pass
"""
PLACE = "project.py:{}, in app)"
FAULTS_TOLD = {
    "none": "it returned None, no iterable of bytes",
    "async": "it returned coroutine, no iterable of bytes; is it async?",
    "factory": "as in main:create_app()",
    "text": "the body has str in it, not bytes: encode it",
    "headers": PLACE.format(5),
    "pair": PLACE.format(7),
    "value": "in the value of X-A: PEP 3333 wants latin-1",
}


def test_what_breaks_wsgi_is_told_in_one_line_with_its_place(start: Starter) -> None:
    start.write("project.py", FAULTS)
    server = serve(start)
    for kind, told in FAULTS_TOLD.items():
        page = get(server, f"/{kind}", **HTML).text
        assert "<h1>The application broke WSGI: " in page
        assert told in server.wait_log(rf"GET /{kind}: .*\n")[0]
