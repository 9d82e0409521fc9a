"""Whose word counts about a request: its id and its start are a trusted peer's to give."""

import pytest

from minicorn.http.peers import Peers
from minicorn.http.tracing import ID_MOST, Tracing


def tracing() -> Tracing:
    return Tracing("ab", Peers("127.0.0.1,::1,unix"))


def test_a_request_without_a_name_is_given_one_of_its_own() -> None:
    names = tracing()
    assert [names.name({}, "192.0.2.7") for _ in range(17)][-2:] == ["ab-10", "ab-11"]


@pytest.mark.parametrize(("peer", "trusted"), [("127.0.0.1", True), ("::1", True), ("", True), ("192.0.2.7", False)])
def test_a_name_counts_from_a_trusted_peer_alone(peer: str, trusted: bool) -> None:
    name = tracing().name({"HTTP_X_REQUEST_ID": "theirs"}, peer)
    assert name == ("theirs" if trusted else "ab-1")


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "a\\b", "a\tb", "\xe9", "x" * (ID_MOST + 1)])
def test_a_name_that_could_not_be_printed_is_replaced(given: str) -> None:
    assert tracing().name({"HTTP_X_REQUEST_ID": given}, "") == "ab-1"


@pytest.mark.parametrize("given", ["4f1c-9a_b:1/=", "x" * ID_MOST])
def test_a_name_may_have_signs_in_it(given: str) -> None:
    assert tracing().name({"HTTP_X_REQUEST_ID": given}, "") == given


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("t=1700000000.125", 1700000000.125),  # nginx: t=${msec}
        ("1700000000.125", 1700000000.125),
        ("1700000000", 1700000000.0),
        ("1700000000125", 1700000000.125),  # Heroku
        ("t=1700000000125000", 1700000000.125),  # Apache: t=%t
        ("", None),
        ("t=", None),
        ("t=-1", None),
        ("1e9", None),
        ("now", None),
        ("\u0661", None),
        ("1" * 40, None),
    ],
)
def test_the_wait_begins_where_a_proxy_took_the_request_on_in_each_proxys_unit(
    text: str, seconds: float | None
) -> None:
    now = 1700000003.0
    waited = tracing().waited({"HTTP_X_REQUEST_START": text}, "127.0.0.1", now, here=0.25)
    assert waited == (0.25 if seconds is None else now - seconds)


def test_the_start_counts_from_a_trusted_peer_alone() -> None:
    fields = {"HTTP_X_REQUEST_START": "1700000000"}
    assert tracing().waited(fields, "192.0.2.7", 1700000003.0, here=0.25) == 0.25
    assert tracing().waited({}, "127.0.0.1", 1700000003.0, here=0.25) == 0.25


def test_a_proxys_clock_that_is_ahead_is_no_negative_wait() -> None:
    assert tracing().waited({"HTTP_X_REQUEST_START": "1700000060"}, "::1", 1700000003.0, here=0.25) == 0.0
