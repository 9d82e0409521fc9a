"""gunicorn's hooks in a worker: what they are given, in one process."""

import logging
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from minicorn.config.address import Tcp
from minicorn.config.settings import Settings
from minicorn.errors import AppLoadError
from minicorn.logs.logger import LOGGER
from minicorn.serving.hooks import Cfg, HookFailed, WorkerHooks, make_request, make_server, make_worker, run_hook

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/a%20b?c=d?e",
    "PATH_INFO": "/a b",
    "QUERY_STRING": "c=d?e",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "https",
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "4711",
    "HTTP_HOST": "h",
    "HTTP_X_REAL_IP": "10.0.0.1",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "5",
    "other": "no field",
}
Make = Callable[..., WorkerHooks]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the hooks of a worker of what a configuration file says; those that are named are hooks."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != os.getcwd()])

    def make(source: str, *names: str, **more: object) -> WorkerHooks:
        named = {"config": "/nowhere/gunicorn.conf.py"} | more
        settings = Settings(source=source.encode(), hooks=names, **named)
        return WorkerHooks(settings, 3, ["http://h:1"])

    yield make
    sys.modules.pop("__config__", None)


def test_cfg_has_settings_by_either_name_as_a_configuration_file_has_them() -> None:
    cfg = Cfg(Settings(graceful_timeout=7.0, warmup=("/a", "/b"), name="shop"))
    assert (cfg.graceful_timeout, cfg.proc_name, cfg.name, cfg.warmup) == (7.0, "shop", "shop", ["/a", "/b"])
    assert (cfg.threads, cfg.worker_class_str, cfg.is_ssl) == (1, "sync", False)
    assert cfg.bind == ["127.0.0.1:8000"]
    assert Cfg(Settings(bind=(Tcp("::1", 80),))).bind == ["[::1]:80"]
    with pytest.raises(AttributeError, match="no setting 'django_settings'"):
        cfg.django_settings  # noqa: B018


def test_server_and_worker_say_who_they_are() -> None:
    settings = Settings(workers=3, name="shop", timeout=4.0)
    server = make_server(settings, 12, ["http://h:1"])
    told = server.pid, server.num_workers, server.address, server.proc_name, server.timeout, server.log, server.WORKERS
    assert told == (12, 3, ["http://h:1"], "shop", 4.0, LOGGER, {})
    worker = make_worker(settings, 34, 2, 12)
    assert (worker.pid, worker.age, worker.ppid, worker.nr, worker.alive, worker.timeout) == (34, 2, 12, 0, True, 4.0)
    assert (server.cfg.workers, worker.cfg.workers, worker.log) == (3, 3, LOGGER)


def test_a_request_is_told_as_it_came() -> None:
    request = make_request(ENVIRON)
    assert (request.method, request.uri, request.path, request.query) == ("GET", "/a%20b?c=d?e", "/a%20b", "c=d?e")
    assert request.headers == [
        ("HOST", "h"),
        ("X-REAL-IP", "10.0.0.1"),
        ("CONTENT-TYPE", "text/plain"),
        ("CONTENT-LENGTH", "5"),
    ]
    assert (request.version, request.scheme) == ((1, 1), "https")
    assert request.remote_addr == request.peer_addr == ("192.0.2.1", "4711")
    bare = {key: value for key, value in ENVIRON.items() if not key.startswith("CONTENT_")}
    assert make_request(bare).headers == request.headers[:2]


@pytest.mark.parametrize(("config", "directory"), [("/nowhere/gunicorn.conf.py", "/nowhere"), ("gunicorn.conf.py", "")])
def test_a_file_imports_what_lies_beside_it(make: Make, config: str, directory: str) -> None:
    make("", config=config)
    assert (directory or os.getcwd()) in sys.path


def test_the_hooks_of_the_worker_are_those_that_the_file_defines_and_the_settings_name(make: Make) -> None:
    source = "said = []\ndef post_fork(server, worker): said.append((server, worker))\ndef pre_fork(*them): 1 / 0\n"
    hooks = make(source, "post_fork", "on_exit")
    said = sys.modules["__config__"].said
    assert (hooks.server.pid, hooks.worker.ppid, hooks.worker.pid) == (os.getppid(), os.getppid(), os.getpid())
    assert (hooks.worker.age, hooks.server.address) == (3, ["http://h:1"])
    hooks.guard("post_fork", hooks.server, hooks.worker)
    assert said == [(hooks.server, hooks.worker)]
    assert hooks.call("pre_fork", 1) and hooks.call("on_exit", 1)


