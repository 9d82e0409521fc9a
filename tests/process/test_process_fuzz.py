"""Streams of mutated bytes against a real arbiter and its workers: nothing that a client sends upsets them."""

import re
import ssl

import psutil
import pytest
from harness import Server, Starter, descriptors, wait_until
from wirefuzz import fuzz

APP = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Length", str(len(body)))])
    return [environ["PATH_INFO"].encode("latin-1")]
"""
WORKERS = 2


def opened(server: Server) -> dict[int, list[str]]:
    """What the descriptors of each worker lead to, without the numbers of sockets."""
    return {pid: sorted(re.sub(r"\d+", "", path) for path in descriptors(pid)) for pid in server.workers()}


def is_quiet(server: Server) -> bool:
    """No worker has a client."""
    return not any(
        each.status != psutil.CONN_LISTEN
        for pid in server.workers()
        for each in psutil.Process(pid).net_connections("tcp")
    )


def besiege(start: Starter, count: int, seed: int, pair=None) -> None:
    start.write("echo.py", APP)
    server = start("echo:app", "--workers", str(WORKERS), "--recv-timeout", "5", *(pair.flags if pair else ()))
    address = ("127.0.0.1", server.port)
    context = ssl.create_default_context(cafile=pair.certificate) if pair else None
    fuzz(address, 40, 0, context=context)  # what is opened once
    wait_until(lambda: is_quiet(server), "a client stays", 30)
    before = opened(server)
    outcome = fuzz(address, count, seed, context=context)
    print(f"{outcome.sent} streams, {outcome.replies} answered, {outcome.good} good requests between them")
    assert outcome.hung == [] and outcome.false == []
    assert outcome.sent == count and outcome.replies > count / 4
    assert outcome.good >= count // 50
    wait_until(lambda: is_quiet(server), "a client stays", 30)
    wait_until(lambda: opened(server) == before, "nothing is left open")
    wrong = re.search(r"(?s)(Traceback|ERROR|CRITICAL).{,2000}", server.log.text)
    assert wrong is None, wrong[0]


def test_four_thousand_mutated_streams_leave_no_trace(start: Starter) -> None:
    besiege(start, 4_000, seed=6)


def test_a_thousand_mutated_streams_under_tls_and_below_it_leave_no_trace(start: Starter, pair) -> None:
    besiege(start, 1_000, seed=7, pair=pair)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_mutated_streams_under_tls_and_below_it_leave_no_trace(start: Starter, pair) -> None:
    besiege(start, 10_000, seed=8, pair=pair)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_more_mutated_streams_leave_no_trace(start: Starter, seed: int) -> None:
    besiege(start, 10_000, seed=100 + seed)
