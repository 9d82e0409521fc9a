"""The Python API: `serve` and `run`, as in 0.1.0."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from wsgiref.types import WSGIApplication

from minicorn import app
from minicorn.config.layers import from_options
from minicorn.config.settings import DEFAULTS, OPTIONS, Settings
from minicorn.errors import ConfigError
from minicorn.logs.logger import LOGGER
from minicorn.logs.logs import open_logs
from minicorn.server import Server
from minicorn.serving.loader import load_app, mount
from minicorn.system import activation, listeners, spawn
from minicorn.system.signals import Signals
from minicorn.system.surroundings import extend_path, set_up_process, set_variables
from minicorn.system.systemd import ServiceManager
from minicorn.system.title import set_title


def serve(
    app_path: str, host: str = DEFAULTS.host, port: int = DEFAULTS.port, workers: int = 1, **options: object
) -> None:
    """Load `app_path` ("main:app") and serve it until a signal, with `workers` processes.

    `options` are the other settings by name (`timeout=60`, `bind=["unix:/run/x"]`, ...). One worker
    serves in this process, unless they ask for what takes an arbiter, as `timeout` and `user` do. Workers
    of their own are forked by one, for which this must be the main thread.
    Raises ConfigError, AppLoadError, or SystemExit with the arbiter's exit code when that is not 0.
    """
    settings = from_options(app_path, host=host, port=port, workers=workers, **options)
    managed = _managed(settings, options)
    if managed and threading.current_thread() is not threading.main_thread():
        raise ConfigError(f"{', '.join(managed)}: that takes an arbiter, which forks from the main thread only")
    if not managed:
        _serve_here(lambda: mount(load_app(app_path)), settings)
    else:
        code = app.run_arbiter(settings)
        # Signals that came as the arbiter ended were meant for it
        while signal.sigtimedwait(spawn.MANAGED, 0):
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
        if code:
            raise SystemExit(code)


def run(application: WSGIApplication, host: str = DEFAULTS.host, port: int = DEFAULTS.port, **options: object) -> None:
    """Serve `application` in this process until a signal; `options` are the other settings by name.

    Raises ConfigError for one that takes an arbiter, as `timeout` and `user` do: that is for `serve`.
    """
    settings = from_options("", host=host, port=port, **options)
    if managed := _managed(settings, options):
        raise ConfigError(f"{', '.join(managed)}: run() serves in this process, which cannot do that; use serve()")
    _serve_here(lambda: application, settings)


def _managed(settings: Settings, options: dict[str, object]) -> list[str]:
    """The names of the `options` that take an arbiter; one that asks for nothing, such as `timeout=0`, takes none."""
    asked = [name for name, value in options.items() if value is not None and getattr(settings, name)]
    return ["workers"] * (settings.workers != 1) + [name for name in asked if OPTIONS[name].managed]


def _serve_here(load: Callable[[], WSGIApplication], settings: Settings) -> None:
    """Serve in this thread; in the main one, INT and TERM end it gracefully."""
    set_up_process(settings)
    set_variables(settings)
    extend_path(settings, os.getcwd())
    if settings.name:
        set_title(f"minicorn: server [{settings.name}]")
    application = load()
    logs = open_logs(settings)
    if settings.has_log_handlers:
        from minicorn.logs import logconfig

        logconfig.apply(settings)
    bound = activation.open_all(settings, ServiceManager({}))
    server = Server(application, settings.host, settings.port, settings=settings, bound=bound, access=logs.access)
    taken = Signals((signal.SIGINT, signal.SIGTERM)) if threading.current_thread() is threading.main_thread() else None
    if taken is not None:

        def stop() -> None:
            taken.take()
            server.signal_exit()

        taken.install()
        server.watch(taken.fd, stop, urgent=True)
    # Not logged before signals are taken: whoever reads it may send one at once
    LOGGER.info("Started server process [%d]", os.getpid())
    app.log_listeners(bound, settings.scheme)
    try:
        server.serve()
        LOGGER.info("Server stopped")
    finally:
        listeners.close_all(bound)
        if taken is not None:
            taken.restore()