def test_what_a_hook_raises_is_logged_from_its_own_frame_on(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("minicorn"), "propagate", True)
    hooks = make("def post_fork(server, worker): exit(3)\n", "post_fork")
    with pytest.raises(HookFailed, match="hook post_fork raised") as failed:
        hooks.guard("post_fork", 1, 2)
    assert isinstance(failed.value, AppLoadError)
    (said,) = caplog.messages
    assert said.startswith("hook post_fork raised\n") and "SystemExit: 3" in said
    assert "run_hook" not in said and "in post_fork" in said


def test_a_hook_that_goes_well_says_so() -> None:
    assert run_hook("when_ready", lambda server: None, 1)


def app(environ: dict, start_response: object) -> list[bytes]:
    environ["RAW_URI"] = "changed"
    return [b"answered"]


def test_without_hooks_of_requests_the_application_stays_as_it_is(make: Make) -> None:
    hooks = make("def post_fork(*them): pass\n", "post_fork")
    assert hooks.wrap(app) is app
    assert hooks.after_request is None


def test_pre_request_alone_is_told_and_what_it_raises_is_the_answer(make: Make) -> None:
    hooks = make("def pre_request(worker, req): worker.seen = req.uri; req.fields\n", "pre_request")
    assert hooks.after_request is None
    with pytest.raises(HookFailed):
        hooks.wrap(app)(dict(ENVIRON), None)
    assert hooks.worker.seen == "/a%20b?c=d?e"


TAKERS = {
    "two": "def post_request(worker, req): told.append((req,))",
    "three": "def post_request(worker, req, environ): told.append((req, environ))",
    "four": "def post_request(worker, req, environ, resp): told.append((req, environ, resp))",
    "any": "def post_request(worker, *them): told.append(them)",
    "a default": "def post_request(worker, req, environ=None, resp=None): told.append((req, environ, resp))",
    "a method": "class Log:\n def two(self, worker, req): told.append((req,))\npost_request = Log().two",
    "an object": "class Log:\n def __call__(self, worker, req): told.append((req,))\npost_request = Log()",
    "a partial": "from functools import partial\ndef log(to, worker, req): to.append((req,))\n"
    "post_request = partial(log, told)",
    "a decorated one": "from functools import wraps\ndef log(hook):\n"
    " @wraps(hook)\n def logged(*them): return hook(*them)\n return logged\n"
    "@log\ndef post_request(worker, req): told.append((req,))",
}


@pytest.mark.parametrize("kind", TAKERS)
def test_post_request_is_given_as_much_as_it_takes(make: Make, kind: str) -> None:
    hooks = make(f"told = []\n{TAKERS[kind]}\n", "post_request")
    told = sys.modules["__config__"].told
    environ, answer = dict(ENVIRON), hooks.after_request
    assert answer is not None
    for number in (1, 2):
        hooks.wrap(app)(environ | {"RAW_URI": f"/{number}"}, None)
        hooks.worker.nr = "another"
        answer(environ, "404 Not Found", [("A", "b")], 9)
        assert hooks.worker.nr == number
    assert [each[0].uri for each in told] == ["/1", "/2"]
    _, *more = told[0]
    assert len(more) == {"three": 1, "four": 2, "any": 2, "a default": 2}.get(kind, 0)
    if more:
        assert more.pop(0) is environ
    if more:
        (response,) = more
        wanted = "404 Not Found", 404, [("A", "b")], 9
        assert (response.status, response.status_code, response.headers, response.sent) == wanted


def test_of_a_request_that_did_not_come_to_the_application_the_environ_tells(make: Make) -> None:
    hooks = make("told = []\ndef post_request(worker, req): told.append(req.uri)\n", "post_request")
    assert hooks.after_request is not None
    hooks.after_request(ENVIRON, "503 Service Unavailable", [], 0)
    assert sys.modules["__config__"].told == ["/a%20b?c=d?e"]
