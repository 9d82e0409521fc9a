"""Joins the parts: settings -> log, listeners, pid file, arbiter and its workers; and the Python API."""

import os
import resource
import threading
from pathlib import Path
from signal import SIGINT, SIGTERM
from wsgiref.types import WSGIApplication

from minicorn import accesslog, listeners, log
from minicorn.arbiter import Arbiter
from minicorn.cpus import count_cpus
from minicorn.errors import ConfigError, ExitCode
from minicorn.loader import load_app
from minicorn.log import LOGGER, Output
from minicorn.pidfile import PidFile
from minicorn.server import DEFAULTS, Server
from minicorn.settings import Settings
from minicorn.signals import Signals
from minicorn.spawn import Post
from minicorn.title import set_title
from minicorn.worker import Worker


def serve(
    app_path: str, host: str = DEFAULTS.host, port: int = DEFAULTS.port, workers: int = 1, **options: object
) -> None:
    """Load `app_path` ("main:app") and serve it until a signal, with `workers` processes.

    `options` are the other settings by name (`timeout=60`, ...). One worker serves in this
    process; more are forked by an arbiter, for which this must be the main thread.
    Raises ConfigError, AppLoadError, or SystemExit with the arbiter's exit code when that is not 0.
    """
    settings = Settings(app=app_path, host=host, port=port, workers=workers, **options)  # type: ignore[arg-type]
    if workers == 1:
        _serve_here(Server(load_app(app_path), host, port, settings=settings))
    else:
        code = run_arbiter(settings)
        if code:
            raise SystemExit(code)


def run(app: WSGIApplication, host: str = DEFAULTS.host, port: int = DEFAULTS.port, **options: object) -> None:
    """Serve `app` in this process until a signal; `options` are the other settings by name."""
    settings = Settings(host=host, port=port, **options)  # type: ignore[arg-type]
    _serve_here(Server(app, host, port, settings=settings))


def _serve_here(server: Server) -> None:
    """Serve in this thread; in the main one, INT and TERM end it gracefully."""
    if threading.current_thread() is not threading.main_thread():
        server.serve()
        return
    taken = Signals((SIGINT, SIGTERM))
    taken.install()
    server.watch(taken.fd, server.signal_exit)
    try:
        server.serve()
    finally:
        taken.restore()


def run_arbiter(settings: Settings) -> ExitCode:
    """Bind, fork, supervise, until a signal ends it. ConfigError when it cannot begin."""
    directory = _enter(settings)
    _raise_descriptor_limit()
    outputs = [log.set_up(settings.error_logfile, settings.log_level)]
    if settings.access_logfile is not None:
        accesslog.compile_format(settings.access_logformat)  # a wrong one is told before a worker runs
        outputs.append(Output(settings.access_logfile, 1))
    size = count_cpus() if settings.workers == "auto" else settings.workers
    bound = listeners.bind_all(settings.addresses, settings.backlog)
    pidfile = None
    try:
        pidfile = PidFile(settings.pid) if settings.pid else None
        set_title(f"minicorn: arbiter [{settings.title}]")
        kept = bound.copy()  # the arbiter empties its own list when it stops

        def boot(post: Post) -> int:
            return Worker(post, settings, kept, outputs, directory).run()

        arbiter = Arbiter(settings, size, bound, outputs, boot, [pidfile.fd] if pidfile else [])
        LOGGER.info("Started arbiter [%d] with %d worker%s for %s", os.getpid(), size, "s" * (size > 1), settings.app)
        for listener in bound:
            LOGGER.info("Listening on %s", listener.name)
        return arbiter.run()
    finally:
        listeners.close_all(bound)
        if pidfile is not None:
            pidfile.remove()


def _enter(settings: Settings) -> str:
    """Go where the application lives. The path as it was given, so that a symlink in it is followed anew."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("workers can be forked from the main thread only; in another one, use one worker")
    if settings.umask is not None:
        os.umask(settings.umask)
    directory = os.path.join(_logical_directory(), settings.chdir or "")
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError(f"--chdir {settings.chdir}: {error.strerror}") from error
    return directory.rstrip("/") or "/"


def _logical_directory() -> str:
    """The current directory as the shell calls it: with the symlinks that lead there."""
    logical = os.environ.get("PWD", "")
    try:
        return logical if logical and Path(logical).samefile(".") else os.getcwd()
    except OSError:
        return os.getcwd()


def _raise_descriptor_limit() -> None:
    """To the hard limit: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # macOS has a lower limit of its own: the soft one will do
