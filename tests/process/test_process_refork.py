"""`--refork-after`: a warm worker is promoted to template, and what it has loaded is shared by all."""

import os
import re
import socket
import time
from signal import SIGKILL, SIGTTIN

import pytest
from harness import Server, Starter, descriptors, wait_until
from load import Load
from test_process_ctl import ctl
from test_process_handoff import ask, hold_owner
from test_process_preload import STATE, WORD, check_that_they_differ, preloaded, template, templates, workers

from minicorn.system.process import read_memory

# Nothing of 32 MB is there before the first request; and what a fork would break or share
LAZY = """
import os, socket, threading
from plain import ROUTES, app
LOADED, OPENED = [], []

def load(environ):
    if not LOADED:
        LOADED.extend([str(os.getpid()), [str(n) for n in range(500_000)]])
    return f"{os.getpid()} {LOADED[0]}"

def start_thread(environ):
    threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
    return str(os.getpid())

def open_socket(environ):
    OPENED.append(socket.create_server(("127.0.0.1", 0)))
    return str(os.getpid())

def measure_room(environ, deep=1):
    try:
        return measure_room(environ, deep + 1)
    except RecursionError:
        return str(deep)

ROUTES |= {"/load": load, "/thread": start_thread, "/socket": open_socket, "/room": measure_room}
"""
MIB = 2**20


def warmed(start: Starter, app: str, count: int, after: str, *flags: str) -> Server:
    return preloaded(start, app, count, "--refork-after", after, *flags)


def ask_all(server: Server, path: str, count: int) -> dict[int, str]:
    """What each of so many workers answers, by pid, which is its first word."""
    told: dict[int, str] = {}

    def have_told() -> bool:
        connections = [server.send(path) for _ in range(2 * count)]
        for connection in connections:
            text = connection.getresponse().read().decode()
            told.setdefault(int(text.split()[0]), text)
        return len(told) >= count  # some may have been replaced meanwhile

    wait_until(have_told, f"each of {count} workers has answered")
    return told


def refork(server: Server) -> None:
    """Ask until a worker is warm enough, then wait until all are new, and the arbiter's children."""
    count = len(workers(server))
    while "is promoted after" not in server.log.text:
        server.get()
    server.wait_log("generation 2 serves: ")
    server.wait_log(r"template \d+ \(gen 1\) has ended")
    wait_until(lambda: len(workers(server)) == count, "the arbiter has adopted its workers")


def pipes_of(pid: int) -> set[str]:
    return {link for link in descriptors(pid) if link.startswith("pipe:")}


def private(server: Server) -> list[int]:
    return sorted(read_memory(pid).private for pid in workers(server))


# What it is for


def test_what_requests_have_loaded_is_shared_after_a_refork(start: Starter) -> None:
    start.write("lazy.py", LAZY)
    server = warmed(start, "lazy:app", 3, "60")
    room = int(server.get("/room").text)
    before = ask_all(server, "/load", 3)
    assert private(server)[0] > 28 * MIB
    assert all(text == f"{pid} {pid}" for pid, text in before.items())  # each has loaded it itself
    for _ in range(180):
        server.get("/load")
    server.wait_log("generation 2 serves: ")
    promoted = re.search(r"worker (\d+) .* is promoted after", server.log.text)[1]
    after = ask_all(server, "/load", 3)
    assert before.keys().isdisjoint(after)
    assert {text.split()[1] for text in after.values()} == {promoted}
    assert private(server)[-1] < 14 * MIB
    assert len(list(start.cwd.glob("boot-*"))) == 1  # nothing was imported again
    assert int(server.get("/room").text) >= room


def test_no_request_fails_while_workers_are_promoted(start: Starter) -> None:
    start.write("word.py", "WORD = 'old'" + WORD)
    server = warmed(start, "word:app", 3, "200,200,200")
    start.write("word.py", "WORD = 'new'" + WORD)
    with Load(server.port, 8, pause=0.002) as load:
        for generation in (2, 3, 4):
            server.wait_log(rf"generation {generation} serves: ")
    assert not load.tally.failures and not load.tally.idle_closes
    assert load.tally.words == {"old"}  # no promotion has imported anything
    server.hup(4)
    assert server.get().text.startswith("new")
    server.wait_log(r"template \d+ \(gen 4\) has ended")
    wait_until(lambda: len(server.workers()) == 4, "three workers and a template are left")
    assert server.family() == {server.pid, template(server), *workers(server)}


# What comes of it is as any template, and any worker


def test_a_promoted_template_holds_nothing_of_the_workers(start: Starter) -> None:
    server = warmed(start, "handoff_app:app", 2, "10")
    pipes = pipes_of(template(server))
    idle = server.connect()
    ask(idle)
    refork(server)
    wait_until(lambda: sum(link.startswith("socket:") for link in descriptors(template(server))) == 1, "a channel")
    assert not [link for link in descriptors(template(server)) if "epoll" in link]
    assert pipes_of(template(server)) == pipes
    assert ask(idle).status == 200
    idle.close()
    # In the application, a worker's helper sees that another connection of its has something to say
    owner, _, (other,) = hold_owner(server, 1)
    assert int(ask(other).text) in workers(server) - {owner}
    (start.cwd / "release").touch()
    server.release()


