"""What a child is given at its fork: by an order it travels whole, and who is not to have it lets go of it."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicorn.errors import AppLoadError
from minicorn.figures.directory import Directory
from minicorn.logs.logger import LOGGER
from minicorn.serving import order
from minicorn.serving.handoff import Handoff
from minicorn.serving.post import Post
from minicorn.system import channel, spawn
from minicorn.system.channel import Message
from minicorn.system.listeners import Listener


class Place:
    """A post of slot 3, with the arbiter's end of its channel."""

    def __init__(self, base: Path) -> None:
        self.directory = Directory(str(base))
        self.listeners = [Listener(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(base / "sock"))
        unix.listen()
        self.listeners.append(Listener(unix, None, str(base / "sock")))
        self.arbiters, theirs = channel.pair()
        self.page = self.directory.page(3)
        self.post = Post(
            3,
            7,
            self.page,
            self.directory.stack_fd(3),
            self.directory.trace_fd(3),
            theirs,
            Handoff(),
            self.directory.idle_map(4),
            self.listeners,
            "broken",
        )

    def run(self, act: Callable[[], object]) -> int:
        """The wait status of a child that does so, and ends with the number that is its result."""
        pid = spawn.fork(lambda: int(act() or 0))  # type: ignore[call-overload]
        return os.waitpid(pid, 0)[1]

    def close(self) -> None:
        self.post.handoff.close()
        self.post.channel.close()
        self.arbiters.close()
        for listener in self.listeners:
            listener.close()
        self.directory.remove()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def same(one: int, other: int) -> bool:
    return one != other and os.path.sameopenfile(one, other)


def test_an_order_brings_the_whole_post_with_its_descriptors(place: Place) -> None:
    post, (arbiters, templates) = place.post, channel.pair()
    order.give(arbiters, post, place.directory.page_fd(3))
    before = len(os.listdir("/proc/self/fd"))
    ((message,), alive) = templates.receive()
    assert alive and message.word == channel.ORDER
    came = order.take(message, templates, post.idle_map)
    assert (came.slot, came.generation, came.failure) == (3, 7, "broken")
    assert came.idle_map is post.idle_map
    place.page.promise(12.5)
    assert came.page.deadline == 12.5
    assert len(came.descriptors) == len(post.descriptors) == 8
    assert all(map(same, came.descriptors, post.descriptors))
    assert [each.number for each in came.listeners] == [0, 1, 2]
    assert [(each.host, each.port) for each in came.listeners] == [(each.host, each.port) for each in post.listeners]
    assert came.channel.send("hello") and place.arbiters.receive() == ([Message("hello")], True)
    came.close()
    assert len(os.listdir("/proc/self/fd")) == before + 1  # of the page there is the mapping's
    assert not templates.descriptors
    arbiters.close()
    templates.close()


def test_each_lets_go_of_what_is_not_its_own(place: Place) -> None:
    post = place.post
    own = [post.stack_fd, post.trace_fd, post.channel.fd]
    shared = [*post.handoff.ends, *(listener.fd for listener in post.listeners)]
    assert post.descriptors == [*own, *shared]

    for act, stay in ((post.lay_down, shared), (post.close_shared, own), (post.close, [])):

        def is_wrong(act: Callable[[], None] = act, stay: list[int] = stay) -> bool:
            act()
            return [fd for fd in (*own, *shared) if is_open(fd)] != stay

        assert place.run(is_wrong) == 0


def test_who_takes_it_up_leads_a_group_and_tells_of_its_errors_and_its_end(place: Place) -> None:
    def be() -> int:
        place.post.take_up()
        LOGGER.error("it is broken")
        if os.getpgid(0) == os.getpid():
            os.kill(os.getpid(), signal.SIGSEGV)
        return 1

    assert os.WTERMSIG(place.run(be)) == signal.SIGSEGV
    assert "Segmentation fault" in place.directory.read_stack(3)
    assert place.page.read_error()[1] == "it is broken"


def test_who_has_laid_it_down_writes_no_stack_there(place: Place) -> None:
    def be() -> int:
        place.post.take_up()
        place.post.lay_down()
        os.kill(os.getpid(), signal.SIGSEGV)
        return 1

    assert os.WTERMSIG(place.run(be)) == signal.SIGSEGV
    assert place.directory.read_stack(3) == ""


def test_an_import_that_has_closed_all_descriptors_is_told_where_it_can_be(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    post = place.post
    post.fail("by the line")
    assert place.arbiters.receive() == ([Message(channel.FAILED, "by the line")], True)
    post.channel.close()
    with pytest.raises(AppLoadError, match="must not daemonize"):
        post.take_stack()
    post.fail("by standard error")
    assert capfd.readouterr().err == "by standard error\n"
