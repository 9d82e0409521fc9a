"""--slow-request: the stack of what takes long, once, while it goes on."""

import re

import pytest
from harness import Starter, read


@pytest.mark.parametrize(
    ("path", "line"),
    [("/nap?1.5", r"line \d+ in nap"), ("/grind", r"line \d+ in grind")],  # the second keeps the GIL all the time
)
def test_a_slow_request_shows_its_stack_once_and_is_answered(start: Starter, path: str, line: str) -> None:
    server = start("logs_app:app", "--slow-request", "0.3")
    connection = server.send(path)
    head = rf"WARNING:  worker \d+ .* is slow, \d\.\d s in GET {re.escape(path)} "
    server.wait_log(rf"{head}.*its stack:\n(?:.*\n)*?.*{line}")
    assert read(connection).status == 200
    assert server.get("/").text == "hello"
    assert server.stop() == 0
    assert server.log.finish().count("is slow") == 1


def test_a_request_that_is_just_slow_enough_is_seen(start: Starter) -> None:
    """However it lies between the arbiter's looks: the limit is kept to a tenth of a second."""
    server = start("logs_app:app", "--slow-request", "0.2", "--workers", "2")
    for number in range(1, 6):
        assert server.get(f"/nap?0.9&{number}").status == 200
        server.wait_log(rf"is slow, 0\.\d s in GET /nap\?0\.9&{number} ")
    shown = re.findall(r"is slow, (\d\.\d) s in", server.log.text)
    assert len(shown) == 5


def test_a_quick_request_and_an_idle_worker_show_nothing(start: Starter) -> None:
    server = start("logs_app:app", "--slow-request", "0.5")
    assert server.get("/").status == 200
    assert server.get("/nap?0.1").status == 200
    assert server.stop() == 0
    assert "is slow" not in server.log.finish()
