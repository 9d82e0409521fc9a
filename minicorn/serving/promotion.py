"""A worker's promotion: it forks a template of its like, with all that requests have loaded, and serves on.

It is ordered by the arbiter, as a fork is ordered from a template. Between two requests, without the
helper, the worker looks at what a fork would break: threads, clients that are half-way through a request
or a reply, and what the application has opened since the worker began, which all workers to come would
talk over at the same time. If there is any it refuses, and says what.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable, Iterator

from minicorn.server import Server
from minicorn.serving import order
from minicorn.serving.forksafety import Watch
from minicorn.serving.post import Post
from minicorn.serving.state import BODY, REPLY
from minicorn.serving.template import fork_twice
from minicorn.system import channel, signals
from minicorn.system.channel import Message
from minicorn.system.signals import Signals

# Frames of the worker that has forked lie below all that its template and later workers call: more than those are
NESTED = 50


class Promotion:
    """Promotes a worker that has booted, when that is ordered."""

    def __init__(self, post: Post, server: Server, taken: Signals, be_template: Callable[[Post], int]) -> None:
        """`post`, `server` and `taken` are the worker's own; `be_template` is run by what it forks."""
        self._post = post
        self._server = server
        self._signals = taken
        self._be_template = be_template
        self._watch = Watch()

    def take(self, message: Message) -> None:
        """Take up an ORDER, from whatever thread, and obey as soon as no request is in hand."""
        ordered = order.take(message, self._post.channel, self._post.idle_map)
        self._server.soon(lambda: self._obey(ordered))

    def _obey(self, ordered: Post) -> None:
        self._server.pause()
        if hindrances := list(self._find_hindrances(ordered)):
            ordered.channel.send(channel.FAILED, "it has " + ", ".join(hindrances))
            ordered.close()
        else:
            fork_twice(ordered, lambda: self._run_template(ordered))

    def _find_hindrances(self, ordered: Post) -> Iterator[str]:
        if any(connection.state in (BODY, REPLY) for connection in self._server.connections):
            yield "a request under way"
        yield from self._watch.threads()
        ours = [connection.fd for connection in self._server.connections]
        yield from self._watch.descriptors([*ours, *ordered.descriptors])

    def _run_template(self, ordered: Post) -> int:
        """Be the template: let go first of what belongs to the worker, which lives on."""
        self._server.shutdown()
        self._signals.close()
        faulthandler.unregister(signals.STACKS)
        self._post.lay_down()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)  # hook worker_abort
        ordered.close_shared()
        sys.setrecursionlimit(sys.getrecursionlimit() + NESTED)
        return self._be_template(ordered)
