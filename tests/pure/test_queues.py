"""Accept queues of real sockets."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from minicorn.figures.snapshot import QueueView, Snapshot
from minicorn.figures.usage import with_usage
from minicorn.pool.standing import Listening, Standing
from minicorn.system.queues import read_queues

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's diagnosis of sockets")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def waiting(stack: ExitStack, listening: socket.socket, clients: int) -> int:
    """Give `listening` so many clients that nobody accepts; its inode."""
    listening.listen(9)
    stack.enter_context(listening)
    for _ in range(clients):
        client = stack.enter_context(socket.socket(listening.family))
        client.connect(listening.getsockname())
    return os.fstat(listening.fileno()).st_ino


def test_those_who_wait_in_an_accept_queue_are_counted(stack: ExitStack, tmp_path: Path) -> None:
    inet, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    inet.bind(("127.0.0.1", 0))
    unix.bind(str(tmp_path / "socket"))
    inodes = waiting(stack, inet, 3), waiting(stack, unix, 2)
    queues = read_queues()
    assert [queues[inode] for inode in inodes] == [(3, 9), (2, 9)]


def test_each_queue_of_the_server_has_its_listeners_name_and_a_socket_that_is_gone_has_none(stack: ExitStack) -> None:
    inet = socket.socket()
    inet.bind(("127.0.0.1", 0))
    listeners = Listening("gone", 1), Listening("here", waiting(stack, inet, 1))
    snapshot = Snapshot(0.0, 0.0, Standing(pid=os.getpid(), listeners=listeners), ())
    assert with_usage(snapshot).queues == (QueueView("here", 1, 9),)
