"""Joins the parts of a server with an arbiter: settings -> log, listeners, pid file, arbiter, workers."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from minicorn.arbiter import succession
from minicorn.arbiter.arbiter import Arbiter
from minicorn.arbiter.auxiliary import Auxiliary
from minicorn.arbiter.resources import Resources
from minicorn.arbiter.succession import Inheritance
from minicorn.config.configuration import Configuration
from minicorn.config.settings import Settings
from minicorn.errors import ConfigError, ExitCode
from minicorn.figures.directory import Directory
from minicorn.figures.endpoint import check_endpoint, open_endpoint
from minicorn.logs import errorlog
from minicorn.logs.explanation import explain
from minicorn.logs.logger import LOGGER
from minicorn.logs.logs import Logs, open_logs
from minicorn.offspring import Offspring
from minicorn.serving.loader import load_app
from minicorn.serving.reception import Reception
from minicorn.system import activation, listeners, shell, spawn, systemd, terminal
from minicorn.system.cgroup import count_workers
from minicorn.system.listeners import Listener
from minicorn.system.privileges import find_owner
from minicorn.system.surroundings import logical_directory, provide, set_up_process
from minicorn.system.systemd import ServiceManager
from minicorn.system.title import set_title
from minicorn.version import VERSION


def run_arbiter(settings: Settings, config: Configuration | None = None) -> ExitCode:
    """Bind, fork, supervise, until a signal ends it. ConfigError when it cannot begin.

    `config`: where the settings came from, for HUP to read again.

    The managed signals are held back until the arbiter takes them, so that none kills a server
    that is half begun; and they are left blocked at its end, for a caller that ends as well.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("workers can be forked from the main thread only; in another one, use one worker")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, spawn.MANAGED)
    try:
        called_in, inherited = logical_directory(), succession.inherit()
        with _optional_after_upgrade(inherited):
            set_up_process(settings)
        if succession.CHECK in os.environ:
            spawn.leave(_check_successor(settings))  # what follows a call of `serve` is for the server's end
        return _run(settings, called_in, config, inherited)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def _check_reload(settings: Settings) -> None:
    """See that all is there that --reload needs; ConfigError for what is not."""
    import importlib.util

    try:
        missing = importlib.util.find_spec("watchdog") is None
    except ValueError:  # in its place stands something that is no module
        missing = True
    if missing:
        raise ConfigError("--reload needs watchdog: pip install watchdog")
    for flag, paths in (("dir", settings.reload_dir), ("extra-file", map(os.path.dirname, settings.reload_extra_file))):
        for path in paths:
            if not os.path.isdir(path or os.curdir):
                raise ConfigError(f"--reload-{flag}: there is no directory {path}")


def _import_for_children(settings: Settings) -> None:
    """Import now what our children will need with these settings: so they all share it, and none finds a newer
    version of it, installed meanwhile, that does not fit the one that runs."""
    logged = settings.access_logfile is not None or settings.has_log_handlers
    wanted = {
        # Modules that the arbiter imports itself before any fork are here for the check of an upgrade
        "minicorn.arbiter.logger": settings.has_log_handlers,
        "minicorn.arbiter.reloading": settings.reload,
        "minicorn.figures.monitor": settings.is_monitored,
        "minicorn.logs.capture": settings.capture_output,
        "minicorn.logs.syslog": settings.log_syslog,
        "minicorn.reload.development": settings.reload,
        "minicorn.serving.forksafety": settings.preload,
        "minicorn.serving.hooks": settings.hooks,
        "minicorn.serving.preface": settings.proxy_protocol != "off",
        "minicorn.serving.promotion": settings.refork_after,
        "minicorn.serving.requestlog": logged,
        "minicorn.serving.template": settings.preload or settings.reload,
        "minicorn.serving.warmup": settings.warmup,
        "ipaddress": settings.user or settings.group,  # who may not be allowed to read it when a request needs it
    }
    for name in [name for name, is_wanted in wanted.items() if is_wanted]:
        importlib.import_module(name)


def _open_logs(settings: Settings, inherited: Inheritance | None) -> Logs:
    """Open the logs; where that cannot be done any more after an upgrade, the error log alone, on standard error."""
    with _optional_after_upgrade(inherited):
        return open_logs(settings)
    return Logs(errorlog.set_up("-", settings.log_level, settings.log_format), None)


def _check_settings(settings: Settings) -> None:
    """Check what can be checked before anything is bound or forked; ConfigError."""
    if settings.reload:
        _check_reload(settings)
    if settings.has_log_handlers:
        from minicorn.logs import logconfig

        logconfig.check(settings)
    Reception(settings)  # each worker makes its own


