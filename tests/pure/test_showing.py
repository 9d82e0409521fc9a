"""Who may see a traceback: a client on this machine, which no proxy and no page of somebody else's stands for."""

import pytest

from minicorn.reload.failure import HEADLINE_MOST, from_exception
from minicorn.reload.showing import is_local


@pytest.mark.parametrize("peer", ["", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "shop.test", "shop.localhost"])
def test_a_client_on_this_machine_is_local(peer: str, host: str) -> None:
    assert is_local(peer, (), host)


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 127.0.0.1, ::1",
        "X-Real-IP: 127.0.0.1",
        "X-Forwarded-Host: localhost:3000",
        "X-Forwarded-Proto: http",
        "X_Other: a",
    ],
)
def test_a_proxy_on_this_machine_that_tells_of_it_is_no_hindrance(line: str) -> None:
    assert is_local("127.0.0.1", (line,), "localhost")


@pytest.mark.parametrize(
    ("peer", "line", "host"),
    [
        ("203.0.113.7", "", "localhost"),
        ("::ffff:203.0.113.7", "", "localhost"),
        ("127.0.0.1", "", "shop.example"),
        ("127.0.0.1", "", "127.0.0.1.shop.example"),
        ("127.0.0.1", "Forwarded: for=127.0.0.1", "localhost"),
        ("127.0.0.1", "X-Forwarded-For: 203.0.113.7", "localhost"),
        ("127.0.0.1", "x-forwarded-for: 127.0.0.1, 203.0.113.7", "localhost"),
        ("127.0.0.1", "X-Forwarded-For: unknown", "localhost"),
        ("127.0.0.1", "X-Real-IP: 203.0.113.7", "localhost"),
        ("127.0.0.1", "X-Forwarded-Host: shop.example", "localhost"),
    ],
)
def test_another_machine_or_its_page_is_not(peer: str, line: str, host: str) -> None:
    assert not is_local(peer, (line,) if line else (), host)


def test_a_long_message_is_no_headline() -> None:
    failure = from_exception("GET /", ValueError("x" * 5000))
    assert failure.headline == "ValueError: " + "x" * (HEADLINE_MOST - len("ValueError: ")) + "…"
    assert "x" * 5000 in failure.text
