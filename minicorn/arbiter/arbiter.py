"""The arbiter: waits, takes signals, reaps, asks the pool for a plan, performs it.

One thread, never blocked: it forks, so a thread or an import of the application's here would
break its children. It knows workers by their channel and their page alone; what to do is
decided in `pool`, and this loop has it done: by `births` and `deaths`, with what it owns
(`resources`), after a look at its workers (`rounds`).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial

from minicorn.arbiter.auxiliary import Auxiliary
from minicorn.arbiter.births import Births, Lives, find_fork_source
from minicorn.arbiter.chronicle import Chronicle
from minicorn.arbiter.deaths import Deaths
from minicorn.arbiter.hookline import HookLine
from minicorn.arbiter.reconfiguration import Reconfiguration
from minicorn.arbiter.regimes import Regimes
from minicorn.arbiter.resources import Resources, inherit
from minicorn.arbiter.rounds import Rounds
from minicorn.arbiter.succession import Inheritance
from minicorn.arbiter.upgrade import Upgrade
from minicorn.config.configuration import Configuration
from minicorn.config.settings import Settings, from_data
from minicorn.errors import ExitCode
from minicorn.logs import complaints
from minicorn.logs.logger import LOGGER
from minicorn.pool.actions import Abort, Action, Drain, Excuse, Hold, Kill, Quit, Retire, Say, Seal, Spawn, Tell
from minicorn.pool.life import Exit
from minicorn.pool.notifier import Notifier, read_phase
from minicorn.pool.pool import Pool
from minicorn.pool.shutdown import Stop
from minicorn.system import channel, spawn, terminal
from minicorn.system.channel import Message
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # with --reload: imported where it is on
    from minicorn.arbiter.reloading import Reloading

TICK = 1.0
# Waking so many seconds later than planned means that this process, or the machine, was stopped. Nobody can tell
# for how much of the planned sleep as well, so workers are granted all of it
OVERSLEPT = 0.15
# Seconds that auxiliaries have to end in, when the server has ended
FAREWELL = 1.0
IN_USE = os.strerror(errno.EADDRINUSE)
# The word of the channel for each thing that the pool has to say to a worker
WORDS: dict[type[Tell], str] = {
    Retire: channel.RETIRE,
    Seal: channel.SEAL,
    Drain: channel.DRAIN,
    Hold: channel.HOLD,
    Excuse: channel.EXCUSE,
}


class Arbiter:
    """The master process of a server whose listeners stand."""

    def __init__(
        self,
        settings: Settings,
        size: int,
        resources: Resources,
        lives: Lives,
        called_in: str,
        inherited: Inheritance | None,
        config: Configuration | None,
    ) -> None:
        """`size`: workers wanted; `lives`: what its children do; `called_in`: the directory in which the program was
        called; `inherited`: what the arbiter's image before has left; `config`: what HUP reads again."""
        self._resources = resources
        serving = from_data(inherited.settings, settings) if inherited else settings
        self._pool = _make_pool(size, serving)
        self._regimes = Regimes(serving, settings, self._pool.rolls)
        self._chronicle = Chronicle(resources.directory.ledger(), settings, resources.listeners, inherited is not None)
        complaints.collect(self._chronicle.complain)
        self._deaths = Deaths(self._pool, resources, self._chronicle)
        self._rounds = Rounds(self._pool, resources.directory)
        self._reloading: Reloading | None = None
        if settings.reload:
            from minicorn.arbiter import reloading

            self._reloading = reloading.Reloading(settings, self._pool)
        self._births = Births(self._pool, resources, lives, self._reloading.ground if self._reloading else None)
        self._hooks = HookLine(settings, [listener.name for listener in resources.listeners])
        self._reconfiguration = Reconfiguration(
            config, resources, self._pool, self._regimes, self._hooks, self._chronicle
        )
        self._logger = _make_logger(settings) if settings.has_log_handlers else None
        wanted = (self._logger, self._hooks.auxiliary, self._reloading.watcher if self._reloading else None)
        resources.auxiliaries.members += [auxiliary for auxiliary in wanted if auxiliary is not None]
        self._upgrade = Upgrade(called_in, settings.boot_timeout, resources, self._pool, self._regimes, self._hooks)
        self._notifier = Notifier(resources.manager.watchdog)
        self._refused = False  # by on_starting
        self._fresh = inherited is None  # after an upgrade nothing but a signal ends what serves
        self._foreground = terminal.has_foreground()
        # When the next plan was to be made, when the last one was, and when the next round is due
        self._planned = self._last = self._next_round = 0.0
        if inherited is not None:
            self._take_over(inherited)

    def _take_over(self, inherited: Inheritance) -> None:
        """Go on with the workers of the image before, whom a roll replaces."""
        self._pool.rolls.wishes = self._chronicle.reloads
        inherit(self._pool, inherited)
        for pid in self._pool.workers:
            self._rounds.allow(pid, self._settings.max_worker_memory)

    @property
    def _settings(self) -> Settings:
        """The settings that the arbiter goes by: those of the generation that serves."""
        return self._regimes.serving

    def run(self) -> ExitCode:
        """Supervise until a signal ends the server; the exit code."""
        self._resources.signals.install()
        self._hooks.call("on_starting", then=self._started if self._fresh else bool)
        self._hooks.call("when_ready")
        try:
            self._planned = self._last = began = time.monotonic()
            self._next_round = began + TICK
            while (timeout := self._plan(time.monotonic())) is not None:
                self._wait(timeout)
                for signum in self._resources.signals.take():
                    self._obey(signum)
                self._reap()
            LOGGER.info("Server stopped after %.0f s", time.monotonic() - began)
            if self._refused:
                return ExitCode.CONFIG
            if self._pool.gave_up:
                return ExitCode.BOOT
            return ExitCode.APP if self._pool.failed else ExitCode.OK
        finally:
            self._close()

    def _close(self) -> None:
        self._upgrade.abandon()
        self._hooks.call("on_exit")
        self._hooks.step(now := time.monotonic())
        patience = self._settings.config_timeout if "on_exit" in self._settings.hooks else FAREWELL
        self._resources.auxiliaries.end(now + patience)
        self._resources.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, spawn.MANAGED)
        self._resources.signals.restore()

    # Planning

    def _plan(self, now: float) -> float | None:
        """Do what is to be done now; the seconds until the next plan, None when the server has ended."""
        if now - self._planned > OVERSLEPT:
            self._pool.overslept(now - self._last, self._rounds.promises())
            LOGGER.debug("the arbiter was held up for %.1f s: nobody is judged late for it", now - self._planned)
        self._last = now
        if now >= self._next_round:
            self._next_round = now + TICK
            self._deaths.note_oom_kills()
            self._rounds.weigh()
            if self._settings.refork_after:
                self._rounds.count()
        news = self._reloading.turn(now) if self._reloading else ""
        if self._reloading and news and self._reloading.take_configured():
            self._reconfiguration.begin()
        self._reconfiguration.follow()
        actions = self._pool.plan(now, self._rounds.promises())
        self._reconfiguration.follow()  # whoever is spawned may be of a roll that has just begun
        for action in actions:
            self._perform(action)
        if news:
            LOGGER.info("%s", news)  # once it is true that nothing is answered by the old code any more
        if self._resources.manager.listens:
            describe = partial(self._rounds.describe, self._deaths.boot_failure)
            self._resources.manager.tell(self._notifier.turn(now, read_phase(self._pool), describe))
        if self._pool.ended:
            return None
        self._upgrade.advance(now)
        self._tell_standing(now)
        self._upgrade.conclude()
        self._rounds.look_for_slow(self._settings.slow_request, now)
        self._hooks.step(now)
        if self._pool.stopping is None:
            for auxiliary in self._resources.auxiliaries.due(now):
                auxiliary.start(partial(self._leave, auxiliary), now)
        timeout = min(TICK, max(0.0, self._next_due - now))
        self._planned = now + timeout
        return timeout

    @property
    def _next_due(self) -> float:
        """When the next plan is due, if nothing happens before."""
        return min(
            self._pool.wake_at,
            self._resources.auxiliaries.wake_at if self._pool.stopping is None else math.inf,
            self._notifier.wake_at,
            self._reloading.wake_at if self._reloading else math.inf,
            self._hooks.wake_at,
            self._rounds.wake_at,
        )

    def _tell_standing(self, now: float) -> None:
        """Write down where server and workers stand, for whoever looks from outside."""
        self._chronicle.publish(self._pool, self._upgrade, now)
        self._rounds.tell_lives()

    def _leave(self, auxiliary: Auxiliary) -> None:
        """Let go, in a new auxiliary, of all that it has no use for, since it serves no client."""
        self._resources.close_private(auxiliary.listener)
        self._resources.close_shared()
        with contextlib.suppress(OSError):  # where there is none now, what it does without one is done all the same
            os.chdir(self._settings.directory(self._upgrade.cwd))

    def _perform(self, action: Action) -> None:
        match action:
            case Say(level, text):
                LOGGER.log(level, text)
            case Spawn():
                settings = self._regimes.of(action.generation)
                self._births.spawn(action, settings, self._deaths.why_hopeless(action.generation))
            case Tell(pid):
                if isinstance(action, Seal):
                    self._resources.close_listeners()
                self._resources.tell(pid, WORDS[type(action)])
            case Quit(pid):
                os.kill(pid, signal.SIGQUIT)
            case Abort(pid):
                self._deaths.note_abort(action, self._rounds.doing(pid))
                os.kill(pid, signal.SIGABRT)
            case Kill(pid):
                self._deaths.note_kill(action, self._rounds.doing(pid))
                os.kill(pid, signal.SIGKILL)

    # Hearing

    def _wait(self, timeout: float) -> None:
        """Wait for up to `timeout` seconds until somebody has something to say, and hear it."""
        heard: dict[int, Callable[[], None]] = {self._resources.signals.fd: lambda: None}  # they are taken in `run`
        heard |= {line.fd: partial(self._hear, pid) for pid, line in self._resources.channels.items()}
        heard |= {line.fd: auxiliary.listen for auxiliary, line in self._resources.auxiliaries.channels}
        heard |= {fd: partial(self._births.hear, fd) for fd in self._resources.ordered}
        if self._resources.reading is not None:
            heard[self._resources.reading.fd] = lambda: None  # it may be late as well: `advance` sees
        poll = select.poll()
        for fd in heard:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout * 1000):
            heard[fd]()
        self._reconfiguration.advance()
        self._resources.logs.flush()

    def _hear(self, pid: int) -> None:
        line = self._resources.channels.get(pid)
        if line is None:
            return
        messages, alive = line.receive()
        for message in messages:
            self._heed(pid, message)
        if not alive:
            self._resources.channels.pop(pid).close()

    def _heed(self, pid: int, message: Message) -> None:
        match message.word:
            case channel.READY:
                self._pool.ready(pid, time.monotonic())
                if worker := self._pool.workers.get(pid):
                    self._rounds.allow(pid, self._regimes.of(worker.generation).max_worker_memory)
                if self._pool.stopping is not None:
                    self._resources.tell(pid, channel.PART)
                self._deaths.forget_failure(pid)
            case channel.SEALED:
                self._pool.sealed(pid)
            case channel.RECYCLE:
                self._pool.recycle(pid, message.value)
            case channel.FAILED if self._reloading and pid in self._pool.forking.templates:
                self._reloading.template_failed(message.value)
            case channel.FAILED if IN_USE in message.value and self._pool.retry_alone(pid, time.monotonic()):
                text = "%s found an address in use: it is tried again without the old code"
                LOGGER.info(text, self._pool.children[pid])
            case channel.FAILED:
                generation = self._pool.children[pid].generation
                self._deaths.boot_failed(pid, message.value, self._regimes.of(generation).app)
            case channel.DEBUGGING:
                self._pool.debugging(pid)
            case channel.IMPORTED if self._reloading:
                self._reloading.hear_imports(message.value)
            case channel.REFUSED if self._reloading:
                self._reloading.hear_refused(message.value)

    # Obeying

    def _obey(self, signum: signal.Signals) -> None:
        self._chronicle.obeyed(signum)
        match signum:
            case signal.SIGINT | signal.SIGQUIT:
                self._stop(Stop.QUICK, signum)
            case signal.SIGTERM:
                self._stop(Stop.GRACEFUL, signum, self._settings.drain_delay)
            case signal.SIGHUP if self._hung_up:
                self._stop(Stop.GRACEFUL, signum)
            case signal.SIGHUP:
                self._reconfiguration.begin()
                self._upgrade.repeat()
            case signal.SIGTTIN:
                self._reconfiguration.resize(+1)
            case signal.SIGTTOU:
                self._reconfiguration.resize(-1)
            case signal.SIGWINCH if not self._foreground:  # there it is a resized window
                LOGGER.info("SIGWINCH: all workers retire, the sockets stay")
                self._pool.park()
            case signal.SIGUSR1:
                self._resources.reopen()
                if self._logger is not None:
                    self._logger.tell(channel.REOPEN)
            case signal.SIGUSR2:
                self._upgrade.wish()

    @property
    def _hung_up(self) -> bool:
        """Whether the terminal that started us has gone: its user is no operator who wants new code. Who
        wrote nohup wants us to go on."""
        return self._foreground and terminal.is_lost() and not self._resources.signals.was_ignored(signal.SIGHUP)

    def _stop(self, how: Stop, signum: signal.Signals, delay: float = 0.0) -> None:
        if self._pool.stop(how, time.monotonic() + delay):
            LOGGER.info("%s: stopping %s", signum.name, "now" if how is Stop.QUICK else "gracefully")
            for pid in self._pool.workers:
                self._resources.tell(pid, channel.PART)

    def _started(self, well: bool) -> None:
        if not well:
            LOGGER.error("the server does not start: on_starting has failed")
            self._refused = True
            self._pool.stop(Stop.QUICK)

    # Reaping

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            if pid not in self._pool.children:
                self._births.hear_all()  # it may be one that has been born and has died since
            ours = pid in self._pool.children
            if ours and ended.si_code != os.CLD_EXITED:
                # While it is a zombie nobody else can have its number
                spawn.kill_group(pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if ours:
                self._bury(Exit(pid, max(0, code), max(0, -code)))
            elif auxiliary := self._resources.auxiliaries.by_pid(pid):
                auxiliary.bury(code, self._pool.stopping is None, time.monotonic())
            elif not self._upgrade.ended(pid, code):
                LOGGER.debug("reaped process %d, none of ours", pid)

    def _bury(self, exit: Exit) -> None:
        self._hear(exit.pid)  # its last words
        if line := self._resources.channels.pop(exit.pid, None):
            line.close()
        slot = self._pool.children[exit.pid].slot
        self._hooks.call("child_exit", exit.pid, slot)
        self._resources.idle_map.marks[slot] = False
        self._deaths.bury(exit, self._settings)


def _make_pool(size: int, settings: Settings) -> Pool:
    return Pool(
        size,
        settings.graceful_timeout,
        max_boot_failures=settings.max_boot_failures,
        fork_source=find_fork_source(settings),
        development=settings.reload,
        refork_after=settings.refork_after,
    )


def _make_logger(settings: Settings) -> Auxiliary:
    from minicorn.arbiter.logger import make_logger  # with the handlers' modules: for those who have some

    return make_logger(settings)
