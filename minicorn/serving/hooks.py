"""gunicorn's hooks: what they are given, and how they are run.

Those of a worker run in the worker. Those of the arbiter run in a child of its own, told what
happens over its channel (`arbiter.hookline`): a library that they import may start threads, and one that hangs is
killed; neither may happen to a process that forks. What each gets has the attributes that
hooks in the wild use, not all of gunicorn's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

from minicorn.config import configfile
from minicorn.config.settings import NAMES, OPTIONS, Settings
from minicorn.errors import AppLoadError
from minicorn.logs.logger import LOGGER
from minicorn.logs.tracebacks import format_traceback
from minicorn.system.cgroup import count_workers
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Cfg:
    """`server.cfg`, `worker.cfg`: the settings by gunicorn's names or ours."""

    threads, worker_class_str, is_ssl = 1, "sync", False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> object:
        if name not in NAMES:
            raise AttributeError(f"minicorn has no setting {name!r}")
        value = getattr(self._settings, NAMES[name])
        if name == "bind":
            return [OPTIONS["bind"].kind.show(address) for address in self._settings.addresses]
        return list(value) if isinstance(value, tuple) else value


def make_server(settings: Settings, pid: int, address: list[str]) -> SimpleNamespace:
    """`server`: a picture of the arbiter; what is set on it stays with whoever set it."""
    return SimpleNamespace(
        cfg=Cfg(settings),
        log=LOGGER,
        pid=pid,
        num_workers=count_workers(settings.workers),
        address=address,
        proc_name=settings.title,
        timeout=settings.timeout,
        WORKERS={},
    )


def make_worker(settings: Settings, pid: int, slot: int, ppid: int) -> SimpleNamespace:
    """`worker`; its age is its slot: the smallest number that no living worker has."""
    return SimpleNamespace(
        cfg=Cfg(settings), log=LOGGER, pid=pid, age=slot, ppid=ppid, nr=0, alive=True, timeout=settings.timeout
    )


def make_request(environ: WSGIEnvironment) -> SimpleNamespace:
    """`req`, as gunicorn parses it: names of header fields in capitals."""
    fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    fields += [(key.replace("_", "-"), environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if key in environ]
    address = environ["REMOTE_ADDR"], environ["REMOTE_PORT"]
    return SimpleNamespace(
        method=environ["REQUEST_METHOD"],
        uri=environ["RAW_URI"],
        path=environ["RAW_URI"].partition("?")[0],
        query=environ["QUERY_STRING"],
        headers=fields,
        version=tuple(map(int, environ["SERVER_PROTOCOL"].removeprefix("HTTP/").split("."))),
        scheme=environ["wsgi.url_scheme"],
        remote_addr=address,
        peer_addr=address,
    )


def run_hook(name: str, hook: Callable[..., object], *args: object) -> bool:
    """Call it; whether it went well. What it raises is logged with its name."""
    try:
        hook(*args)
        return True
    except BaseException as error:  # SystemExit too: a hook does not end a server
        beyond = error.__traceback__ and error.__traceback__.tb_next  # without our own frame
        LOGGER.error("hook %s raised\n%s", name, format_traceback(error.with_traceback(beyond)))
        return False


def _count_arguments(hook: Callable[..., object]) -> int:
    """How many arguments to give to post_request: gunicorn's may take two, three or four."""
    import inspect  # dear: for this hook alone

    signature = inspect.signature(hook)  # of what a decorator has wrapped; of a method without its self
    for count in (4, 3):
        with suppress(TypeError):
            signature.bind(*range(count))
            return count
    return 2


def run_file(settings: Settings) -> dict[str, object]:
    """Run the configuration file as it was when the settings were read from it, whatever it says now; all its names."""
    return configfile.execute(settings.config, os.path.dirname(settings.config) or os.getcwd(), settings.source)


class HookFailed(AppLoadError):
    """A hook has raised, which has been logged: what it guards does not happen."""


class WorkerHooks:
    """The hooks that run in a worker, and what they are given."""

    def __init__(self, settings: Settings, slot: int, address: list[str]) -> None:
        """Run the file, as it was read, in this process; what that raises passes."""
        namespace = run_file(settings)
        self._hooks: dict[str, Any] = {name: namespace[name] for name in settings.hooks if name in namespace}
        self.server = make_server(settings, os.getppid(), address)
        self.worker = make_worker(settings, os.getpid(), slot, os.getppid())
        self._request: SimpleNamespace | None = None
        self._answered = 0
        self._told = _count_arguments(self._hooks["post_request"]) if "post_request" in self._hooks else 0

    def guard(self, name: str, *args: object) -> None:
        """Run the hook, if there is one; HookFailed when it raises."""
        if not self.call(name, *args):
            raise HookFailed(f"hook {name} raised")

    def call(self, name: str, *args: object) -> bool:
        """Run the hook, if there is one; whether all went well."""
        return name not in self._hooks or run_hook(name, self._hooks[name], *args)

    def wrap(self, app: WSGIApplication) -> WSGIApplication:
        """The application behind pre_request; itself, where no hook is told of requests."""
        if not {"pre_request", "post_request"} & set(self._hooks):
            return app

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            self._request = make_request(environ)  # for post_request too: later the application may have changed it
            self.guard("pre_request", self.worker, self._request)
            return app(environ, start_response)

        return application

    @property
    def after_request(self) -> Callable[[WSGIEnvironment, str, list[tuple[str, str]], int], None] | None:
        """The function that the server calls after each request, if any."""
        return self._after if "post_request" in self._hooks else None

    def _after(self, environ: WSGIEnvironment, status: str, headers: list[tuple[str, str]], sent: int) -> None:
        self._answered += 1
        self.worker.nr = self._answered  # which a hook may have made anything
        request, self._request = self._request or make_request(environ), None
        response = SimpleNamespace(status=status, status_code=int(status[:3]), headers=headers, sent=sent)
        self.call("post_request", *(self.worker, request, environ, response)[: self._told])
