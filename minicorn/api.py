"""The Python API: `serve` and `run`, as in 0.1.0."""

from __future__ import annotations

import os
import signal
import threading
from wsgiref.types import WSGIApplication

from minicorn import app
from minicorn.config.settings import DEFAULTS, Settings, from_options
from minicorn.logs.log import LOGGER
from minicorn.server import Server
from minicorn.serving.loader import load_app
from minicorn.system import listeners, spawn
from minicorn.system.signals import Signals


def serve(
    app_path: str, host: str = DEFAULTS.host, port: int = DEFAULTS.port, workers: int = 1, **options: object
) -> None:
    """Load `app_path` ("main:app") and serve it until a signal, with `workers` processes.

    `options` are the other settings by name (`timeout=60`, `bind=["unix:/run/x"]`, ...). One worker
    serves in this process; more are forked by an arbiter, for which this must be the main thread.
    Raises ConfigError, AppLoadError, or SystemExit with the arbiter's exit code when that is not 0.
    """
    settings = from_options(app_path, host=host, port=port, workers=workers, **options)
    if settings.workers == 1:
        _serve_here(load_app(app_path), settings)
    else:
        code = app.run_arbiter(settings)
        # What came as the arbiter ended was meant for it
        while signal.sigtimedwait(spawn.MANAGED, 0):
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
        if code:
            raise SystemExit(code)


def run(application: WSGIApplication, host: str = DEFAULTS.host, port: int = DEFAULTS.port, **options: object) -> None:
    """Serve `application` in this process until a signal; `options` are the other settings by name."""
    _serve_here(application, from_options("", host=host, port=port, **options))


def _serve_here(application: WSGIApplication, settings: Settings) -> None:
    """Serve in this thread; in the main one, INT and TERM end it gracefully."""
    app.enter(settings)
    access = app.open_outputs(settings)[1:]
    if settings.has_log_handlers:
        from minicorn.logs import logconfig

        logconfig.apply(settings)
    bound = listeners.bind_all(settings.addresses, settings.backlog, settings.reuse_port)
    server = Server(
        application, settings.host, settings.port, settings=settings, bound=bound, access=access[0] if access else None
    )
    taken = Signals((signal.SIGINT, signal.SIGTERM)) if threading.current_thread() is threading.main_thread() else None
    if taken is not None:

        def stop() -> None:
            taken.take()
            server.signal_exit()

        taken.install()
        server.watch(taken.fd, stop, urgent=True)
    # Whoever reads this may send a signal at once: it is taken already
    LOGGER.info("Started server process [%d]", os.getpid())
    app.tell_listeners(bound, settings.scheme)
    try:
        server.serve()
        LOGGER.info("Server stopped")
    finally:
        listeners.close_all(bound)
        if taken is not None:
            taken.restore()
