"""A request whose worker has died in it: its line, from the page of the worker."""

import pytest

from minicorn.config.settings import ACCESS_FORMAT
from minicorn.figures.heartbeat import Page, private_page
from minicorn.logs.accesslog import compile_format
from minicorn.logs.entry import Origin
from minicorn.logs.unanswered import unanswered

ORIGIN = Origin(slot=1, generation=2, pid=4711)
HEAD = "GET /a%20b?q=1 HTTP/1.1\r\nHost: example.com\r\nReferer: /from\r\nUser-Agent: curl/8.0\r\n"


def busy(head: str = HEAD + "\r\n", target: str = "/a%20b?q=1") -> Page:
    page = private_page()
    page.begin("GET", target, "192.0.2.7", 100.0, 130.0, "ab-1", head)
    return page


def line(page: Page, format: str = ACCESS_FORMAT) -> str:
    entry = unanswered(page.read(), ORIGIN, "timeout", now=131.5)
    assert entry is not None
    return compile_format(format)(entry).decode()


def test_its_line_is_like_any_other_but_for_status_size_and_cause() -> None:
    rendered = line(busy())
    assert rendered.startswith("192.0.2.7 - - [")
    assert rendered.endswith('] "GET /a%20b?q=1 HTTP/1.1" - - "/from" "curl/8.0" killed=timeout\n')


def test_every_atom_is_known() -> None:
    format = "%(U)s %(q)s %(L)s %(p)s %({host}i)s %({request_id}x)s %({worker}x)s %({generation}x)s %({cause}x)s"
    assert line(busy(), format) == "/a b q=1 31.500000 <4711> example.com ab-1 1 2 timeout killed=timeout\n"


@pytest.mark.parametrize("padding", [1000, 1900, 5000])
def test_a_head_for_which_the_page_has_no_room_loses_its_last_lines(padding: int) -> None:
    rendered = line(busy(HEAD + f"Cookie: {'c' * padding}\r\n\r\n"))
    assert rendered.endswith('"/from" "curl/8.0" killed=timeout\n')


def test_a_head_whose_request_line_fills_the_page_still_has_its_line() -> None:
    target = "/" + "x" * 5000
    rendered = line(busy(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n", target))
    assert 'xxx HTTP/1.1" - - ' in rendered


def test_a_worker_that_was_idle_has_no_line() -> None:
    page = busy()
    page.idle(131.0)
    assert unanswered(page.read(), ORIGIN, "signal", 131.5) is None
