"""Joins the parts of a server with an arbiter: settings -> log, listeners, pid file, arbiter, workers."""

import importlib.util
import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from wsgiref.types import WSGIApplication

from minicorn import (
    accesslog,
    activation,
    channel,
    listeners,
    log,
    logconfig,
    shell,
    spawn,
    succession,
    systemd,
    terminal,
)
from minicorn.arbiter import Arbiter
from minicorn.attendant import Attendant
from minicorn.belongings import Belongings
from minicorn.cgroup import count_workers
from minicorn.channel import Channel
from minicorn.configuration import Configuration
from minicorn.desk import open_desk
from minicorn.errors import AppLoadError, ConfigError, ExitCode
from minicorn.forksafety import Watch
from minicorn.groundwork import Groundwork
from minicorn.life import USHER
from minicorn.listeners import Listener
from minicorn.loader import explain, load_app
from minicorn.log import LOGGER, Output, Sink
from minicorn.pidfile import PidFile
from minicorn.privileges import find_owner
from minicorn.reception import Reception
from minicorn.server import Server
from minicorn.settings import Settings
from minicorn.spawn import Post
from minicorn.succession import Estate
from minicorn.systemd import Manager
from minicorn.template import Boot, Template
from minicorn.title import set_title
from minicorn.upgrade import Upgrade
from minicorn.version import VERSION
from minicorn.worker import Worker, pythonpath, variables
from minicorn.worker import enter as enter_site


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
        called_in = logical_directory()
        enter(settings)
        if succession.CHECK in os.environ:
            spawn.leave(_check_successor(settings))  # what follows a call of `serve` is for the server's end
        return _run(settings, called_in, config, succession.inherit())
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def _check_watchdog(settings: Settings) -> None:
    try:
        missing = settings.reload and importlib.util.find_spec("watchdog") is None
    except ValueError:  # in its place stands something that is no module
        missing = True
    if missing:
        raise ConfigError("--reload needs watchdog: pip install 'minicorn[reload]'")


def _run(settings: Settings, called_in: str, config: Configuration | None, estate: Estate | None) -> ExitCode:
    _check_watchdog(settings)
    outputs = open_outputs(settings)
    if logconfig.is_wanted(settings):
        logconfig.check(settings)
    Reception(settings)  # each worker makes its own; certificates that are wrong are told before anything runs
    size = count_workers() if settings.workers == "auto" else settings.workers
    if estate is not None:
        size = estate.size
    owner = find_owner(settings)
    manager = Manager(systemd.take(os.environ) if estate is None else estate.manager)
    bound = _bind(settings, manager, estate)
    pidfile = desk = None
    try:
        desk = open_desk(settings, estate.desks if estate else [])
        if settings.pid:
            pidfile = PidFile(settings.pid, estate.pidfile_fd if estate and estate.pidfile_fd >= 0 else None)
        set_title(f"minicorn: arbiter [{settings.title}]")

        def boot(post: Post, settings: Settings) -> int:
            app = _usher() if post.generation == USHER else None
            return Worker(post, settings, outputs, directory(called_in, settings), app).run()

        def template(ground: Groundwork, post: Post, settings: Settings) -> int:
            place = directory(called_in, settings)

            def prepare() -> Boot:
                if settings.reload:
                    return _lay_ground(post, settings, outputs, place, ground)
                return _preload(post, settings, outputs, place)

            return Template(post, prepare, outputs, settings.title).run()

        attendants = []
        if settings.is_monitored:
            from minicorn.monitor import Monitor  # now, lest a later version of it be found; only if it is wanted

            def watch(line: Channel) -> int:
                return Monitor(settings, desk, belongings.directory.path, line).run()

            attendants.append(Attendant("monitor", watch, lambda message: None, desk))
        upgrade = Upgrade(called_in, settings.boot_timeout)
        try:
            fd = pidfile.fd if pidfile else -1
            belongings = Belongings(settings, bound, outputs, manager, fd, estate)
            if owner is not None:
                belongings.give(owner)
            arbiter = Arbiter(settings, size, belongings, boot, template, upgrade, estate, config, attendants)
        except OSError as error:
            raise ConfigError(f"cannot start: {error.strerror}; it takes more descriptors (ulimit -n)") from error
        begun = "Started" if estate is None else f"minicorn {VERSION} goes on as"
        LOGGER.info("%s arbiter [%d] with %d worker%s for %s", begun, os.getpid(), size, "s" * (size > 1), settings.app)
        tell_listeners(bound, settings.scheme)
        if desk is not None:
            LOGGER.info("Monitor on %s", desk.name)
        for note in config.notes if config else ():
            LOGGER.info("%s", note)
        if estate is None:
            _warn_of_shell()
        return arbiter.run()
    finally:
        listeners.close_all([*bound, desk] if desk else bound)
        if pidfile is not None:
            pidfile.remove()


