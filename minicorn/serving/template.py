"""A template: a process that imports once, freezes what it has, and forks workers at the arbiter's word.

    Template(post, prepare, logs, title).run()

`prepare()` is run in the new template; what it imports, every worker shares. It gives what each
worker is to run: a function of the worker's `Post` that gives the exit code. For `--preload` it
imports the application and makes the warm-up requests; another may import just modules, and
leave the application to the worker. What it raises is a failed boot.

A worker must be the arbiter's child, whom it reaps. So the template forks twice: the one in
between ends at once, and its orphan goes to the nearest subreaper above, which the arbiter is.
The template holds neither port nor queue: whatever its workers need comes with each order.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import time
from collections.abc import Callable

from minicorn.errors import ExitCode
from minicorn.logs.explanation import explain
from minicorn.logs.logs import Logs
from minicorn.serving import order
from minicorn.serving.post import Post
from minicorn.system import channel, spawn
from minicorn.system.title import set_title

Boot = Callable[[Post], int]


class Template:
    """One template, from its fork to its end."""

    def __init__(self, post: Post, prepare: Callable[[], Boot], logs: Logs, title: str) -> None:
        """`title` is what process titles call the application."""
        self._post = post
        self._prepare = prepare
        self._logs = logs
        self._title = title

    def run(self) -> ExitCode:
        """Run the template from its fork to its end; the exit code."""
        spawn.ignore_terminal()
        self._post.take_up()
        self._set_title("importing")
        try:
            boot = self._prepare()
        except BaseException as error:  # SystemExit too: `exit(3)` at import is a failed boot
            self._post.fail(explain(error))
            return ExitCode.APP
        # TERM to all at once, as systemd sends it by default and Heroku does, is the arbiter's to obey. Not before:
        # what multiprocessing forks in the import is ended by it
        signal.signal(signal.SIGTERM, lambda signum, frame: None)
        self._set_title("ready")
        gc.collect()
        gc.freeze()  # a collection in a worker would write into every object it looks at, and copy its page
        self._post.page.idle(time.monotonic())
        self._post.page.promise(math.inf)  # whether it forks is seen by who is born
        self._post.ready()
        self._obey(boot)
        return ExitCode.OK

    def _obey(self, boot: Boot) -> None:
        """Do what the arbiter says, until it dismisses us or is gone."""
        line = self._post.channel
        alive = True
        while alive:
            messages, alive = line.wait()
            for message in messages:
                match message.word:
                    case channel.ORDER:
                        self._fork(order.take(message, line, self._post.idle_map), boot)
                    case channel.REOPEN:
                        self._logs.reopen()
                    case channel.RETIRE:
                        return

    def _fork(self, post: Post, boot: Boot) -> None:
        def run() -> int:
            self._post.lay_down()
            return boot(post)

        fork_twice(post, run)

    def _set_title(self, state: str) -> None:
        set_title(f"minicorn: template gen {self._post.generation} [{self._title}] {state}")


def fork_twice(post: Post, run: Callable[[], int]) -> None:
    """Fork, for an ordered `post`, a process that does `run()` once the arbiter knows it. By a double fork, so that
    it is the arbiter's child and not ours. What came with the order is closed here."""
    try:
        middle = spawn.fork(lambda: _run_middle(post, run), heir=True)
        with contextlib.suppress(ChildProcessError):  # the application ignores SIGCHLD
            os.waitpid(middle, 0)
    except OSError as error:
        post.channel.send(channel.FAILED, error.strerror or str(error))
    finally:
        post.close()


def _run_middle(post: Post, run: Callable[[], int]) -> int:
    try:
        spawn.fork(lambda: _run_newborn(post, run), heir=True)
        return ExitCode.OK
    except OSError as error:
        post.channel.send(channel.FAILED, error.strerror or str(error))
        return ExitCode.CONFIG


def _run_newborn(post: Post, run: Callable[[], int]) -> int:
    spawn.lead_group()
    post.channel.send(channel.BORN)
    return run() if post.channel.pass_gate() else ExitCode.OK
