"""Errors as they are kept for whoever looks from outside: in a line, with what they are about."""

import pytest

from minicorn.logs.complaints import collect, handlers
from minicorn.logs.logger import LOGGER

TRACEBACK = """GET /: the application raised
Traceback (most recent call last):
  File "shop.py", line 7, in buy
ValueError: sold out"""
STACK = """worker 7 (slot 1, gen 1) was late; its stack:
Fatal Python error: Aborted

Thread 0x00007f (most recent call first):
  File "helper.py", line 3 in wait

Current thread 0x00007e (most recent call first):
  File "shop.py", line 7 in buy
  File "wsgi.py", line 9 in run

Extension modules: one (total: 1)"""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("cannot start", "cannot start"),
        (TRACEBACK, "GET /: the application raised … ValueError: sold out"),
        (STACK, 'worker 7 (slot 1, gen 1) was late; its stack: … File "shop.py", line 7 in buy'),
    ],
)
def test_an_error_is_kept_with_its_gist(text: str, kept: str) -> None:
    seen: list[str] = []
    collect(lambda text, at: seen.append(text))
    try:
        LOGGER.error("%s", text)
    finally:
        for handler in handlers():
            LOGGER.removeHandler(handler)
    assert seen == [kept]