def _warn_of_shell() -> None:
    parent = os.getppid()
    if shell.is_deaf(shell.read_command(parent), parent) and not terminal.has_foreground():
        LOGGER.warning(
            "started by a shell (pid %d), which gets our signals and passes none on: write `exec minicorn ...` there, "
            "or CMD as a JSON list in a Dockerfile",
            parent,
        )


def _usher() -> WSGIApplication:
    from minicorn.showing import WaitingPage

    return WaitingPage(USHER)


def _preload(post: Post, settings: Settings, outputs: list[Sink], directory: str) -> Boot:
    """In a template of `--preload`: import the application, make the warm-up requests; what its workers run."""
    enter_site(settings, directory)
    watch = Watch()
    with watch.watching():
        app = load_app(settings.app)
        LOGGER.disabled = False  # logging.config.dictConfig disables the loggers that it does not know
        server = Server(app, settings=settings, bound=post.listeners, page=post.page)
        server.warm_up()
        server.shutdown()
    findings = watch.findings()
    for finding in findings:
        LOGGER.warning("--preload: %s", finding)
    if findings and settings.preload_strict:
        raise AppLoadError(f"--preload-strict: {len(findings)} found that a fork breaks or shares, told above")

    def boot(post: Post) -> int:
        return Worker(post, settings, outputs, directory, app, promote if settings.refork_after else None).run()

    def promote(post: Post) -> int:
        return Template(post, lambda: boot, outputs, settings.title).run()

    return boot


def _lay_ground(post: Post, settings: Settings, outputs: list[Sink], directory: str, ground: Groundwork) -> Boot:
    """In a template of `--reload`: import what is not the project's; what its workers run."""
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    post.channel.send(channel.REFUSED, json.dumps(ground.lay()))
    return lambda post: Worker(post, settings, outputs, directory).run()


def _bind(settings: Settings, manager: Manager, estate: Estate | None) -> list[Listener]:
    if estate is None:
        return activation.open_all(settings, manager)
    return [listeners.adopt(*left, number) for number, left in enumerate(estate.listeners)]


def _check_successor(settings: Settings) -> ExitCode:
    """For an upgrade: whether this program, this configuration and the application load, and
    whether this program can take over; what is said on standard error is logged by the arbiter."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
    if os.environ[succession.CHECK] != str(succession.VERSION):
        raise ConfigError("the arbiter that runs is of a version that cannot hand over to this one")
    return _load(settings)


def check(settings: Settings) -> ExitCode:
    """Whether a server could start: --check-config. What is wrong is said on standard error."""
    enter(settings)
    return _load(settings)


def _load(settings: Settings) -> ExitCode:
    find_owner(settings)
    open_outputs(settings)
    Reception(settings)
    try:
        sys.path[:0] = [os.getcwd(), *pythonpath(settings)]
        os.environ.update(variables(settings))
        load_app(settings.app)
    except BaseException as error:
        sys.stderr.write(f"{explain(error)}\n")
        return ExitCode.APP
    return ExitCode.OK


def tell_listeners(bound: list[Listener], scheme: str) -> None:
    """Say where we listen; port 0 has become a real one."""
    for listener in bound:
        LOGGER.info("Listening on %s", listener.url(scheme))


def open_outputs(settings: Settings) -> list[Sink]:
    """The error log, and the access log where one is wanted; a wrong format is told before anything runs."""
    outputs: list[Sink] = [log.set_up(settings.error_logfile, settings.log_level, settings.log_format)]
    accesslog.compile_format(settings.access_logformat)
    file = None
    if settings.access_logfile is not None:
        file = Output(settings.access_logfile, 1, json=settings.access_logformat == accesslog.JSON)
    if logconfig.takes_access(settings):
        outputs.append(logconfig.AccessLogger(file))
    elif file is not None:
        outputs.append(file)
    return outputs


def enter(settings: Settings) -> None:
    """Take on umask, descriptor limit and directory."""
    if settings.umask is not None:
        os.umask(settings.umask)
    _raise_descriptor_limit()
    try:
        os.chdir(directory(logical_directory(), settings))
    except OSError as error:
        raise ConfigError(f"--chdir {settings.chdir}: {error.strerror}") from error


def directory(called_in: str, settings: Settings) -> str:
    """Where the application lives, its path as it was given, so that whoever enters it again
    follows a symlink in it anew."""
    return os.path.join(called_in, settings.chdir or "").rstrip("/") or "/"


def logical_directory() -> str:
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