def _run(settings: Settings, called_in: str, config: Configuration | None, inherited: Inheritance | None) -> ExitCode:
    _import_for_children(settings)
    logs, owner = _open_logs(settings, inherited), None
    with _optional_after_upgrade(inherited):
        owner = find_owner(settings)
    # What has gone since the check of an upgrade, no new worker boots without, and the old ones serve on
    with _optional_after_upgrade(inherited):
        _check_settings(settings)
    manager = ServiceManager(systemd.take(os.environ) if inherited is None else inherited.manager)
    with contextlib.ExitStack() as ends:
        bound = _bind(settings, manager, inherited)
        ends.callback(listeners.close_all, bound)
        endpoint = None
        with _optional_after_upgrade(inherited):
            endpoint = open_endpoint(settings, manager, inherited.endpoints if inherited else [])
        ends.callback(listeners.close_all, [endpoint] if endpoint else [])
        pidfile_fd = _open_pidfile(settings, inherited, ends)
        set_title(f"minicorn: arbiter [{settings.title}]")
        size = inherited.size if inherited else count_workers(settings.workers)
        try:
            resources = Resources(settings, bound, logs, manager, pidfile_fd, inherited)
            if owner is not None:
                with _optional_after_upgrade(inherited):
                    resources.give(owner)
            if endpoint or settings.statsd_host is not None:
                resources.auxiliaries.members.append(_make_monitor(settings, endpoint, resources.directory.path))
            arbiter = Arbiter(settings, size, resources, Offspring(logs, called_in), called_in, inherited, config)
        except OSError as error:
            raise ConfigError(f"cannot start: {error.strerror}; it takes more descriptors (ulimit -n)") from error
        begun = "Started" if inherited is None else f"minicorn {VERSION} goes on as"
        LOGGER.info("%s arbiter [%d] with %d worker%s for %s", begun, os.getpid(), size, "s" * (size > 1), settings.app)
        _log_places(bound, endpoint, settings, config)
        if inherited is None:
            _warn_of_shell()
        return arbiter.run()


def _open_pidfile(settings: Settings, inherited: Inheritance | None, ends: contextlib.ExitStack) -> int:
    """The descriptor of the pid file, which is removed as `ends` are reached; -1 without one."""
    if settings.pid:
        from minicorn.system.pidfile import PidFile

        left = inherited.pidfile_fd if inherited and inherited.pidfile_fd >= 0 else None
        with _optional_after_upgrade(inherited):
            pidfile = PidFile(settings.pid, left)
            ends.callback(pidfile.remove)
            return pidfile.fd
    return -1


def _make_monitor(settings: Settings, endpoint: Listener | None, directory: str) -> Auxiliary:
    """The child that shows figures of the server in `directory`; it listens at `endpoint`, if at all."""
    from minicorn.figures.monitor import Monitor  # now, lest a later version of it be found; only if it is wanted

    return Auxiliary(
        "monitor", lambda line: Monitor(settings, endpoint, directory, line).run(), lambda message: None, endpoint
    )


@contextlib.contextmanager
def _optional_after_upgrade(inherited: Inheritance | None) -> Iterator[None]:
    """Let a ConfigError pass where a server begins; one that goes on after an upgrade logs it, and does without."""
    try:
        yield
    except ConfigError as error:
        if inherited is None:
            raise
        LOGGER.error("%s; all serve on without", error)


def _log_places(
    bound: list[Listener], endpoint: Listener | None, settings: Settings, config: Configuration | None
) -> None:
    """Log where we listen, and what a reader of the log should know of the configuration."""
    log_listeners(bound, settings.scheme)
    if endpoint is not None:
        LOGGER.info("Monitor on %s", endpoint.name)
    for note in config.notes if config else ():
        LOGGER.info("%s", note)


def _warn_of_shell() -> None:
    parent = os.getppid()
    if shell.is_deaf(shell.read_command(parent), parent) and not terminal.has_foreground():
        LOGGER.warning(
            "started by a shell (pid %d), which gets our signals and passes none on: write `exec minicorn ...` there, "
            "or CMD as a JSON list in a Dockerfile",
            parent,
        )


def _bind(settings: Settings, manager: ServiceManager, inherited: Inheritance | None) -> list[Listener]:
    if inherited is None:
        return activation.open_all(settings, manager)
    return [listeners.adopt(left, number) for number, left in enumerate(inherited.listeners)]


def _check_successor(settings: Settings) -> ExitCode:
    """Check, for an upgrade, that this program, its configuration and the application load, and that this program
    can take over. What is said on standard error is logged by the arbiter."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
    if os.environ[succession.CHECK] != str(succession.VERSION):
        raise ConfigError("the arbiter that runs is of a version that cannot hand over to this one")
    _import_for_children(settings)
    check_endpoint(settings)
    if succession.UNWATCHED in os.environ and (endpoint := open_endpoint(settings, ServiceManager({}), [])):
        listeners.close_all([endpoint])
    if settings.pid:
        from minicorn.system.pidfile import check_pidfile

        check_pidfile(settings.pid, os.getppid())
    return _check_rest(settings)


def check(settings: Settings) -> ExitCode:
    """Check that a server could start (--check-config), and say on standard error what is wrong.

    A server may run beside this: what is in use by somebody counts as available. Nothing is left behind, since
    another user than the server's may ask.
    """
    set_up_process(settings)
    logs = (settings.error_logfile, settings.access_logfile or "-")
    made = [os.path.abspath(path) for path in logs if path != "-" and not os.path.exists(path)]
    for address in settings.addresses:
        listeners.check(address)
    check_endpoint(settings)
    if settings.pid:
        from minicorn.system.pidfile import check_pidfile

        check_pidfile(settings.pid)
    Directory(settings.worker_tmp_dir).remove()
    try:
        return _check_rest(settings)
    finally:
        for path in made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _check_rest(settings: Settings) -> ExitCode:
    """Check what an upgrade and --check-config both need: logs, users, and that the application loads."""
    open_logs(settings)
    find_owner(settings)
    _check_settings(settings)
    try:
        provide(settings, os.getcwd())
        load_app(settings.app)
    except BaseException as error:
        sys.stderr.write(f"{explain(error)}\n")
        return ExitCode.APP
    return ExitCode.OK


def log_listeners(bound: list[Listener], scheme: str) -> None:
    """Say where we listen; port 0 has become a real one."""
    for listener in bound:
        LOGGER.info("Listening on %s", listener.url(scheme))
