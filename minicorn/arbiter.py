"""The arbiter: waits, takes signals, reaps, asks the pool for a plan, performs it.

One thread, never blocked: it forks, so a thread or an import of the application's here would
break its children. It knows workers by their channel and their page alone; what to do is
decided in `pool`, this loop only does it.
"""

import json
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable

from minicorn import channel, complaints, logconfig, order, spawn, terminal, upgrade
from minicorn.accesslog import Origin, compile_format
from minicorn.actions import Abort, Action, Drain, Excuse, Hold, Kill, Quit, Retire, Say, Seal, Spawn
from minicorn.attendant import Attendant, Attendants
from minicorn.cgroup import count_cpus, count_oom_kills
from minicorn.channel import Channel, Message
from minicorn.chronicle import Chronicle
from minicorn.configfile import Reading
from minicorn.configuration import Configuration
from minicorn.directory import Directory
from minicorn.errors import ConfigError, ExitCode
from minicorn.groundwork import Groundwork
from minicorn.handoff import Handoff
from minicorn.heartbeat import Activity, Beat
from minicorn.herald import Herald, describe, read_phase
from minicorn.hookline import HookLine
from minicorn.life import Exit, Worker
from minicorn.listeners import Listener, close_all
from minicorn.log import Sink
from minicorn.memory import read_pss, read_rss
from minicorn.nursery import Cradle
from minicorn.obituary import cause_of, obituary
from minicorn.pool import Pool
from minicorn.privileges import Owner
from minicorn.reloader import Reloader
from minicorn.settings import Settings, keep_fixed
from minicorn.shutdown import Stop
from minicorn.signals import STACKS, Signals
from minicorn.slow import SlowRequests
from minicorn.spawn import Post
from minicorn.succession import Estate, Heirloom
from minicorn.systemd import Manager
from minicorn.unanswered import attributes_of, cause_of_death, unanswered
from minicorn.upgrade import Upgrade
from minicorn.watcher import Watcher, coarse_time

LOGGER = logging.getLogger("minicorn")
TICK = 1.0
# Waking so much later than planned means that this process, or the machine, was stopped: for how
# much of the planned sleep as well, nobody can tell, so all of it is granted
OVERSLEPT = 0.15


# Workers beyond so many are not seen to be idle: a longer look would cost every request more
SLOTS_SEEN = 255
# Seconds that an attendant has to end, when the server has ended
FAREWELL = 1.0
BOOT_FAILED = "could not boot"


