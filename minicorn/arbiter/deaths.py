"""Deaths: why a worker has gone, put together from what was done to it, what it said and what it left.

Each has one record in the log, with the request in hand and the stack; one line in the access log,
where a request died with it; and a place among the causes that the chronicle counts.
"""

from __future__ import annotations

import signal
import time

from minicorn.arbiter.chronicle import Chronicle
from minicorn.arbiter.resources import Resources
from minicorn.config.settings import Settings
from minicorn.figures.heartbeat import Activity, Beat
from minicorn.logs.logger import LOGGER
from minicorn.logs.output import Sink
from minicorn.pool.actions import Abort, Kill, Level
from minicorn.pool.exits import cause_of, describe_death, describe_end, trim
from minicorn.pool.life import Cause, Exit, Worker
from minicorn.pool.pool import Pool
from minicorn.record import Value
from minicorn.system.cgroup import count_oom_kills


class Verdict(Value):
    """Why a child of the pool's is about to go, as far as that is known before its end."""

    text: str = ""
    is_told: bool = False  # it could not boot, and has said itself why


NONE = Verdict()


class Deaths:
    """Finds out and tells why the workers and templates of one arbiter have gone."""

    def __init__(self, pool: Pool, resources: Resources, chronicle: Chronicle) -> None:
        self._pool = pool
        self._directory = resources.directory
        self._access = resources.logs.access
        self._chronicle = chronicle
        self._verdicts: dict[int, Verdict] = {}
        self._failure = ""  # of the last boot that failed
        self._hopeless = (0, "")  # a generation whose import has killed its worker, and how
        self.boot_failure = ""  # in a line, of the last worker that could not boot
        # The kernel's counter, now and a round ago: a kill is counted some time before it is reaped
        self._oom_kills = self._oom_kills_before = count_oom_kills()

    def note_oom_kills(self) -> None:
        """Read the kernel's count of out-of-memory kills; to be called now and then."""
        self._oom_kills_before, self._oom_kills = self._oom_kills, max(self._oom_kills, count_oom_kills())

    def why_hopeless(self, generation: int) -> str:
        """How loading the code of `generation` has killed the last worker that tried; "" if it is worth a try."""
        hopeless, why = self._hopeless
        return why if hopeless == generation else ""

    # Before

    def note_abort(self, action: Abort, doing: str) -> None:
        """Note that a worker is told to show its stack and die."""
        self._verdicts[action.pid] = Verdict(f"was late by {action.late:.1f} s, {doing}, so it was aborted")

    def note_kill(self, action: Kill, doing: str) -> None:
        """Note that a worker is killed."""
        verdict = self._verdicts.get(action.pid) or Verdict(f"was ended, {doing}")
        self._verdicts[action.pid] = Verdict(f"{verdict.text} ({action.reason})")

    def forget_failure(self, pid: int) -> None:
        """Forget the failure: the worker is ready, be it to show why it could not load (--reload)."""
        self._failure = ""
        if self._verdicts.get(pid, NONE).is_told:  # any other stands: it may have said so as we killed it
            del self._verdicts[pid]

    def boot_failed(self, pid: int, text: str, app: str) -> None:
        """Log why a worker could not boot; where the next one gives the same reason, without repeating it."""
        self._verdicts[pid] = Verdict("could not boot", is_told=True)
        self._pool.load_failed(pid)
        last = self.boot_failure = text.rpartition("\n")[2]
        gap = "\n" if "\n" in text else ""
        if text != self._failure:
            LOGGER.error("%s could not load %s: %s%s", self._pool.children[pid], app, gap, text)
        elif self._pool.booted:
            LOGGER.error("%s could not load %s either: %s", self._pool.children[pid], app, last)
        self._failure = text

    # After

    def bury(self, exit: Exit, settings: Settings) -> None:
        """Log and count the end of one of the pool's children, which has been reaped."""
        now, rolled = time.monotonic(), self._pool.rolls.last
        worker = self._pool.exited(exit.pid, now)
        if worker is None:
            return
        page = self._directory.page(worker.slot)
        beat = page.read()
        verdict = self._verdicts.pop(exit.pid, NONE)
        out_of_memory = exit.signum == signal.SIGKILL and verdict is NONE and self._ran_out_of_memory()
        if out_of_memory:
            verdict = Verdict(f"was killed by the kernel for want of memory (OOM), {beat.describe(now)}")
        cause = cause_of(worker, exit, out_of_memory)
        if self._access is not None:
            _tell_unanswered(self._access, settings.access_logformat, beat, worker, cause, now)
        if not worker.template:
            self._chronicle.buried(page, cause)
        if verdict.is_told:
            story = told = self._failure  # it has said so itself
        else:
            doing, idle = beat.describe(now), beat.activity is Activity.IDLE
            level, story = describe_death(worker, exit, doing, idle, beat.requests, verdict.text, now)
            if settings.reload and worker.dismissed and level is Level.INFO:
                level = Level.DEBUG
            if not worker.was_ready:
                self.boot_failure = story
            told = self._log(level, story, worker, _attributes(beat, worker, exit, cause))
        self._chronicle.blame(story if self._pool.rolls.last is not rolled else "")
        if not (worker.was_ready or worker.dismissed):
            self._hopeless = (worker.generation, told)

    def _log(self, level: Level, story: str, worker: Worker, attributes: dict[str, object]) -> str:
        """Log a death; gives the text, with the stack where the worker has left one."""
        stack = trim(self._directory.read_stack(worker.slot))
        if stack:
            story += f"; its stack:\n{stack}"
            attributes["exception.stacktrace"] = stack
        LOGGER.log(level, story, extra={"attributes": attributes})
        return story

    def _ran_out_of_memory(self) -> bool:
        """Whether the kernel's counter has moved since the last round; each kill is reported once."""
        kills = max(self._oom_kills, count_oom_kills())  # it reads as 0 when no descriptor is to be had
        ran_out = kills > self._oom_kills_before
        self._oom_kills = self._oom_kills_before = kills
        return ran_out


def _tell_unanswered(access: Sink, format: str, beat: Beat, worker: Worker, cause: Cause, now: float) -> None:
    """Write the access log's line of the request that has died with its worker, if there was one."""
    from minicorn.logs.accesslog import compile_format
    from minicorn.logs.entry import Origin
    from minicorn.logs.unanswered import unanswered

    entry = unanswered(beat, Origin(worker.slot, worker.generation, worker.pid), cause, now)
    if entry is not None:
        access.write(compile_format(format)(entry))


def _attributes(beat: Beat, worker: Worker, exit: Exit, cause: Cause) -> dict[str, object]:
    """The attributes of a death in a JSON error log, under OpenTelemetry's names."""
    attributes: dict[str, object] = {
        "error.type": cause,
        "minicorn.worker.end": describe_end(exit),
        "minicorn.worker": worker.slot,
        "minicorn.generation": worker.generation,
        "minicorn.worker.pid": worker.pid,
    }
    if beat.activity is Activity.BUSY:
        method, _, target = beat.request.partition(" ")
        attributes["http.request.method"] = method
        attributes["url.path"] = target.partition("?")[0]
        attributes["client.address"] = beat.client
        attributes["minicorn.request.id"] = beat.request_id
    return attributes
