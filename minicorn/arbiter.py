"""The arbiter: waits, takes signals, reaps, asks the pool for a plan, performs it.

One thread, never blocked: it forks, so a thread or an import of the application's here would
break its children. It knows workers by their channel and their page alone; what to do is
decided in `pool`, this loop only does it.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable

from minicorn import channel, spawn, terminal
from minicorn.channel import Channel
from minicorn.errors import ExitCode
from minicorn.heartbeat import Directory
from minicorn.listeners import Listener, close_all
from minicorn.log import Output
from minicorn.obituary import obituary
from minicorn.pool import Abort, Action, Exit, Kill, Pool, Quit, Retire, Say, Spawn, Stop
from minicorn.settings import Settings
from minicorn.signals import Signals
from minicorn.spawn import Post

LOGGER = logging.getLogger("minicorn")
TICK = 1.0
# Waking so much later than planned means that this process, or the machine, was stopped
OVERSLEPT = 2.0


class Arbiter:
    """The master process of a server whose listeners stand."""

    def __init__(
        self,
        settings: Settings,
        size: int,
        listeners: list[Listener],
        outputs: list[Output],
        boot: Callable[[Post], int],
        close_in_child: list[int],
    ) -> None:
        """`boot` is run in each forked worker and gives its exit code; `close_in_child` names
        further descriptors that are none of a worker's business."""
        self._pool = Pool(size, settings.graceful_timeout)
        self._settings = settings
        self._listeners = listeners
        self._outputs = outputs
        self._boot = boot
        self._directory = Directory(settings.worker_tmp_dir)
        self._private_fds = [*close_in_child, self._directory.lock_fd]
        self._signals = Signals(spawn.MANAGED)
        self._channels: dict[int, Channel] = {}
        self._verdicts: dict[int, str] = {}
        self._foreground = terminal.has_foreground()

    def run(self) -> ExitCode:
        """Supervise until a signal ends it; the exit code."""
        self._signals.install()
        try:
            planned = began = time.monotonic()
            while True:
                now = time.monotonic()
                if now - planned > OVERSLEPT:
                    self._pool.overslept(now - planned)
                    LOGGER.warning("the arbiter was held up for %.1f s: nobody is judged late for it", now - planned)
                self._perform(self._pool.plan(now, self._promises()))
                if self._pool.ended:
                    break
                timeout = min(TICK, max(0.0, self._pool.wake_at - now))
                planned = now + timeout
                self._wait(timeout)
                for signum in self._signals.take():
                    self._obey(signum)
                self._reap()
            LOGGER.info("Server stopped after %.0f s", time.monotonic() - began)
            return ExitCode.APP if self._pool.failed else ExitCode.OK
        finally:
            close_all(self._listeners)
            self._directory.remove()
            self._signals.restore()

    # Hearing

    def _wait(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        by_fd = {line.fd: pid for pid, line in self._channels.items()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout * 1000):
            if fd in by_fd:
                self._hear(by_fd[fd])
        for output in self._outputs:
            output.flush()

    def _hear(self, pid: int) -> None:
        if pid not in self._channels:
            return
        messages, alive = self._channels[pid].receive()
        for message in messages:
            if message.word == channel.READY:
                self._pool.ready(pid, time.monotonic())
            elif message.word == channel.FAILED:
                self._verdicts[pid] = "could not boot"
                LOGGER.error("%s could not load %s\n%s", self._pool.workers[pid], self._settings.app, message.text)
        if not alive:
            self._channels.pop(pid).close()

    def _promises(self) -> dict[int, float]:
        return {pid: self._directory.page(worker.slot).deadline for pid, worker in self._pool.workers.items()}

    def _obey(self, signum: signal.Signals) -> None:
        if signum in (signal.SIGINT, signal.SIGQUIT):
            self._stop(Stop.QUICK, signum)
        elif signum == signal.SIGTERM:
            self._stop(Stop.GRACEFUL, signum)
        elif signum == signal.SIGHUP:
            # The terminal that started us has gone: its user is no operator who wants new code
            if self._foreground and terminal.is_lost():
                self._stop(Stop.GRACEFUL, signum)
            else:
                self._pool.reload()
        elif signum == signal.SIGTTIN:
            self._pool.resize(+1)
        elif signum == signal.SIGTTOU:
            self._pool.resize(-1)
        elif signum == signal.SIGWINCH:
            if not self._foreground:  # there it is a resized window
                LOGGER.info("SIGWINCH: all workers retire, the sockets stay")
                self._pool.park()
        elif signum == signal.SIGUSR1:
            for output in self._outputs:
                output.reopen()
            for line in self._channels.values():
                line.send(channel.REOPEN)
        elif signum == signal.SIGUSR2:
            LOGGER.warning("SIGUSR2 is ignored: this version has no upgrade in place")

    def _stop(self, how: Stop, signum: signal.Signals) -> None:
        if self._pool.stop(how):
            LOGGER.info("%s: stopping %s", signum.name, "now" if how is Stop.QUICK else "gracefully")
            # The workers hold their own copies: what is queued there is served by them
            close_all(self._listeners)
            self._listeners.clear()

    # Doing

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Say):
                LOGGER.log(logging.getLevelNamesMapping()[action.level.upper()], action.text)
            elif isinstance(action, Spawn):
                self._spawn(action)
            elif isinstance(action, Retire):
                self._tell(action.pid, channel.DRAIN if action.drain else channel.RETIRE)
            elif isinstance(action, Quit):
                os.kill(action.pid, signal.SIGQUIT)
            elif isinstance(action, Abort):
                doing = self._doing(action.pid)
                self._verdicts[action.pid] = f"was late by {action.late:.1f} s, {doing}, so it was aborted"
                os.kill(action.pid, signal.SIGABRT)
            elif isinstance(action, Kill):
                verdict = self._verdicts.get(action.pid) or f"was ended, {self._doing(action.pid)}"
                self._verdicts[action.pid] = f"{verdict} ({action.reason})"
                os.kill(action.pid, signal.SIGKILL)

    def _tell(self, pid: int, word: str) -> None:
        if pid in self._channels:  # else it has closed it, and is about to be reaped
            self._channels[pid].send(word)

    def _doing(self, pid: int) -> str:
        return self._directory.page(self._pool.workers[pid].slot).read().describe(time.monotonic())

    def _spawn(self, action: Spawn) -> None:
        now = time.monotonic()
        ours, theirs = channel.pair()
        try:
            page = self._directory.page(action.slot)
            page.reset(now + self._settings.boot_timeout, now)
            post = Post(action.slot, action.generation, page, self._directory.stack_fd(action.slot), theirs)
            self._channels[0] = ours  # so that the child finds it among what it must close
            pid = spawn.fork(lambda: self._be_worker(post))
        except OSError as error:
            ours.close()
            self._pool.spawn_failed(action, error.strerror or str(error), now)
        else:
            self._channels[pid] = ours
            self._pool.spawned(action, pid, now)
        finally:
            self._channels.pop(0, None)
            theirs.close()

    def _be_worker(self, post: Post) -> int:
        """In the child: a copy of the arbiter's end of a channel would hide the arbiter's death."""
        for line in self._channels.values():
            line.close()
        for fd in self._private_fds:
            os.close(fd)
        self._signals.close()
        return self._boot(post)

    # Reaping

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._pool.workers:
                LOGGER.debug("reaped process %d, none of ours", pid)
                continue
            self._hear(pid)  # its last words
            code = os.waitstatus_to_exitcode(status)
            self._bury(Exit(pid, max(0, code), max(0, -code)))

    def _bury(self, exit: Exit) -> None:
        now = time.monotonic()
        worker = self._pool.exited(exit.pid, now)
        if worker is None:
            return
        if line := self._channels.pop(exit.pid, None):
            line.close()
        beat = self._directory.page(worker.slot).read()
        verdict = self._verdicts.pop(exit.pid, "")
        level, text = obituary(worker, exit, beat.describe(now), beat.requests, verdict, now)
        stack = self._directory.read_stack(worker.slot)
        if stack:
            text += f"; its stack:\n{stack}"
        LOGGER.log(logging.getLevelNamesMapping()[level.upper()], text)
