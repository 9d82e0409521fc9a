"""Deployments of gunicorn's, run by both servers: the same requests get the same answers."""

import os
import shlex
import socket
import sys

from harness import Server, Starter, wait_until

GUNICORN = (sys.executable, "-m", "gunicorn")
MINICORN = (sys.executable, "-m", "minicorn")
SERVERS = {"gunicorn": GUNICORN, "minicorn": MINICORN}

SHOP = """
import os
from flask import Flask, request
app = Flask(__name__)

@app.get("/")
def index():
    return "shop " + os.environ.get("STAGE", "none")

@app.post("/echo")
def echo():
    return request.get_data(), 201, {"X-Length": str(len(request.get_data()))}

@app.get("/fail")
def fail():
    raise RuntimeError("as it must")
"""
PROMETHEUS = """
from prometheus_client import multiprocess
bind = "127.0.0.1:0"
workers = 2
raw_env = ["STAGE=counted"]

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""
# gunicorn's documentation: run Django with settings in a file
DJANGO = """
wsgi_app = "django_site.wsgi:application"
loglevel = "info"
workers = 2
bind = "127.0.0.1:0"
reload = False
accesslog = errorlog = "-"
capture_output = False
"""


def answers(server: Server, paths: tuple[str, ...]) -> list[tuple[int, str | None, bytes]]:
    """Status, type and body of each path, once the server listens."""
    port = server.listening_port()
    found = []
    for path in paths:
        connection = server.connect(at=port)
        body = b"hello" if path == "/echo" else None
        connection.request("POST" if body else "GET", path, body=body)
        response = connection.getresponse()
        found.append((response.status, response.getheader("Content-Type"), response.read()))
        connection.close()
    return found


def both(start: Starter, line: str, paths: tuple[str, ...], **environment: str) -> list[tuple[int, str | None, bytes]]:
    """What both servers answer when they are called by `line`, which must be one thing."""
    found = []
    for command in SERVERS.values():
        server = start.command(*command, *shlex.split(line), env=environment)
        found.append(answers(server, paths))
        assert server.stop() == 0
    assert found[0] == found[1]
    return found[0]


def test_a_procfile_line(start: Starter) -> None:
    start.write("shop.py", SHOP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = both(start, "shop:app --log-file -", ("/", "/echo", "/missing"), PORT=str(port), WEB_CONCURRENCY="2")
    assert [status for status, _, _ in found] == [200, 201, 404]


def test_django_with_a_file_as_gunicorns_documentation_has_it(start: Starter) -> None:
    start.write("gunicorn.conf.py", DJANGO)
    found = both(start, "", ("/", "/missing"))
    assert found[0][0] in (200, 404)


def test_a_file_with_prometheus_hooks(start: Starter) -> None:
    start.write("shop.py", SHOP)
    start.write("gunicorn.conf.py", PROMETHEUS)
    metrics = start.cwd / "metrics"
    metrics.mkdir()
    found = both(start, "-c gunicorn.conf.py shop:app", ("/", "/echo"), PROMETHEUS_MULTIPROC_DIR=str(metrics))
    assert found[0][2] == b"shop counted"


def test_a_docker_command_with_gunicorn_cmd_args(start: Starter) -> None:
    start.write("shop.py", SHOP)
    line = "--worker-class sync --threads 1 shop:app"
    found = both(start, line, ("/", "/echo"), GUNICORN_CMD_ARGS="--bind=127.0.0.1:0 --workers=2 -e STAGE=docker")
    assert found[0][2] == b"shop docker"


def test_gunicorn_cmd_args_are_honoured_with_a_note(start: Starter) -> None:
    start.write("shop.py", SHOP)
    server = start.command(*MINICORN, "shop:app", env={"GUNICORN_CMD_ARGS": "--bind=127.0.0.1:0"})
    server.wait_log("GUNICORN_CMD_ARGS is honoured")
    server.wait_ready()


def test_a_systemd_socket(start: Starter) -> None:
    """What a socket unit does: the listening socket as descriptor 3, and LISTEN_FDS."""
    start.write("shop.py", SHOP)
    activate = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    found = []
    for command in SERVERS.values():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            os.set_inheritable(listening.fileno(), True)
            server = start.command(
                sys.executable,
                "-c",
                activate,
                str(listening.fileno()),
                *command[1:],
                "shop:app",
                pass_fds=(listening.fileno(),),
            )
            reply = server.get("/", at=port)
            found.append((reply.status, reply.body))
            assert server.stop() == 0
    assert found == [(200, b"shop none")] * 2


def test_whitenoise_serves_files_the_same(start: Starter) -> None:
    start.write("static/page.css", "body { color: black }")
    start.write(
        "white.py",
        "from pathlib import Path\nfrom whitenoise import WhiteNoise\n"
        "def missing(environ, start_response):\n"
        "    start_response('404 Not Found', [('Content-Type', 'text/plain')])\n    return [b'missing']\n"
        "app = WhiteNoise(missing, root=str(Path(__file__).parent / 'static'))\n",
    )
    found = both(start, "-b 127.0.0.1:0 white:app", ("/page.css", "/other"))
    assert [(status, body) for status, _, body in found] == [(200, b"body { color: black }"), (404, b"missing")]


# What vendors' exporters have kept is sent at a worker's end: their documented recipes, unchanged

OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            print(*(span.name for span in spans), file=file)
        return SpanExportResult.SUCCESS

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ToFile(), schedule_delay_millis=60000))
    trace.set_tracer_provider(provider)
"""
TRACED = """
from opentelemetry import trace

def app(environ, start_response):
    with trace.get_tracer("shop").start_as_current_span("checkout"):
        start_response("200 OK", [])
        return [b"ok"]
"""
SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport

class ToFile(Transport):
    def capture_envelope(self, envelope):
        with open("events", "a") as file:
            print(envelope.get_event()["exception"]["values"][0]["type"], file=file)

def post_fork(server, worker):
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=ToFile)
"""


def test_opentelemetry_flushes_its_spans_at_a_workers_end(start: Starter) -> None:
    start.write("gunicorn.conf.py", OPENTELEMETRY)
    start.write("traced.py", TRACED)
    server = start("traced:app")
    assert server.get("/").status == 200
    assert not (start.cwd / "spans").exists()
    assert server.stop() == 0
    assert (start.cwd / "spans").read_text() == "checkout\n"


def test_sentry_is_told_of_what_a_request_raises(start: Starter) -> None:
    start.write("gunicorn.conf.py", SENTRY)
    start.write(
        "watched.py",
        "from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware\n"
        "def fail(environ, start_response):\n    raise KeyError('as it must')\n"
        "app = SentryWsgiMiddleware(fail)\n",
    )
    server = start("watched:app")
    assert server.get("/").status == 500
    wait_until(lambda: (start.cwd / "events").exists(), "Sentry is told")
    assert server.stop() == 0
    assert "KeyError" in (start.cwd / "events").read_text()
