"""Accept queues of real sockets, and what processes use."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from minicorn.figures.snapshot import QueueView
from minicorn.figures.usage import read_cpu, read_parent
from minicorn.pool.standing import Listening
from minicorn.system.queues import look_at_queues

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's diagnosis of sockets")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def waiting(stack: ExitStack, listening: socket.socket, clients: int) -> Listening:
    """`listening`, with so many clients that nobody accepts."""
    listening.listen(9)
    stack.enter_context(listening)
    for _ in range(clients):
        client = stack.enter_context(socket.socket(listening.family))
        client.connect(listening.getsockname())
    return Listening(f"of {clients}", os.fstat(listening.fileno()).st_ino)


def test_those_who_wait_in_an_accept_queue_are_counted(stack: ExitStack, tmp_path: Path) -> None:
    inet, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    inet.bind(("127.0.0.1", 0))
    unix.bind(str(tmp_path / "socket"))
    listeners = [waiting(stack, inet, 3), waiting(stack, unix, 2)]
    assert look_at_queues(listeners) == (QueueView("of 3", 3, 9), QueueView("of 2", 2, 9))


def test_a_socket_that_is_not_there_has_no_queue() -> None:
    assert look_at_queues([Listening("gone", 1)]) == ()


def test_a_process_has_used_cpu_and_has_a_parent() -> None:
    sum(range(1_000_000))
    assert 0 < read_cpu(os.getpid()) < 3600
    assert read_parent(os.getpid()) == os.getppid()
    assert (read_cpu(2**22 + 1), read_parent(2**22 + 1)) == (0.0, 0)
