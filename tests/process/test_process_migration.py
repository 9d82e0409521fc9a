"""Deployments of gunicorn's, run by both servers: the same requests get the same answers, and leave the same behind."""

import gzip
import http.server
import re
import shlex
import threading
import urllib.request
from collections.abc import Iterator
from signal import SIGHUP

import pytest
from harness import ANY_PORT, CHECKOUT, MINICORN, SERVERS, Server, Starter, free_port, wait_until
from sentry_sdk.envelope import Envelope
from service_manager import Manager

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
MEASURED = f"""{SHOP}
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
requests = Counter("requests", "By path.", ["path"])

@app.before_request
def measure():
    requests.labels(request.path).inc()
    with trace.get_tracer("shop").start_as_current_span(f"{{request.method}} {{request.path}}"):
        pass

@app.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return sorted(generate_latest(registry).decode().splitlines())
"""
# prometheus_client's and OpenTelemetry's documentation
HOOKS = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import multiprocess

bind = "127.0.0.1:0"
raw_env = ["STAGE=counted"]
place = os.environ["PROMETHEUS_MULTIPROC_DIR"]

class ToFile(SpanExporter):
    def export(self, spans):
        with open("left", "a") as file:
            print(*(span.name for span in spans), end="", file=file)
        return SpanExportResult.SUCCESS

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)
    trace.set_tracer_provider(TracerProvider())
    processor = BatchSpanProcessor(ToFile(), schedule_delay_millis=600_000)
    trace.get_tracer_provider().add_span_processor(processor)

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)

def on_exit(server):
    for name in os.listdir(place):
        os.remove(os.path.join(place, name))
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
# gunicorn's documentation: systemd
SOCKET = "[Socket]\nListenStream=127.0.0.1:{port}\n"
SERVICE = """[Unit]
Requires=minicorn.socket

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={cwd}
Environment=PYTHONPATH={checkout}
ExecStart={command} shop:app
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=mixed
TimeoutStopSec=5
"""

Answer = tuple[int, str | None, bytes]


def answers(server: Server, paths: tuple[str, ...]) -> list[Answer]:
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


def both(start: Starter, line: str, paths: tuple[str, ...], **environment: str) -> list[Answer]:
    """What both servers answer when they are called by `line`, which must be one thing.

    What they leave in the file `left`, if they leave it, must be one thing too; it stays.
    """
    found = []
    left = start.cwd / "left"
    for command in SERVERS.values():
        left.unlink(missing_ok=True)
        server = start.command(*command, *shlex.split(line), env=environment)
        answered = answers(server, paths)
        assert server.stop() == 0
        found.append((answered, left.read_text() if left.exists() else None))
    assert found[0] == found[1]
    return found[0][0]


def test_a_procfile_line(start: Starter) -> None:
    start.write("shop.py", SHOP)
    variables = {"PORT": str(free_port()), "WEB_CONCURRENCY": "2"}
    found = both(start, "shop:app --log-file -", ("/", "/echo", "/missing"), **variables)
    assert [status for status, _, _ in found] == [200, 201, 404]


def test_django_with_a_file_as_gunicorns_documentation_has_it(start: Starter) -> None:
    start.write("gunicorn.conf.py", DJANGO)
    found = both(start, "", ("/stream", "/admin/login/style.css", "/fail"))
    assert [status for status, _, _ in found] == [200, 302, 500]


def test_django_by_its_settings_alone(start: Starter) -> None:
    """No manage.py and no wsgi.py: DJANGO_SETTINGS_MODULE, and Django's own factory."""
    line = "'django.core.wsgi:get_wsgi_application()' --bind 127.0.0.1:0"
    for way, environment in (("", {"DJANGO_SETTINGS_MODULE": "django_site.settings"}), (" -e %s=%s", {})):
        flag = way % ("DJANGO_SETTINGS_MODULE", "django_site.settings") if way else ""
        found = both(start, line + flag, ("/stream", "/missing"), **environment)
        assert [status for status, _, _ in found] == [200, 404]


def test_a_file_with_the_hooks_of_prometheus_and_opentelemetry(start: Starter) -> None:
    start.write("shop.py", MEASURED)
    start.write("gunicorn.conf.py", HOOKS)
    metrics = start.cwd / "metrics"
    metrics.mkdir()
    paths = ("/", "/echo", "/", "/metrics")
    found = both(start, "-c gunicorn.conf.py shop:app", paths, PROMETHEUS_MULTIPROC_DIR=str(metrics))
    assert found[0][2] == b"shop counted"
    assert (start.cwd / "left").read_text() == "GET / POST /echo GET / GET /metrics"


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


def test_a_systemd_socket_unit(start: Starter, manager: Manager) -> None:
    """The two units of gunicorn's documentation, run by systemd; what listens is the manager's."""
    start.write("shop.py", SHOP)
    port = free_port()
    manager.write("minicorn.socket", SOCKET.format(port=port))
    found = []
    for command in SERVERS.values():
        manager.write("minicorn.service", SERVICE.format(cwd=start.cwd, command=" ".join(command), checkout=CHECKOUT))
        manager.do("daemon-reload")
        manager.do("start", "minicorn.socket")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:  # starts the service
            first = reply.read()
        pid = manager.pid("minicorn.service")
        manager.do("reload", "minicorn.service")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:
            found.append((first, reply.read(), manager.pid("minicorn.service") == pid))
        manager.do("stop", "minicorn.socket", "minicorn.service")
        assert manager.show("minicorn.service", "Result") == "success"
    assert found == [(b"shop none", b"shop none", True)] * 2


