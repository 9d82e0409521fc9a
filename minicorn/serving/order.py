"""An order to fork: a `Post` for a child that is not the arbiter's own fork.

A template is told to fork a worker, or a worker to fork a template of its like. What a fork of
the arbiter's would inherit travels with the order: page, stack, channel, both ends of the
hand-off queue and the listeners. So whoever forks need hold neither port nor queue itself.

The newborn speaks for itself: BORN, on the channel it was given; then it waits at
the gate until the arbiter has put that pid on its list. If anything goes wrong on the way its end
of the channel is closed with whoever held it, and the arbiter sees an end of file in place of BORN.
"""

from __future__ import annotations

import mmap
import os

from minicorn.figures.heartbeat import SIZE, Page
from minicorn.figures.idlemap import IdleMap
from minicorn.serving.handoff import Handoff
from minicorn.serving.post import Post
from minicorn.system import channel, listeners
from minicorn.system.channel import Channel, Message


def give(line: Channel, post: Post, page_fd: int) -> None:
    """Order a fork for `post` over `line`; the caller then closes its copy of the post's channel."""
    which = [post.slot, post.generation, post.failure, [listener.host for listener in post.listeners]]
    own = (page_fd, post.stack_fd, post.trace_fd, post.channel.fd)
    shared = (*post.handoff.ends, *(listener.fd for listener in post.listeners))
    line.send(channel.ORDER, which, [*own, *shared])


def take(message: Message, line: Channel, idle_map: IdleMap) -> Post:
    """The post that an ORDER, come by `line`, speaks of; `idle_map` is inherited by all."""
    slot, generation, failure, hosts = message.value
    fds = iter([line.descriptors.popleft() for _ in range(6 + len(hosts))])
    page_fd, stack_fd, trace_fd, line_fd = (next(fds) for _ in range(4))
    page = Page(mmap.mmap(page_fd, SIZE))
    os.close(page_fd)
    handoff = Handoff((next(fds), next(fds)))
    bound = [
        listeners.adopt((fd, host, None), number) for number, (fd, host) in enumerate(zip(fds, hosts, strict=True))
    ]
    return Post(slot, generation, page, stack_fd, trace_fd, channel.adopt(line_fd), handoff, idle_map, bound, failure)
