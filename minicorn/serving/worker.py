"""A worker process: boot, say READY, serve, retire. One request at a time, in the main thread.

Started by a fork, signals blocked. It never binds, unlinks or shuts down a listener, and
never imports the arbiter: what they say to each other goes over the channel.
"""

from __future__ import annotations

import atexit
import faulthandler
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from minicorn.config.settings import Settings
from minicorn.errors import ExitCode
from minicorn.logs.errorlog import reopen_handlers
from minicorn.logs.explanation import explain
from minicorn.logs.logger import LOGGER
from minicorn.logs.logs import Logs
from minicorn.pool.life import PLACEHOLDER
from minicorn.record import as_dict
from minicorn.server import Server
from minicorn.serving.loader import load_app, mount
from minicorn.serving.post import Post
from minicorn.serving.seat import Seat
from minicorn.system import channel, signals, spawn
from minicorn.system.channel import Message
from minicorn.system.privileges import find_owner
from minicorn.system.signals import Signals
from minicorn.system.title import set_title
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # ours are imported where they are on
    from wsgiref.types import WSGIApplication

    from minicorn.serving.hooks import WorkerHooks
    from minicorn.serving.promotion import Promotion


# Those sent by hand as well: TERM asks for a successor, QUIT ends, the others are harmless. INT is the
# terminal's, sent to the whole foreground group: the arbiter decides what it means. So it does with a TERM
# that all have been sent, as systemd sends it by default: who went by himself would leave what waits to nobody.
TAKEN = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# Seconds between our own end and the arbiter's SIGKILL
LEAVE_MARGIN = 0.5