PASTE = """
[DEFAULT]
stage = %(here)s

[app:main]
paste.app_factory = shop:make_app

[app:admin]
paste.app_factory = shop:make_app
set stage = admin
"""


def test_an_application_of_pastedeploy(start: Starter) -> None:
    start.write("site.ini", PASTE)
    factory = "def make_app(defaults):\n    app.config['S'] = defaults['stage']\n    return app\n"
    start.write("shop.py", f"{SHOP}\n@app.get('/stage')\ndef stage():\n    return app.config['S']\n\n{factory}")
    for place, answer in (("site.ini", str(start.cwd)), ("site.ini#admin", "admin")):
        assert both(start, f"--paste {place} --bind 127.0.0.1:0", ("/stage",))[0][2].decode() == answer
    start.write("gunicorn.conf.py", "paste = 'site.ini#admin'")  # as gunicorn's file cannot say it
    assert start.command(*MINICORN, *ANY_PORT).get("/stage").text == "admin"


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


# Flask's documentation, as gunicorn's users have it: the application's log goes where the server's goes

LOGGING = """
import logging
from flask import Flask
app = Flask(__name__)
gunicorn_logger = logging.getLogger("gunicorn.error")
app.logger.handlers = gunicorn_logger.handlers
app.logger.setLevel(gunicorn_logger.level)

@app.get("/")
def index():
    app.logger.info("one is sold")
    app.logger.warning("one is left")
    return "ok"
"""


@pytest.mark.parametrize(("level", "told"), [("info", ["INFO", "WARNING"]), ("warning", ["WARNING"])])
def test_the_log_of_flask_goes_to_the_error_log_at_its_level(start: Starter, level: str, told: list[str]) -> None:
    start.write("shop.py", LOGGING)
    found = []
    for command in SERVERS.values():
        server = start.command(
            *command, "shop:app", "-b", "127.0.0.1:0", "--log-level", level, "--error-logfile", "left"
        )
        answers(server, ("/",))
        assert server.stop() == 0
        log = start.cwd / "left"
        found.append(re.findall(r"(INFO|WARNING)\W+(one is \w+)$", log.read_text(), re.MULTILINE))
        log.unlink()
    assert found[0] == found[1]
    assert [level for level, _ in found[0]] == told


DICT = """
bind, accesslog, access_log_format = "127.0.0.1:0", "-", "%(m)s %(U)s %(s)s"
logconfig_dict = {
    "version": 1,
    "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "left", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": []},
    "loggers": {
        "gunicorn.error": {"handlers": ["file"], "level": "WARNING", "propagate": False},
        "gunicorn.access": {"handlers": ["file"], "level": "INFO", "propagate": False},
    },
}
def post_fork(server, worker):
    server.log.warning("a worker is there")
"""


def test_a_dict_for_logging_in_the_file(start: Starter) -> None:
    start.write("gunicorn.conf.py", DICT)
    start.write("shop.py", SHOP)
    both(start, "shop:app", ("/", "/echo"))
    assert (start.cwd / "left").read_text() == "WARNING a worker is there\nINFO GET / 200\nINFO POST /echo 201\n"


# Sentry's own transport, which sends from a thread, to a server that is here

SENTRY = """
import os, sentry_sdk

def post_fork(server, worker):
    sentry_sdk.init(dsn=os.environ["SENTRY"], auto_session_tracking=False)
"""


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[str]]]:
    """A DSN, and the exceptions that have come there."""
    told: list[str] = []

    class Ingest(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = Envelope.deserialize(gzip.decompress(body)).get_event()
            told.extend(each["type"] for each in event["exception"]["values"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ingest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://key@127.0.0.1:{server.server_port}/1", told
        server.shutdown()
        thread.join()


def test_sentry_has_been_told_of_what_a_request_raised_when_the_server_has_ended(
    start: Starter, sentry: tuple[str, list[str]]
) -> None:
    dsn, told = sentry
    start.write("gunicorn.conf.py", SENTRY)
    start.write("shop.py", SHOP)
    found = both(start, "shop:app --bind 127.0.0.1:0", ("/", "/fail"), SENTRY=dsn)
    assert [status for status, _, _ in found] == [200, 500]
    assert told == ["RuntimeError"] * 2


def test_opentelemetry_flushes_the_spans_of_workers_that_are_replaced(start: Starter) -> None:
    start.write("gunicorn.conf.py", HOOKS)
    start.write("shop.py", MEASURED)
    (start.cwd / "metrics").mkdir()
    server = start("shop:app", env={"PROMETHEUS_MULTIPROC_DIR": "metrics"})
    assert server.get("/").status == 200
    assert not (start.cwd / "left").exists()
    server.signal(SIGHUP)
    left = start.cwd / "left"
    wait_until(lambda: left.exists() and left.read_text(), "its spans are flushed")
    assert left.read_text() == "GET /"