def test_workers_of_a_promoted_template_are_whole(start: Starter) -> None:
    start.write("state_app.py", STATE)
    start.write("hooks.py", "def post_fork(server, worker):\n    open(f'hooked-{worker.pid}', 'w').close()\n")
    flags = ("-c", "hooks.py", "--access-logfile", "access.log", "--timeout", "1")
    server = warmed(start, "state_app:app", 2, "10", *flags)
    refork(server)
    assert {int(path.name.split("-")[1]) for path in start.cwd.glob("hooked-*")} >= workers(server)
    check_that_they_differ(server, 2)
    server.get("/version?once")
    wait_until(lambda: (start.cwd / "access.log").read_text().count("/version?once") == 1, "it is logged once")
    assert ctl(server, "stacks").stdout.count("(most recent call first)") >= 2
    _, late = server.begin("/spin")
    server.wait_log(rf"worker {late} \(slot \d+, gen 2\) was late .*GET /spin(.*\n)+.*in spin")
    server.wait_log(r"worker \d+ \(slot \d+, gen 2\) is ready", count=3)
    assert server.get().status == 200


def test_killing_promoted_templates_and_their_workers_ends_well(start: Starter) -> None:
    server = warmed(start, "plain:app", 3, "10")
    refork(server)
    first, before = template(server), workers(server)
    os.kill(first, SIGKILL)
    server.wait_log(r"template \d+ \(gen 2\) is up", count=2)
    assert workers(server) == before
    for _ in range(3):
        for pid in (template(server), *workers(server)):
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass  # a template from before
        wait_until(lambda: len(workers(server)) == 3 and template(server) in server.workers(), "it converges", 30)
    wait_until(lambda: server.get().status == 200, "it answers")
    wait_until(lambda: server.family() == {server.pid, template(server), *workers(server)}, "nobody else is left")


# Who is not promoted


def test_what_a_fork_would_break_keeps_a_worker_from_it_and_another_is_taken(start: Starter) -> None:
    start.write("lazy.py", LAZY)
    server = warmed(start, "lazy:app", 1, "40")
    unfit = int(server.get("/thread").text)
    server.get("/socket")
    for _ in range(40):
        server.get()
    hindrances = r"it has thread 'poller', a socket on 127\.0\.0\.1:\d+"
    server.wait_log(rf"worker {unfit} \(slot 1, gen 1\) is not promoted to template: {hindrances}")
    server.signal(SIGTTIN)
    server.wait_ready(2)
    while len(templates(server)) == 1:  # until the other one is warm
        ask_all(server, "/", 2)
    server.wait_log("generation 2 serves: ")
    assert server.log.text.count("is not promoted") == 1


def test_a_worker_in_the_middle_of_a_request_is_not_promoted(start: Starter) -> None:
    server = warmed(start, "plain:app", 1, "10")
    with socket.create_connection(("127.0.0.1", server.port)) as upload:
        upload.sendall(b"POST /digest HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n12345")
        for _ in range(10):
            server.get()
        server.wait_log(r"is not promoted to template: it has a request under way")
        upload.sendall(b"67890")
        assert upload.recv(100).startswith(b"HTTP/1.1 200")
    refork(server)
    assert server.get().status == 200


def test_a_busy_worker_is_promoted_when_its_request_is_over(start: Starter) -> None:
    server = warmed(start, "plain:app", 1, "10")
    for _ in range(10):
        server.get()
    held = server.hold()  # the arbiter has not looked yet, or asks now
    server.release()
    assert held.getresponse().status == 200
    server.wait_log("generation 2 serves: ")
    assert "is not promoted" not in server.log.text


# What is said


def test_reload_goes_before_preload_and_says_so(start: Starter) -> None:
    server = start("plain:app", "--reload", "--preload", "--refork-after", "1", "--workers", "1")
    server.wait_log("--reload goes before --preload")
    assert server.get().status == 200


# Under load


@pytest.mark.slow
def test_no_request_fails_where_reloads_meet_reforks(start: Starter) -> None:
    start.write("word.py", "WORD = '1'" + WORD)
    server = warmed(start, "word:app", 3, ",".join(["60"] * 40))
    with Load(server.port, 8, pause=0.002) as load:
        for number in range(2, 22):
            promoted = len(re.findall("is promoted after", server.log.text))
            server.wait_log("is promoted after", count=promoted + 1)
            start.write("word.py", f"WORD = '{number}'" + WORD)
            time.sleep(0.01 * (number % 7))  # at another moment of the refork each time
            assert ctl(server, "reload", "--wait").returncode == 0
            assert server.get().text.split()[0] == str(number)
    assert not load.tally.failures and not load.tally.idle_closes
    wait_until(lambda: len(server.workers()) == 4, "three workers and a template are left")
    assert server.family() == {server.pid, template(server), *workers(server)}