class Worker:
    """One worker, from its fork to its end."""

    def __init__(
        self,
        post: Post,
        settings: Settings,
        logs: Logs,
        enter: Callable[[], None],
        app: WSGIApplication | None = None,
        be_template: Callable[[Post], int] | None = None,
    ) -> None:
        """`enter` makes the surroundings those of the application, before its import. `app` is what its
        template, which has entered them, has imported and warmed up, if it has one; or a placeholder's page.
        `be_template`, if it may be promoted, is the life of what it forks then."""
        self._post = post
        self._settings = settings
        self._listeners = post.listeners
        self._server: Server  # once all is loaded
        self._app = app
        self._be_template = be_template
        self._promotion: Promotion | None = None
        self._logs = logs
        self._enter = enter
        self._signals = Signals(TAKEN)
        self._leave_by = math.inf
        self._hooks: WorkerHooks | None = None

    def run(self) -> ExitCode:
        """Run the worker from its fork to its end; the exit code."""
        self._signals.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, spawn.MANAGED)
        if self._settings.umask is not None:  # HUP may have changed it
            os.umask(self._settings.umask)
        if "worker_abort" in self._settings.hooks:
            signal.signal(signal.SIGABRT, self._abort)
        # After the handlers: faulthandler takes SIGABRT, and shows all stacks even when C code holds the GIL
        self._post.take_up()
        faulthandler.register(signals.STACKS, self._post.trace_fd, all_threads=True)
        self._set_title("booting")
        try:
            self._boot()
        except BaseException as error:  # SystemExit too: `exit(3)` at import is a failed boot
            self._post.fail(explain(error))
            return ExitCode.APP
        if self._server.development is not None and self._post.generation != PLACEHOLDER:
            self._server.development.on_imports = self._tell_imports
            self._tell_imports()
        # As Python itself sets it: what has been imported may have undone that, as command-line tools do, and then a
        # client that leaves would end us
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._set_title("ready")
        self._post.page.idle(time.monotonic())
        self._post.ready()
        self._listen()  # whoever was told to retire while it booted takes no connection
        if not self._server.should_exit:
            self._server.serve()
        self._leave()
        return ExitCode.OK

    def _lead_output(self) -> None:
        """Lead what the application prints, and what all log, to where the settings say."""
        if self._settings.capture_output:
            from minicorn.logs.capture import capture

            capture(self._logs.error)
        if self._settings.has_log_handlers:
            from minicorn.logs import logconfig

            logconfig.apply(self._settings)

    def _boot(self) -> None:
        post = self._post
        os.environ["MINICORN_WORKER"] = str(post.slot)
        if self._app is None:
            try:
                self._enter()
            except OSError:  # the directory has gone
                if not post.failure:  # which is that, to be shown
                    raise
        os.register_at_fork(after_in_child=post.close_shared)  # the application may fork, at its import too
        self._lead_output()
        hooks = self._hooks = self._take_hooks()
        if hooks is not None:
            hooks.guard("pre_fork", hooks.server, hooks.worker)
            hooks.guard("post_fork", hooks.server, hooks.worker)
        if owner := find_owner(self._settings):
            owner.become()
        app = mount(self._app or self._load())
        post.take_stack()
        self._server = self._make_server(hooks.wrap(app) if hooks else app)
        if hooks is not None:
            self._server.after_request = hooks.after_request
            hooks.guard("post_worker_init", hooks.worker)
        if self._app is None:
            self._server.warm_up()
        if self._be_template is not None:
            from minicorn.serving.promotion import Promotion

            self._promotion = Promotion(post, self._server, self._signals, self._be_template)

    def _make_server(self, app: WSGIApplication) -> Server:
        post = self._post
        server = Server(
            app,
            settings=self._settings,
            bound=self._listeners,
            access=self._logs.access,
            seat=Seat(post.slot, post.generation, post.page, post.idle_map, post.handoff),
        )
        if not self._settings.capture_output:  # which leads standard error there already
            server.errors = self._logs.error.errors()
        server.watch(self._signals.fd, self._obey)
        server.watch(post.channel.fd, self._listen, urgent=True)
        if self._settings.max_requests:
            import random

            limit = self._settings.max_requests + random.randint(0, self._settings.max_requests_jitter)
            wish = f"it has served {limit} requests"
            server.limit_requests(limit, lambda: post.channel.send(channel.RECYCLE, wish))
        return server

    def _tell_imports(self) -> None:
        from minicorn.reload.imports import survey

        self._post.channel.send(channel.IMPORTED, as_dict(survey()))

    def _load(self) -> WSGIApplication:
        if not self._settings.reload:
            return load_app(self._settings.app)
        from minicorn.reload.development import load

        return load(self._settings, self._post)

    def _take_hooks(self) -> WorkerHooks | None:
        if not self._settings.hooks:
            return None
        from minicorn.serving.hooks import WorkerHooks

        names = [listener.name for listener in self._listeners]
        return WorkerHooks(self._settings, self._post.slot, names)

    def _abort(self, signum: int, frame: FrameType | None) -> None:
        """Run the hook upon SIGABRT, after faulthandler has written the stack; then die of it, as was meant."""
        if self._hooks is not None:
            self._hooks.call("worker_abort", self._hooks.worker)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)

    def _obey(self) -> None:
        for signum in self._signals.take():
            if signum == signal.SIGTERM:
                self._post.channel.send(channel.RECYCLE, "it was sent SIGTERM")
            elif signum == signal.SIGQUIT:
                if self._hooks is not None:
                    self._hooks.call("worker_int", self._hooks.worker)
                self._leave()
                spawn.leave(ExitCode.OK)

    def _listen(self) -> None:
        messages, alive = self._post.channel.receive()
        for message in messages:
            self._heed(message)
        if not alive:
            # Nobody will replace us, and whoever starts next needs the address: finish and go
            self._server.unwatch(self._post.channel.fd)
            self._server.abandon()

    def _heed(self, message: Message) -> None:
        development = self._server.development
        match message.word:
            case channel.REOPEN:
                self._logs.reopen()
                reopen_handlers()
            case channel.PART:
                self._server.part()
            case channel.SEAL:
                self._server.seal()
                self._post.channel.send(channel.SEALED)
            case channel.ORDER if self._promotion is not None:
                self._promotion.take(message)
            case channel.HOLD if development is not None:
                development.hold()
            case channel.EXCUSE if development is not None:
                development.excuse()
            case channel.RETIRE:
                self._retire(drain=False)
            case channel.DRAIN:
                self._retire(drain=True)

    def _retire(self, drain: bool) -> None:
        self._set_title("retiring")
        self._leave_by = min(self._leave_by, time.monotonic() + self._settings.graceful_timeout)
        self._server.signal_exit(drain)
        if not drain and self._server.development is not None:
            self._server.development.give_held()

    def _set_title(self, state: str) -> None:
        post = self._post
        set_title(f"minicorn: worker {post.slot} gen {post.generation} [{self._settings.title}] {state}")

    def _leave(self) -> None:
        """Let the application end: threads that are no daemons, executors, atexit functions (Sentry
        and OpenTelemetry flush there). Whoever takes longer than we are given leaves a stack."""
        patience = min(self._settings.graceful_timeout, self._leave_by - time.monotonic()) - LEAVE_MARGIN
        with suppress(RuntimeError):  # no thread to be had: the arbiter's patience will do
            faulthandler.dump_traceback_later(max(LEAVE_MARGIN, patience), exit=True, file=self._post.stack_fd)
        try:
            if self._hooks is not None:
                self._hooks.call("worker_exit", self._hooks.server, self._hooks.worker)
            threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter does before atexit
            atexit._run_exitfuncs()
        except BaseException as error:
            LOGGER.error("an exit function of the application raised\n%s", explain(error))
        spawn.flush_files()
        faulthandler.cancel_dump_traceback_later()
