"""`minicornctl`: look at running servers, and tell them what to do, without a configuration or a socket.

Servers are found by their directories, read by mapping their files, and told by signals; what
becomes of a wish is read in the arbiter's page. Exit codes: 0 it came true (or, without
--wait, it was sent); 1 it did not; 2 a mistake in the command, or no server there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minicorn.errors import ConfigError, ExitCode, UsageError
from minicorn.figures import display, survey, top, traces
from minicorn.figures.document import document
from minicorn.figures.snapshot import Condition, Snapshot
from minicorn.figures.usage import with_usage
from minicorn.pool.rolls import Ending
from minicorn.pool.standing import Stage, Standing
from minicorn.record import Value
from minicorn.system import process
from minicorn.version import VERSION

FAILED = 1  # exit code: what was wished for has not come true
# Seconds between two looks at what becomes of a wish: what the arbiter stores in its page wakes nobody
_GLANCE = 0.02
# Columns, where standard output is no terminal
_WIDTH = 160


class CommandFailed(Exception):
    """The command has not done what it should: the text says why."""


class Target(Value):
    """One server, and for how many seconds to wait for what is wished of it."""

    path: Path
    pid: int
    patience: float

    def look(self) -> Snapshot:
        """Look at the server as it is now; CommandFailed when it has ended."""
        try:
            return survey.look(self.path)
        except (OSError, ValueError) as error:
            raise CommandFailed(f"the server {self.pid} has ended") from error

    def check(self) -> None:
        """Raise CommandFailed when the process that would be signalled is not this server's."""
        if survey.is_made_up(self.path, self.pid):
            raise CommandFailed(f"{self.path} is not the directory of {self.pid}, as it says")

    def send_signal(self, signum: signal.Signals) -> Standing:
        """Send a signal to the arbiter; gives where the server stood before. CommandFailed where that fails."""
        before = self.look().standing
        self.check()
        if process.is_stopped(self.pid):  # it would obey later, at a SIGCONT, which takes TTIN and TTOU back
            raise CommandFailed(f"the arbiter {self.pid} is stopped, and hears nothing: kill -CONT {self.pid}")
        try:
            os.kill(self.pid, signum)
        except OSError as error:
            raise CommandFailed(f"cannot signal {self.pid}: {error.strerror}") from error
        return before

    def until_obeyed(self, signum: signal.Signals, before: Standing) -> None:
        """Wait until a signal that was sent has had its effect; `before`: where the server stood then."""
        self.until(f"{signum.name} is heard", lambda now: _count(now.standing, signum) > _count(before, signum))

    def until(self, what: str, come_true: Callable[[Snapshot], bool]) -> None:
        """Wait for `come_true`, which may raise CommandFailed; CommandFailed as well when it takes too long."""
        self._wait(what, lambda: come_true(self.look()))

    def until_ended(self) -> None:
        """Wait for the server's end; CommandFailed when it takes too long."""
        self._wait(f"the server {self.pid} has ended", lambda: not survey.is_alive(self.path))

    def _wait(self, what: str, come_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patience
        while not come_true():
            if time.monotonic() > deadline:
                raise CommandFailed(f"not within {self.patience:g} s: {what}")
            time.sleep(_GLANCE)

    def until_rolled(self, wish: int) -> Standing:
        """Wait for the end of a roll that began after `wish` wishes for new code; gives where the server stands."""

        def has_rolled(now: Snapshot) -> bool:
            standing = now.standing
            rolled = standing.rolled
            if rolled is not None and rolled.wish > wish and rolled.outcome is Ending.FAILED:
                raise CommandFailed(f"the roll to generation {rolled.generation} failed:\n{standing.roll_error}")
            if standing.stage is Stage.DRAINING:
                raise CommandFailed("the server stops")
            return rolled is not None and rolled.wish > wish and rolled.outcome is Ending.DONE

        self.until("a complete roll", has_rolled)
        return self.look().standing


def _count(standing: Standing, signum: signal.Signals) -> int:
    """How many signals of this kind have had their effect."""
    return standing.obeyed.get(signum.name, 0)


# Wishes


def reload(target: Target, options: argparse.Namespace) -> None:
    """Replace all workers; wait until the new ones serve."""
    before = target.send_signal(signal.SIGHUP)
    if not options.wait:
        return

    def is_heard(now: Snapshot) -> bool:
        if now.standing.refusals > before.refusals:
            raise CommandFailed(f"the reload is off: {now.standing.refusal}")
        return now.standing.reloads > before.reloads or now.standing.stage is Stage.DRAINING

    target.until("SIGHUP is heard", is_heard)
    after = target.until_rolled(before.reloads)
    print(f"generation {after.generation} serves")


def stop(target: Target, options: argparse.Namespace) -> None:
    """End the server gracefully; wait until it has ended."""
    target.send_signal(signal.SIGTERM)
    if options.wait:
        target.until_ended()


def scale(target: Target, options: argparse.Namespace) -> None:
    """Have so many workers; wait until all are ready. One signal at a time: two of a kind that wait are one."""
    while (size := target.look().standing.size) != options.workers:
        signum = signal.SIGTTIN if size < options.workers else signal.SIGTTOU
        target.until_obeyed(signum, before=target.send_signal(signum))

    def is_full(now: Snapshot) -> bool:
        if now.standing.stage is not Stage.SERVING:
            raise CommandFailed(f"the server is {now.standing.stage}")
        return now.standing.size == len(now.workers) == now.states[Condition.IDLE] + now.states[Condition.BUSY]

    target.until(f"{options.workers} workers are ready", is_full)
    print(f"{options.workers} workers")


def reopen_logs(target: Target, options: argparse.Namespace) -> None:
    """Have the log files opened again by their names."""
    target.until_obeyed(signal.SIGUSR1, before=target.send_signal(signal.SIGUSR1))


def upgrade(target: Target, options: argparse.Namespace) -> None:
    """Have the server become the program as it is installed now; wait until that serves."""
    before = target.send_signal(signal.SIGUSR2)
    if not options.wait:
        return

    def is_upgraded(now: Snapshot) -> bool:
        standing = now.standing
        if standing.stage is Stage.DRAINING:
            raise CommandFailed("the server stops")
        if standing.upgrades > before.upgrades:
            return True
        if _count(standing, signal.SIGUSR2) > _count(before, signal.SIGUSR2) and not standing.upgrading:
            raise CommandFailed(f"the upgrade is off: {standing.upgrade_error}")
        return False

    target.until("the new program runs", is_upgraded)
    after = target.until_rolled(before.reloads)
    print(f"minicorn {after.version} serves, generation {after.generation}")


def stacks(target: Target, options: argparse.Namespace) -> None:
    """Print what each worker is doing, line by line of its code."""
    target.check()
    found = [each for each in target.look().workers if options.slot in (None, each.slot)]
    if not found:
        raise CommandFailed("no workers" if options.slot is None else f"no worker in slot {options.slot}")
    now = time.monotonic()
    for worker, stack in traces.take(target.path, target.pid, found):
        print(f"worker {worker.pid} (slot {worker.slot}, gen {worker.generation}): {worker.state}", end=", ")
        print(f"{display.doing(worker, now)}\n{stack or 'it wrote no stack in time: it is stopped, or has gone'}\n")


def show_top(target: Target, options: argparse.Namespace) -> None:
    """Show the server, again and again, until a key ends it."""
    top.run(lambda: with_usage(target.look()))


COMMANDS: dict[str, Callable[[Target, argparse.Namespace], None]] = {
    "reload": reload,
    "stop": stop,
    "scale": scale,
    "reopen-logs": reopen_logs,
    "upgrade": upgrade,
    "stacks": stacks,
    "top": show_top,
}


# Looking at all


def status(paths: list[Path], options: argparse.Namespace) -> None:
    """Print how the servers are, as a table or as JSON."""
    snapshots = [with_usage(each) for each in _looks(paths)]
    if options.json:
        print(json.dumps([document(each) for each in snapshots], indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    print("\n\n".join("\n".join(display.status(each, time.time(), width)) for each in snapshots))


def _looks(paths: list[Path]) -> list[Snapshot]:
    """Look at the servers that can be read; UsageError when none can."""
    found = []
    for path in paths:
        try:
            found.append(survey.look(path))
        except (OSError, ValueError):
            continue
    if not found:
        raise UsageError(f"{paths[0]} cannot be read: its server has ended, just begins, or is of another version")
    return found


# The command


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    # These may stand before the command or behind it: a default behind would undo what was said before
    which = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    which.add_argument("-p", "--pid", metavar="FILE|PID", help="which server: its pid file, or its pid")
    which.add_argument("--worker-tmp-dir", metavar="DIR", help="its --worker-tmp-dir, where it has one")
    parser = argparse.ArgumentParser(
        prog="minicornctl",
        description="Look at running minicorn servers, and tell them what to do.",
        allow_abbrev=False,
        parents=[which],
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = partial(commands.add_parser, parents=[which], allow_abbrev=False)
    add("status", help="the server and its workers").add_argument("--json", action="store_true")
    add("top", help="the same, alive")
    one = add("stacks", help="the Python stacks of running workers, which go on meanwhile")
    one.add_argument("slot", type=int, nargs="?", metavar="SLOT", help="of one worker only")
    for name, text in (
        ("reload", "new code, worker by worker (SIGHUP)"),
        ("stop", "finish what has begun, and end (SIGTERM)"),
        ("upgrade", "a new minicorn in place, then new code (SIGUSR2)"),
    ):
        wish = add(name, help=text)
        wish.add_argument("--wait", action="store_true", help="until it has come true; else exit code 1")
        wish.add_argument("--timeout", type=float, default=300.0, metavar="S", help="longest to wait (default: 300)")
    add("scale", help="so many workers (SIGTTIN, SIGTTOU)").add_argument("workers", type=_wanted_workers, metavar="N")
    add("reopen-logs", help="after a rotation (SIGUSR1)")
    return parser


def _wanted_workers(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is no number from 1 to 1000; none serve after kill -WINCH, which keeps the sockets, or `stop`"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = build_parser().parse_args(argv, argparse.Namespace(pid=None, worker_tmp_dir=None))
    try:
        paths = _find(options)
        if options.command == "status":
            status(paths, options)
        else:
            target = Target(*_only(paths), getattr(options, "timeout", 300.0))
            COMMANDS[options.command](target, options)
        sys.stdout.flush()
    except (ConfigError, CommandFailed) as error:
        print(f"minicornctl: {error}", file=sys.stderr)
        return FAILED if isinstance(error, CommandFailed) else ExitCode.USAGE
    except (BrokenPipeError, KeyboardInterrupt):
        sys.stdout = None  # whoever read it has gone: the interpreter must not flush it
        return FAILED
    except OSError as error:  # such as a full disk, where the output goes
        sys.stdout = None
        print(f"minicornctl: {error.strerror or error}", file=sys.stderr)
        return FAILED
    return ExitCode.OK


def _find(options: argparse.Namespace) -> list[Path]:
    """The servers that the options mean; UsageError when there are none."""
    if options.pid is None:
        found = survey.find(options.worker_tmp_dir)
        if not found:
            raise UsageError("no server of yours runs here; one with a --worker-tmp-dir is found by --pid")
        return found
    try:
        pid = int(options.pid if options.pid.isdecimal() else Path(options.pid).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--pid {options.pid}: no pid, nor a file with one") from error
    path = survey.find_by_pid(pid)
    if path is None:
        raise UsageError(f"--pid {options.pid}: no minicorn of yours has the pid {pid}")
    return [path]


def _only(paths: list[Path]) -> tuple[Path, int]:
    if len(paths) == 1:
        return paths[0], _looks(paths)[0].standing.pid
    known = ", ".join(f"{each.standing.pid} ({each.standing.title})" for each in _looks(paths))
    raise UsageError(f"{len(paths)} servers run: choose by --pid one of {known}")


if __name__ == "__main__":
    sys.exit(main())