class Arbiter:
    """The master process of a server whose listeners stand."""

    def __init__(
        self,
        settings: Settings,
        size: int,
        listeners: list[Listener],
        outputs: list[Sink],
        boot: Callable[[Post, Settings], int],
        template: Callable[[Post, Settings, Groundwork], int],
        upgrade: Upgrade,
        manager: Manager,
        pidfile_fd: int = -1,
        estate: Estate | None = None,
        config: Configuration | None = None,
        attendants: Iterable[Attendant] = (),
    ) -> None:
        """`boot` is run in each worker that is forked here, `template` in each template, if workers come from
        such; they give the exit code. `estate` is what the arbiter's image before has left; `config` is what
        HUP reads again; `attendants` are started, and started again when they die."""
        self._pool = Pool(
            size,
            settings.graceful_timeout,
            max_memory=settings.max_worker_memory,
            max_boot_failures=settings.max_boot_failures,
            cradle=_find_cradle(settings),
            eager=settings.reload,
        )
        self._settings = settings
        self._listeners = listeners
        self._outputs = outputs
        self._boot = boot
        self._hooks = HookLine(settings, [listener.name for listener in listeners])
        self._config = config
        self._refused = False  # by on_starting
        self._fresh = estate is None  # after an upgrade nothing but a signal ends what serves
        self._asked_to_exec = False  # pre_exec runs
        self._reading: Reading | None = None  # of the configuration file, since a HUP
        self._read_again = False  # another HUP has come meanwhile
        self._template = template
        self._ordered: dict[int, tuple[Spawn, Channel]] = {}  # by descriptor; what is to come of a template
        self._upgrade = upgrade
        self._manager = manager
        self._herald = Herald(manager.watchdog)
        self._counted: tuple[float, dict[int, int]] = time.monotonic(), {}  # requests by pid, when last told
        self._boot_failure = ""  # in a line, of the last worker that could not boot
        self._pidfile_fd = pidfile_fd
        self._signals = Signals(spawn.MANAGED)
        self._channels: dict[int, Channel] = {}
        self._attendants = Attendants(list(attendants))
        self._logger = logconfig.attend(settings) if logconfig.is_wanted(settings) else None
        if self._logger is not None:
            self._attendants.members.append(self._logger)
        if estate is None:
            self._directory = Directory(settings.worker_tmp_dir)
            self._chronicle = Chronicle(self._directory.ledger(), settings, listeners)
            self._handoff = Handoff()
        else:
            self._inherit(estate)
        self._attendants.members.append(self._hooks.attendant)
        complaints.collect(self._chronicle.complain)
        self._idle_map = self._directory.idle_map(SLOTS_SEEN)
        self._verdicts: dict[int, str] = {}
        self._causes: dict[int, str] = {}  # of the ends that are our doing, in a word
        self._slow = SlowRequests(settings.slow_request)
        self._access = outputs[1] if len(outputs) > 1 else None
        self._foreground = terminal.has_foreground()
        self._next_weighing = 0.0
        self._failure = ""  # of the last boot that failed
        self._hopeless = (0, "")  # with --reload: a generation whose import has killed its worker, and how
        self._reloader = Reloader()
        self._ground = Groundwork()
        self._templates_help = settings.reload and settings.reload_template and spawn.become_subreaper()
        self._watcher: Attendant | None = None
        if settings.reload:
            began = coarse_time()
            self._watcher = Attendant("watcher", lambda line: Watcher(settings, began).run(line), self._hear_watcher)
            self._attendants.members.append(self._watcher)
        # The kernel's counter, now and a while ago: a kill is reaped some time after it is counted
        self._oom_kills = self._oom_kills_before = count_oom_kills()

    def give(self, owner: Owner) -> None:
        """The workers will be `owner`: what they open again, or rename, must be theirs."""
        owner.give(self._directory.path)
        for output in self._outputs:
            output.give(owner.give)
        for listener in self._listeners:
            if listener.made is not None:
                owner.give(listener.host)

    @property
    def directory(self) -> str:
        """The path of the files by which it can be looked at."""
        return self._directory.path

    def run(self) -> ExitCode:
        """Supervise until a signal ends it; the exit code."""
        self._signals.install()
        self._hooks.tell("on_starting", then=self._started if self._fresh else bool)
        self._hooks.tell("when_ready")
        try:
            planned = last = began = time.monotonic()
            self._tell_standing(began)
            while True:
                now = time.monotonic()
                if now - planned > OVERSLEPT:
                    self._pool.overslept(now - last, self._promises())
                    LOGGER.debug("the arbiter was held up for %.1f s: nobody is judged late for it", now - planned)
                last = now
                if now >= self._next_weighing:
                    self._weigh(now)
                if news := self._reloader.take(now):
                    self._pool.reload()
                    if self._ground.is_outdated():
                        self._pool.nursery.cradle = Cradle.ARBITER
                self._perform(self._pool.plan(now, self._promises()))
                if news:
                    LOGGER.info("%s", news)  # once it is true that nothing is answered by the old code any more
                if self._manager.listens:
                    self._manager.tell(self._herald.turn(now, read_phase(self._pool), self._describe))
                if self._pool.ended:
                    break
                self._upgrade.advance(self._pool.calm, now)
                self._tell_standing(now)
                heard = self._channels.keys() >= self._pool.children.keys()  # a death that is not reaped yet is lost
                if self._upgrade.state is upgrade.State.DUE and self._pool.calm and heard:
                    self._replace_image()
                if not self._pool.stopping:
                    for attendant in self._attendants.due(now):
                        self._start(attendant, now)
                hook_due = self._hooks.step(now)
                due = (self._pool.wake_at, self._attendants.wake_at, self._herald.wake_at, self._reloader.wake_at)
                timeout = min(TICK, max(0.0, min(*due, hook_due, self._look_for_slow(now)) - now))
                planned = now + timeout
                self._wait(timeout)
                for signum in self._signals.take():
                    self._obey(signum)
                self._reap()
            LOGGER.info("Server stopped after %.0f s", time.monotonic() - began)
            if self._refused:
                return ExitCode.CONFIG
            if self._pool.gave_up:
                return ExitCode.BOOT
            return ExitCode.APP if self._pool.failed else ExitCode.OK
        finally:
            if self._reading is not None:
                self._reading.abandon()
            self._upgrade.abandon()
            self._end_attendants()
            close_all(self._listeners)
            self._directory.remove()
            self._handoff.close()
            signal.pthread_sigmask(signal.SIG_BLOCK, spawn.MANAGED)
            self._signals.restore()

    # Hearing

    def _wait(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        by_fd = {line.fd: pid for pid, line in self._channels.items()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        attendants = {line.fd: attendant for attendant, line in self._attendants.channels}
        for fd in attendants:
            poll.register(fd, select.POLLIN)
        if self._reading is not None:
            poll.register(self._reading.fd, select.POLLIN)
        for fd in self._ordered:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout * 1000):
            if fd in by_fd:
                self._hear(by_fd[fd])
            elif fd in self._ordered:
                self._hear_newborn(fd)
            elif fd in attendants:
                self._hear_attendant(attendants[fd])
        if self._reading is not None:
            self._hear_reading(self._reading)
        for output in self._outputs:
            output.flush()

    def _hear(self, pid: int) -> None:
        if pid not in self._channels:
            return
        messages, alive = self._channels[pid].receive()
        for message in messages:
            if message.word == channel.READY:
                self._pool.ready(pid, time.monotonic())
                if self._pool.stopping is not None:
                    self._tell(pid, channel.PART)
                self._failure = ""
                self._verdicts.pop(pid, None)  # with --reload it shows why it could not load
            elif message.word == channel.SEALED:
                self._pool.sealed(pid)
            elif message.word == channel.RECYCLE:
                self._pool.recycle(pid, message.text)
            elif message.word == channel.FAILED and self._settings.reload and pid in self._pool.nursery.templates:
                LOGGER.debug("workers are forked without a template: %s", message.text)
                self._pool.nursery.cradle = Cradle.ARBITER
            elif message.word == channel.FAILED:
                self._tell_failure(pid, message.text)
            elif message.word == channel.DEBUGGING:
                self._pool.debugging(pid)
            elif message.word == channel.IMPORTED:
                self._hear_imports(message.text)
            elif message.word == channel.REFUSED:
                self._ground.refused |= json.loads(message.text)
        if not alive:
            self._channels.pop(pid).close()

    def _tell_failure(self, pid: int, text: str) -> None:
        """Why a worker could not boot, once: what the next one says of the same is not said again."""
        self._verdicts[pid] = BOOT_FAILED
        self._pool.stumbled(pid)
        *_, last = text.splitlines()
        self._boot_failure = last
        gap = "\n" if "\n" in text else ""
        if text != self._failure:
            LOGGER.error("%s could not load %s: %s%s", self._pool.children[pid], self._settings.app, gap, text)
        elif self._pool.booted:
            LOGGER.error("%s could not load %s either: %s", self._pool.children[pid], self._settings.app, last)
        self._failure = text

    def _weigh(self, now: float) -> None:
        """PSS is dear to ask for, and never more than RSS: ask when that is above the limit."""
        self._next_weighing = now + TICK
        self._oom_kills_before, self._oom_kills = self._oom_kills, max(self._oom_kills, count_oom_kills())
        limit = self._settings.max_worker_memory
        for pid in self._pool.workers:
            weight = read_rss(pid)
            self._pool.weighed(pid, read_pss(pid) if limit and weight > limit else weight)

    def _promises(self) -> dict[int, float]:
        return {pid: self._directory.page(worker.slot).deadline for pid, worker in self._pool.children.items()}

    def _look_for_slow(self, now: float) -> float:
        """Show the stack of a request that takes longer than --slow-request; when to look again."""
        self._slow.limit = self._settings.slow_request  # HUP may have changed it
        if not self._slow.limit:
            return math.inf
        workers = {pid: worker for pid, worker in self._pool.workers.items() if worker.was_ready}
        beats = {pid: self._directory.page(worker.slot).read() for pid, worker in workers.items()}
        busy = {pid: beat.since for pid, beat in beats.items() if beat.activity is Activity.BUSY}
        slow, answered = self._slow.plan(now, busy)
        for pid in slow:
            self._directory.read_trace(workers[pid].slot)  # what others have asked for
            os.kill(pid, STACKS)
        for pid in answered:
            stack = self._directory.read_trace(workers[pid].slot)
            doing = beats[pid].describe(now)
            LOGGER.warning("%s is slow, %s, and goes on; its stack:\n%s", workers[pid], doing, stack or "no answer")
        return self._slow.wake_at

    def _tell_standing(self, now: float) -> None:
        """For whoever looks from outside."""
        self._chronicle.tell(self._pool, self._upgrade, now)
        for worker in self._pool.workers.values():
            self._directory.page(worker.slot).live(worker.state)

    def _obey(self, signum: signal.Signals) -> None:
        self._chronicle.obeyed(signum)
        if signum in (signal.SIGINT, signal.SIGQUIT):
            self._stop(Stop.QUICK, signum)
        elif signum == signal.SIGTERM:
            self._stop(Stop.GRACEFUL, signum, self._settings.drain_delay)
        elif signum == signal.SIGHUP:
            # The terminal that started us has gone: its user is no operator who wants new code
            if self._foreground and terminal.is_lost():
                self._stop(Stop.GRACEFUL, signum)
            else:
                self._reload()
        elif signum == signal.SIGTTIN:
            self._resize(+1)
        elif signum == signal.SIGTTOU:
            self._resize(-1)
        elif signum == signal.SIGWINCH:
            if not self._foreground:  # there it is a resized window
                LOGGER.info("SIGWINCH: all workers retire, the sockets stay")
                self._pool.park()
        elif signum == signal.SIGUSR1:
            for output in self._outputs:
                output.reopen()
            if self._logger is not None:
                self._logger.tell(channel.REOPEN)
            for line in self._channels.values():
                line.send(channel.REOPEN)
        elif signum == signal.SIGUSR2:
            self._upgrade.wish()

    # Hooks and configuration

    def _started(self, well: bool) -> None:
        if not well:
            LOGGER.error("the server does not start: on_starting has failed")
            self._refused = True
            self._pool.stop(Stop.QUICK)

    def _replace_image(self) -> None:
        """Become the next image, once pre_exec has agreed."""
        if self._asked_to_exec:
            return

        def go_on(well: bool) -> None:
            self._asked_to_exec = False
            if well:
                self._upgrade.carry_out(self._estate(), self._signals)
            else:
                self._upgrade.refuse("pre_exec has failed")

        self._asked_to_exec = True
        self._hooks.tell("pre_exec", then=go_on)

    def _roll(self, well: bool) -> None:
        if well:
            self._pool.reload()
        else:
            LOGGER.error("reload is off, all serve on as before: on_reload has failed")

    def _reload(self) -> None:
        """Read the configuration again, then roll; one that is broken changes nothing."""
        if self._config is None:
            self._pool.reload()
        elif self._reading is not None:
            self._read_again = True
        else:
            try:
                self._reading = self._config.begin()
                if self._reading is None:
                    self._take_on(self._config.settle(None, None).settings)
            except (ConfigError, OSError) as error:
                self._refuse_reload(error)

    def _hear_reading(self, reading: Reading) -> None:
        assert self._config is not None
        try:
            values = reading.take()
            if values is None:
                return
            self._take_on(self._config.settle(reading.place, values).settings)
        except ConfigError as error:
            self._refuse_reload(error)
        self._reading = None
        if self._read_again:
            self._read_again = False
            self._reload()

    def _refuse_reload(self, error: ConfigError | OSError) -> None:
        self._chronicle.refused_reload(str(error))
        LOGGER.error("reload is off, all serve on as before: %s", error)

    def _take_on(self, new: Settings) -> None:
        old = self._settings
        self._settings, held = keep_fixed(new, old)
        if held:
            LOGGER.warning("HUP does not change %s: restart, or send USR2 where no listener changes", ", ".join(held))
        LOGGER.setLevel(new.log_level.upper())
        self._pool.configure(new.graceful_timeout, new.max_worker_memory, new.max_boot_failures)
        if new.workers != old.workers:
            size = count_cpus() if new.workers == "auto" else new.workers
            self._resize(size - self._pool.size)
        self._hooks.renew(self._settings)
        self._hooks.tell("on_reload", then=self._roll)

    def _resize(self, by: int) -> None:
        before = self._pool.size
        self._pool.resize(by)
        if self._pool.size != before:
            self._hooks.tell("nworkers_changed", self._pool.size, before)

    def _stop(self, how: Stop, signum: signal.Signals, delay: float = 0.0) -> None:
        if self._pool.stop(how, time.monotonic() + delay):
            LOGGER.info("%s: stopping %s", signum.name, "now" if how is Stop.QUICK else "gracefully")
            for pid in self._pool.workers:
                self._tell(pid, channel.PART)

    def _close_listeners(self) -> None:
        """The workers hold their own copies: what is queued there is served by them."""
        close_all(self._listeners)
        self._listeners.clear()

    def _describe(self) -> str:
        """The status line for the service manager."""
        beats = {pid: self._directory.page(worker.slot).read() for pid, worker in self._pool.workers.items()}
        (before, counted), now = self._counted, time.monotonic()
        self._counted = now, {pid: beat.requests for pid, beat in beats.items()}
        served = sum(beat.requests - counted.get(pid, 0) for pid, beat in beats.items())
        busy = sum(beat.activity is Activity.BUSY for beat in beats.values())
        return describe(self._pool, busy, served / max(now - before, 0.001), self._boot_failure)

    # Doing

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Say):
                LOGGER.log(logging.getLevelNamesMapping()[action.level.upper()], action.text)
            elif isinstance(action, Spawn):
                self._spawn(action)
            elif isinstance(action, Retire):
                self._tell(action.pid, channel.RETIRE)
            elif isinstance(action, Seal):
                self._close_listeners()
                self._tell(action.pid, channel.SEAL)
            elif isinstance(action, Drain):
                self._tell(action.pid, channel.DRAIN)
            elif isinstance(action, Hold):
                self._tell(action.pid, channel.HOLD)
            elif isinstance(action, Excuse):
                self._tell(action.pid, channel.EXCUSE)
            elif isinstance(action, Quit):
                os.kill(action.pid, signal.SIGQUIT)
            elif isinstance(action, Abort):
                doing = self._doing(action.pid)
                self._verdicts[action.pid] = f"was late by {action.late:.1f} s, {doing}, so it was aborted"
                self._causes[action.pid] = "timeout"
                os.kill(action.pid, signal.SIGABRT)
            elif isinstance(action, Kill):
                verdict = self._verdicts.get(action.pid) or f"was ended, {self._doing(action.pid)}"
                self._verdicts[action.pid] = f"{verdict} ({action.reason})"
                self._causes.setdefault(action.pid, "ended")
                os.kill(action.pid, signal.SIGKILL)

    def _tell(self, pid: int, word: str) -> None:
        if pid in self._channels:  # else it has closed it, and is about to be reaped
            self._channels[pid].send(word)

    def _doing(self, pid: int) -> str:
        return self._directory.page(self._pool.children[pid].slot).read().describe(time.monotonic())

    def _spawn(self, action: Spawn) -> None:
        now = time.monotonic()
        try:
            ours, theirs = channel.pair()
        except OSError as error:
            self._pool.spawn_failed(action, error.strerror or str(error), now)
            return
        try:
            post = self._post(action, theirs, now)
            if action.parent:
                self._order(action, post, ours)
            else:
                self._fork(action, post, ours, now)
        except OSError as error:  # no descriptor, page or process is to be had
            ours.close()
            self._pool.spawn_failed(action, error.strerror or str(error), now)
        finally:
            theirs.close()

    def _post(self, action: Spawn, theirs: Channel, now: float) -> Post:
        page = self._directory.page(action.slot)
        page.reset(now + self._settings.boot_timeout, now)
        hopeless, why = self._hopeless
        return Post(
            action.slot,
            action.generation,
            page,
            self._directory.stack_fd(action.slot),
            self._directory.trace_fd(action.slot),
            theirs,
            self._handoff,
            self._idle_map,
            self._listeners.copy(),  # this list is emptied when the server stops
            why if hopeless == action.generation else "",
        )

    def _fork(self, action: Spawn, post: Post, ours: Channel, now: float) -> None:
        be = self._be_template if action.template else self._be_worker
        self._channels[0] = ours  # so that the child finds it among what it must close
        try:
            pid = spawn.fork(lambda: be(post))
        finally:
            del self._channels[0]
        self._register(action, pid, ours, now)

    def _register(self, action: Spawn, pid: int, ours: Channel, now: float) -> None:
        self._channels[pid] = ours
        self._pool.spawned(action, pid, now)
        if not action.template:
            self._directory.page(action.slot).enter(pid, action.generation, now)

    def _order(self, action: Spawn, post: Post, ours: Channel) -> None:
        """Have it forked by a template; if that is gone, so is the other end, which will be heard."""
        if line := self._channels.get(action.parent):
            order.give(line, post, self._directory.page_fd(action.slot))
        self._ordered[ours.fd] = action, ours

    def _hear_newborn(self, fd: int) -> None:
        """What was ordered is there, or will not come."""
        action, ours = self._ordered[fd]
        messages, alive = ours.receive()
        for message in messages:
            if message.word == channel.BORN:
                del self._ordered[fd]
                self._register(action, int(message.text), ours, time.monotonic())
                ours.open_gate()
                return
        if messages or not alive:
            del self._ordered[fd]
            ours.close()
            reason = messages[0].text if messages else "its template has died"
            self._pool.spawn_failed(action, reason, time.monotonic())

    def _be_worker(self, post: Post) -> int:
        self._let_go()
        return self._boot(post, self._settings)

    def _be_template(self, post: Post) -> int:
        self._let_go()
        self._leave_service()
        return self._template(post, self._settings, self._ground)

    def _leave_service(self) -> None:
        """In a child that serves no client: it holds neither port nor queue."""
        for listener in self._listeners:
            listener.close()
        self._handoff.close()

    def _let_go(self, kept: Listener | None = None) -> None:
        """In a child, which has `kept`: a copy of the arbiter's end of a channel would hide the arbiter's death."""
        ordered = (line for _, line in self._ordered.values())
        for line in [*self._channels.values(), *ordered, *(line for _, line in self._attendants.channels)]:
            line.close()
        for listener in self._attendants.listeners:
            if listener is not kept:
                listener.close()
        os.close(self._directory.lock_fd)
        if self._pidfile_fd >= 0:
            os.close(self._pidfile_fd)
        if self._reading is not None:
            os.close(self._reading.fd)
        self._manager.close()
        self._signals.close()

    # Attendants

    def _start(self, attendant: Attendant, now: float) -> None:
        ours, theirs = channel.pair()
        try:
            pid = spawn.fork(lambda: self._be_attendant(attendant, ours, theirs))
        except OSError as error:
            ours.close()
            delay = attendant.missed(now)
            LOGGER.error("cannot start the %s: %s; the next try in %g s", attendant.name, error.strerror, delay)
        else:
            attendant.spawned(pid, ours, now)
        finally:
            theirs.close()

    def _be_attendant(self, attendant: Attendant, ours: Channel, theirs: Channel) -> int:
        ours.close()
        self._let_go(attendant.listener)
        self._leave_service()
        spawn.attend()
        return attendant.run(theirs)

    def _hear_attendant(self, attendant: Attendant) -> None:
        assert attendant.channel is not None
        messages, _ = attendant.channel.receive()
        for message in messages:
            attendant.hear(message)

    def _hear_imports(self, text: str) -> None:
        """A worker with --reload tells what there is to watch, and what a template may import."""
        imported = json.loads(text)
        if self._watcher is not None:
            self._watcher.tell(channel.IMPORTED, json.dumps(imported["places"]))
        if self._templates_help and self._ground.learn(imported["modules"], imported["own"]):
            self._pool.nursery.cradle = Cradle.COMMON
            self._pool.nursery.renew()

    def _hear_watcher(self, message: Message) -> None:
        now = time.monotonic()
        self._reloader.note(json.loads(message.text), now)
        self._pool.hold(now)

    def _bury_attendant(self, attendant: Attendant, code: int) -> None:
        assert attendant.channel is not None
        self._hear_attendant(attendant)  # its last words
        attendant.channel.close()
        name, now = str(attendant), time.monotonic()
        cause = f"with exit code {code}" if code >= 0 else f"of {signal.Signals(-code).name}"
        delay = attendant.missed(now)
        if self._pool.stopping:
            LOGGER.debug("the %s has ended %s", name, cause)
        else:
            LOGGER.warning("the %s has died %s; the next comes in %g s", name, cause, delay)

    def _end_attendants(self) -> None:
        """They end as soon as their channels do; whoever does not is killed."""
        now = time.monotonic()
        self._hooks.tell("on_exit")
        self._hooks.step(now)
        deadline = now + (self._settings.config_timeout if "on_exit" in self._settings.hooks else FAREWELL)
        lines = {line.fd: line for _, line in self._attendants.channels}
        for line in lines.values():
            line.finish()
        while lines and (left := deadline - time.monotonic()) > 0:
            for fd in select.select(list(lines), [], [], left)[0]:
                if not lines[fd].receive()[1]:
                    del lines[fd]
        for attendant, line in self._attendants.channels:
            if line.fd in lines:
                os.kill(attendant.pid, signal.SIGKILL)
            os.waitpid(attendant.pid, 0)
            line.close()

    # Upgrade in place

    def _estate(self) -> Estate:
        """All that the next image must know."""
        pool = self._pool
        workers = [
            Heirloom(
                worker.pid,
                worker.slot,
                worker.generation,
                worker.born,
                worker.strikes,
                worker.was_ready,
                worker.dismissed,
                worker.template,
                self._channels[worker.pid].fd,
            )
            for worker in pool.children.values()
            if worker.pid in self._channels
        ]
        return Estate(
            listeners=[(listener.fd, listener.host, listener.made) for listener in self._listeners],
            desks=[(listener.fd, listener.host, listener.made) for listener in self._attendants.listeners],
            handoff=self._handoff.ends,
            directory=self._directory.path,
            lock_fd=self._directory.lock_fd,
            pidfile_fd=self._pidfile_fd,
            pages=self._directory.descriptors,
            idle_fd=self._directory.idle_fd,
            ledger_fd=self._directory.ledger_fd,
            workers=workers,
            size=pool.size,
            generation=pool.rolls.generation,
            newest=pool.rolls.newest,
            manager=self._manager.variables,
            arguments=self._upgrade.arguments,
            cwd=self._upgrade.cwd,
        )

    def _inherit(self, estate: Estate) -> None:
        """Take over from the image before, then roll."""
        self._directory = Directory.adopt(
            estate.directory, estate.lock_fd, estate.idle_fd, estate.ledger_fd, estate.pages
        )
        self._chronicle = Chronicle(self._directory.ledger(), self._settings, self._listeners, upgraded=True)
        self._handoff = Handoff(estate.handoff)
        pool, now = self._pool, time.monotonic()
        pool.booted = True
        pool.rolls.generation, pool.rolls.newest = estate.generation, estate.newest
        pool.rolls.wishes = self._chronicle.reloads
        for heir in estate.workers:
            pool.adopt(heir.worker(), now)
            self._channels[heir.pid] = channel.adopt(heir.channel_fd)
        pool.reload()

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
                for fd in list(self._ordered):  # it may be one that has been born and has died since
                    self._hear_newborn(fd)
            ours = pid in self._pool.children
            if ours and ended.si_code != os.CLD_EXITED:
                # While it is a zombie nobody else can have its number
                _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            if ours:
                self._hear(pid)  # its last words
                code = os.waitstatus_to_exitcode(status)
                self._bury(Exit(pid, max(0, code), max(0, -code)))
            elif attendant := self._attendants.by_pid(pid):
                self._bury_attendant(attendant, os.waitstatus_to_exitcode(status))
            elif not self._upgrade.ended(pid, os.waitstatus_to_exitcode(status)):
                LOGGER.debug("reaped process %d, none of ours", pid)

    def _bury(self, exit: Exit) -> None:
        now = time.monotonic()
        rolled = self._pool.rolls.last
        worker = self._pool.exited(exit.pid, now)
        if worker is None:
            return
        if line := self._channels.pop(exit.pid, None):
            line.close()
        self._hooks.tell("child_exit", exit.pid, worker.slot)
        self._idle_map.mark(worker.slot, False)
        page = self._directory.page(worker.slot)
        beat = page.read()
        verdict = self._verdicts.pop(exit.pid, "")
        cause = self._causes.pop(exit.pid, "") or cause_of_death(exit)
        out_of_memory = exit.signum == signal.SIGKILL and not verdict and self._ran_out_of_memory()
        if out_of_memory:
            verdict = f"was killed by the kernel for want of memory (OOM), {beat.describe(now)}"
            cause = "oom"
        self._log_unanswered(worker, beat, cause, now)
        if not worker.template:
            self._chronicle.buried(page, cause_of(worker, exit, out_of_memory))
        failed = self._pool.rolls.last is not rolled
        if verdict == BOOT_FAILED and not worker.dismissed:
            self._hopeless = (worker.generation, self._failure)
        if verdict == BOOT_FAILED:  # it has said why
            self._chronicle.blame(self._failure if failed else "")
            return
        level, text = obituary(worker, exit, beat.describe(now), beat.requests, verdict, now)
        self._chronicle.blame(text if failed else "")
        if not worker.was_ready:
            self._boot_failure = text
        attributes = attributes_of(beat, Origin(worker.slot, worker.generation, worker.pid), cause)
        stack = self._directory.read_stack(worker.slot)
        if stack:
            text += f"; its stack:\n{stack}"
            attributes["exception.stacktrace"] = stack
        if not (worker.was_ready or worker.dismissed):
            self._hopeless = (worker.generation, text)
        if self._settings.reload and worker.dismissed and level == "info":
            level = "debug"
        LOGGER.log(logging.getLevelNamesMapping()[level.upper()], text, extra={"attributes": attributes})

    def _log_unanswered(self, worker: Worker, beat: Beat, cause: str, now: float) -> None:
        """The request that a worker has died in has its line in the access log too."""
        entry = unanswered(beat, Origin(worker.slot, worker.generation, worker.pid), cause, now)
        if entry is not None and self._access is not None:
            self._access.write(compile_format(self._settings.access_logformat)(entry))

    def _ran_out_of_memory(self) -> bool:
        """Whether the kernel's counter has moved of late; what it has counted is told once."""
        kills = max(self._oom_kills, count_oom_kills())  # it reads as 0 when no descriptor is to be had
        ran_out = kills > self._oom_kills_before
        self._oom_kills = self._oom_kills_before = kills
        return ran_out


def _find_cradle(settings: Settings) -> Cradle:
    """Where workers come from; a template's can be the arbiter's children only where it adopts them."""
    if settings.reload or not settings.preload:  # what --preload would import is what changes
        return Cradle.ARBITER
    if spawn.become_subreaper():
        return Cradle.TEMPLATE
    LOGGER.warning("--preload takes Linux: here each worker imports the application itself")
    return Cradle.ARBITER


def _kill_group(pid: int) -> None:
    """What a worker that was killed had started does not survive it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # it led no group: it died too early, or runs in the foreground of a terminal
