"""A connection belongs to the server: it outlives its worker, and waits for no busy one."""

import http.client
import itertools
import json
import mmap
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTTIN, SIGTTOU, SIGUSR2

import psutil
import pytest
from harness import ANY_PORT, Reply, Server, Starter, descriptors, environment, read, wait_until
from load import Load, Tally

from minicorn.figures.heartbeat import SIZE, Page

APP = "handoff_app:app"
KILLS = 6
# Nobody is given up, however long the test takes
PATIENT = ("--timeout", "0", "--recv-timeout", "60", "--keep-alive", "60")
HEAD = b"GET /tell HTTP/1.1\r\nHost: localhost\r\nMark: "


# Clients


def keep(server: Server, at: Path | None = None) -> http.client.HTTPConnection:
    """A connection that is never made anew: that would hide the loss of the first."""
    connection = server.connect(at=at)
    connection.connect()
    connection.auto_open = 0
    return connection


def ask(connection: http.client.HTTPConnection, path: str = "/", **options: object) -> Reply:
    connection.request("GET", path, **options)  # type: ignore[arg-type]
    return read(connection)


def who(connection: http.client.HTTPConnection) -> int:
    """The worker that answers; it has the connection from then on."""
    return int(ask(connection).text)


def of_one_worker(server: Server, count: int) -> tuple[int, list[http.client.HTTPConnection]]:
    """Idle connections of one worker, and its pid; the others have none."""
    owned: dict[int, list[http.client.HTTPConnection]] = {}
    while not any(len(connections) == count for connections in owned.values()):
        connection = keep(server)
        owned.setdefault(who(connection), []).append(connection)
    owner = max(owned, key=lambda pid: len(owned[pid]))
    connections = owned.pop(owner)
    for connection in itertools.chain(*owned.values()):
        connection.close()
    wait_until(lambda: not any(map(ports_of, server.workers() - {owner})), "the others have no connections")
    return owner, connections


def hold(server: Server, connection: http.client.HTTPConnection, path: str = "/hold") -> int:
    """The worker that has a request of `connection` in hand until `server.release()`."""
    before = set(server.cwd.glob("begun-*"))
    connection.request("GET", path)
    wait_until(lambda: set(server.cwd.glob("begun-*")) - before, f"the application has {path} in hand")
    (begun,) = set(server.cwd.glob("begun-*")) - before
    return int(begun.name.split("-")[1])


def hold_owner(
    server: Server, count: int, path: str = "/hold"
) -> tuple[int, http.client.HTTPConnection, list[http.client.HTTPConnection]]:
    """A worker that is inside the application until `server.release()`, its connection there, and
    `count` idle ones that it has as well."""
    for name in itertools.count():
        owner, (held, *others) = of_one_worker(server, count + 1)
        # Who was slow a moment ago may give even this away
        if hold(server, held, f"{path}/{name}") == owner:
            return owner, held, others
        (server.cwd / f"release-{name}").touch()
        assert read(held).status == 200
        for connection in (held, *others):
            connection.close()
    raise AssertionError


def hold_all(server: Server, count: int) -> list[http.client.HTTPConnection]:
    """Every worker is inside the application."""
    connections = [keep(server) for _ in range(count)]
    assert len({hold(server, connection) for connection in connections}) == count
    return connections


def is_silent(connection: http.client.HTTPConnection, seconds: float) -> bool:
    """No byte comes within `seconds`."""
    connection.sock.settimeout(seconds)
    try:
        connection.sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        connection.sock.settimeout(15)
    return False


# What the system knows


def wait_read(server: Server, connection: http.client.HTTPConnection) -> None:
    """Until all that has been sent on a TCP connection has been read by a worker."""
    ports = connection.sock.getsockname()[1], server.port

    def is_read() -> bool:
        queued: dict[int, tuple[int, int]] = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, remote, queues = (line.split()[i].split(":") for i in (1, 2, 4))
            if {int(local[1], 16), int(remote[1], 16)} == set(ports):
                queued[int(local[1], 16)] = int(queues[0], 16), int(queues[1], 16)
        # The table may change while it is read
        return len(queued) == 2 and not queued[ports[0]][0] and not queued[ports[1]][1]

    wait_until(is_read, "the server has read it all")


def wait_in_queue(server: Server, *connections: http.client.HTTPConnection) -> None:
    """Until no worker has any of them."""
    waiting = {connection.sock.getsockname()[1] for connection in connections}
    wait_until(
        lambda: not any(waiting.intersection(ports_of(pid)) for pid in server.workers()),
        "the connections are in the hand-off queue",
    )


def ports_of(pid: int) -> list[int]:
    """The clients' ports of a worker's TCP connections."""
    return [each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr]


def is_listening(pid: int) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp"))


def cpu_share(server: Server, seconds: float) -> float:
    """CPU time that arbiter and workers use within `seconds`, as a share of it."""

    def used() -> float:
        times = [psutil.Process(pid).cpu_times() for pid in (server.pid, *server.workers())]
        return sum(each.user + each.system for each in times)

    before, began = used(), time.monotonic()
    time.sleep(seconds)
    return (used() - before) / (time.monotonic() - began)


# Under load


def await_replies(load: Load, count: int = 20) -> None:
    """Until each client has had `count` right replies more."""
    wanted = load.least_replies() + count
    wait_until(lambda: load.least_replies() >= wanted, f"{count} replies for each client")


def check_harmless(server: Server, tally: Tally) -> None:
    """No client has noticed anything."""
    assert not tally.failures, server.log.text
    assert not tally.idle_closes, server.log.text


def versions(tally: Tally) -> set[str]:
    return {word.split(":")[0] for word in tally.words}


def pids(tally: Tally) -> set[int]:
    return {int(word.split(":")[1]) for word in tally.words}


def test_no_client_notices_hup(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    with Load(server.port, 6) as load:
        for roll in range(1, 6):
            await_replies(load)
            start.write("version", str(roll + 1))
            server.hup(roll)
            assert server.get("/echo/x").text.startswith(f"{roll + 1}:")
        await_replies(load)
    check_harmless(server, load.tally)
    assert versions(load.tally) == set("123456")


def test_no_client_notices_that_workers_are_recycled(start: Starter) -> None:
    server = start(APP, "--workers", "4", "--max-requests", "50")
    with Load(server.port, 6) as load:
        server.wait_log("has retired", count=8)
        await_replies(load)
    check_harmless(server, load.tally)
    assert len(pids(load.tally)) > 8
    wait_until(lambda: len(server.workers()) == 4, "all are replaced")


def test_no_client_notices_an_upgrade_in_place(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    with Load(server.port, 6) as load:
        for upgrade in (1, 2):
            await_replies(load)
            start.write("version", str(upgrade + 1))
            server.signal(SIGUSR2)
            server.wait_log(rf"generation {upgrade + 1} serves")
            assert server.get("/echo/x").text.startswith(f"{upgrade + 1}:")
        await_replies(load)
    check_harmless(server, load.tally)
    assert server.log.text.count("replacing the arbiter's program") == 2
    assert versions(load.tally) == set("123")


def test_no_client_notices_more_and_fewer_workers(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    with Load(server.port, 6) as load:
        for turn in (1, 2, 3):
            await_replies(load)
            server.signal(SIGTTIN)
            server.wait_log(f"{3} workers wanted", count=turn)
            server.wait_log("is ready after", count=2 + turn)
            await_replies(load)
            server.signal(SIGTTOU)
            server.wait_log("has retired", count=turn)
        await_replies(load)
    check_harmless(server, load.tally)


# A worker retires


def test_an_idle_connection_outlives_its_worker(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    connection = keep(server)
    seen = {who(connection)}
    for roll in (1, 2, 3):
        server.hup(roll)
        seen.add(who(connection))
    assert len(seen) == 4


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["plain", "preload"])
def test_the_default_timeout_of_the_applications_sockets_is_not_that_of_ours(
    start: Starter, flags: tuple[str, ...]
) -> None:
    start.write("hasty.py", f"import socket\nsocket.setdefaulttimeout(0.05)\nfrom {APP.replace(':', ' import ')}\n")
    server = start("hasty:app", "--workers", "1", *flags)
    connection = keep(server)
    owner = who(connection)
    server.hup()
    assert who(connection) != owner
    connection.request("GET", "/big")
    for _ in range(3):  # the worker does not wait for who does not read
        assert server.get().status == 200
    assert len(read(connection).body) == 8 * 2**20


def test_a_connection_that_has_not_spoken_yet_outlives_its_worker(start: Starter) -> None:
    server = start(APP)
    (old,) = server.workers()
    connection = keep(server)
    wait_until(lambda: connection.sock.getsockname()[1] in ports_of(old), "it is accepted")
    server.hup()
    assert who(connection) != old


def test_requests_are_counted_across_workers(start: Starter) -> None:
    server = start(APP, "--workers", "2", "--max-keepalive-requests", "5")
    connection = keep(server)
    replies = [ask(connection), ask(connection)]
    server.hup()
    replies += [ask(connection), ask(connection)]
    server.hup(2)
    replies += [ask(connection)]
    assert [reply.headers.get("Connection") for reply in replies] == [None] * 4 + ["close"]


def test_a_connection_keeps_its_peer_and_its_listener(start: Starter) -> None:
    path = start.cwd / "s"
    server = start(APP, "--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--workers", "2")
    connections = [keep(server), keep(server, at=path)]
    second_port = int(server.wait_log(r"Listening on http://127.0.0.1:(\d+)", count=2)[1])
    other = server.connect(at=second_port)
    other.connect()
    other.auto_open = 0
    connections.append(other)
    before = [json.loads(ask(connection, "/tell").text) for connection in connections]
    ports = [str(connection.sock.getsockname()[1]) for connection in (connections[0], other)]
    server.hup()
    after = [json.loads(ask(connection, "/tell").text) for connection in connections]
    assert {each.pop("pid") for each in before}.isdisjoint(each.pop("pid") for each in after)
    assert after == before
    assert [after[0]["REMOTE_PORT"], after[2]["REMOTE_PORT"]] == ports
    assert [after[0]["SERVER_PORT"], after[2]["SERVER_PORT"]] == [str(server.port), str(second_port)]
    assert after[0]["REMOTE_ADDR"] == "127.0.0.1"
    assert after[1]["REMOTE_ADDR"] == ""


def test_a_half_read_head_is_finished_by_the_next_worker(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    connection = keep(server)
    old = who(connection)
    connection.sock.sendall(HEAD)
    wait_read(server, connection)
    server.hup()
    connection.sock.sendall(b"travelled\r\n\r\n")
    answer = read_raw(connection)
    assert answer["HTTP_MARK"] == "travelled"
    assert answer["pid"] in server.workers() - {old}


def read_raw(connection: http.client.HTTPConnection) -> dict[str, object]:
    """What /tell answers to a request that was sent by hand."""
    response = http.client.HTTPResponse(connection.sock, method="GET")
    response.begin()
    answer: dict[str, object] = json.loads(response.read())
    return answer


@pytest.mark.parametrize("half", [4, 40_000])
def test_a_half_read_body_is_read_by_its_own_worker_to_its_end(start: Starter, half: int) -> None:
    """And then the connection goes to the next: with the request, where that may travel."""
    server = start(APP)
    connection = keep(server)
    old = who(connection)
    connection.putrequest("POST", "/echo/body")
    connection.putheader("Content-Length", str(2 * half))
    connection.endheaders(b"x" * half)
    wait_read(server, connection)
    server.signal(SIGHUP)
    wait_until(lambda: not is_listening(old), "the old worker is retiring")
    connection.send(b"x" * half)
    name, _, body = read(connection).text.partition(" body ")
    assert body == "x" * 2 * half
    assert (name == f"1:{old}") == (half > 32768)
    server.wait_log("has retired")
    assert who(connection) != old


# Workers are busy


def test_a_connection_of_a_busy_worker_is_served_by_an_idle_one(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    owner, held, others = hold_owner(server, 7)
    (idle,) = server.workers() - {owner}
    waits = []
    for connection in others:
        began = time.monotonic()
        assert who(connection) == idle
        waits.append(time.monotonic() - began)
    assert sorted(waits)[len(waits) // 2] < 0.5
    server.release()
    assert int(read(held).text) == owner


def test_a_request_is_served_elsewhere_whole(start: Starter) -> None:
    """With its body, as far as it had come when it was handed over."""
    server = start(APP, "--workers", "2")
    owner, _, (small, large) = hold_owner(server, 2)
    (idle,) = server.workers() - {owner}
    small.putrequest("POST", "/echo/small")
    small.putheader("Content-Length", "20000")
    small.endheaders()
    wait_read(server, small)  # by the owner, which has to keep it until its body has come
    small.send(b"x" * 10_000)
    wait_read(server, small)
    small.send(b"x" * 10_000)
    assert read(small).text == f"1:{idle} small {'x' * 20_000}"
    large.request("POST", "/echo/large", body=b"x" * 200_000)
    wait_read(server, large)
    assert is_silent(large, 0.2)
    server.release()
    assert read(large).text == f"1:{owner} large {'x' * 200_000}"


def test_without_the_helper_a_connection_waits_for_its_worker(start: Starter) -> None:
    server = start(APP, "--workers", "2", "--handoff-after", "0")
    _, held, (other,) = hold_owner(server, 1)
    other.request("GET", "/")
    assert is_silent(other, 0.5)
    server.release()
    assert read(held).status == read(other).status == 200


def test_a_reply_is_sent_on_while_its_worker_is_busy(start: Starter) -> None:
    server = start(APP)
    slow, other = keep(server), keep(server)
    slow.request("GET", "/big")
    response = slow.getresponse()
    hold(server, other)
    assert len(response.read()) == 8 * 2**20
    server.release()
    assert read(other).status == 200


def test_a_body_is_received_while_its_worker_is_busy(start: Starter) -> None:
    server = start(APP)
    uploading, other = keep(server), keep(server)
    uploading.putrequest("POST", "/echo/body")
    uploading.putheader("Content-Length", "1000000")
    uploading.endheaders(b"x" * 100_000)
    wait_read(server, uploading)
    hold(server, other)
    uploading.send(b"x" * 900_000)
    wait_read(server, uploading)
    server.release()
    assert read(uploading).text.endswith(" body " + "x" * 1_000_000)


def test_deadlines_hold_while_the_worker_is_busy(start: Starter) -> None:
    server = start(APP, "--recv-timeout", "1", "--keep-alive", "1")
    half, idle = keep(server), keep(server)
    assert ask(idle).status == 200
    half.sock.sendall(HEAD)
    wait_read(server, half)
    other = keep(server)  # only now: it too must speak in time
    hold(server, other)
    assert half.sock.recv(12) == b"HTTP/1.1 408"
    assert idle.sock.recv(1) == b""
    server.release()
    assert read(other).status == 200


@pytest.mark.parametrize("count", [10, 800], ids=["a few", "more than the queue holds"])
def test_nothing_spins_while_all_are_busy(start: Starter, count: int) -> None:
    server = start(APP, "--workers", "2", *PATIENT)
    waiting = [keep(server) for _ in range(count)]
    assert all(who(connection) for connection in waiting)
    held = hold_all(server, 2)
    for number, connection in enumerate(waiting):
        connection.request("GET", f"/echo/{number}")
    assert cpu_share(server, 1) < 0.2
    server.release()
    assert [read(connection).status for connection in held] == [200, 200]
    assert [read(connection).text.split()[1] for connection in waiting] == [str(number) for number in range(count)]


# Workers are killed


def test_a_killed_worker_loses_only_its_own_connections(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    first, held, lost = hold_owner(server, 3)
    # The other is the only one that accepts now; and one it has by hand-off
    kept = [lost.pop(), *(keep(server) for _ in range(3))]
    assert first not in map(who, kept)
    os.kill(first, SIGKILL)
    assert [connection.sock.recv(1) for connection in (held, *lost)] == [b""] * 3
    assert all(who(connection) for connection in kept)


def test_a_connection_in_the_queue_survives_its_giver(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    waiting = keep(server)
    who(waiting)
    hold_all(server, 2)
    waiting.request("GET", "/")
    wait_in_queue(server, waiting)
    old = server.workers()
    for pid in old:
        os.kill(pid, SIGKILL)
    assert int(read(waiting).text) in server.workers() - old


def test_a_connection_in_the_queue_survives_its_receiver(start: Starter) -> None:
    """The idle worker that should have taken it is killed before it can."""
    server = start(APP, "--workers", "2")
    owner, _, (waiting,) = hold_owner(server, 1)
    (receiver,) = server.workers() - {owner}
    os.kill(receiver, SIGSTOP)
    waiting.request("GET", "/")
    wait_in_queue(server, waiting)
    os.kill(receiver, SIGKILL)
    assert int(read(waiting).text) not in {owner, receiver}


def test_a_stopped_receiver_delays_nobody_but_for_a_tick(start: Starter) -> None:
    """The wake-up for the queue may have been its own; the others look there now and then."""
    server = start(APP, "--workers", "3")
    owner, _, (waiting,) = hold_owner(server, 1)
    stopped, idle = server.workers() - {owner}
    os.kill(stopped, SIGSTOP)
    assert who(waiting) == idle
    os.kill(stopped, SIGCONT)


def test_kills_under_load_cost_only_the_connections_of_the_killed(start: Starter) -> None:
    """Requests of about 20 ms, so that most connections are handed over all the time."""
    server = start(APP, "--workers", "3")
    clients = 12
    with Load(server.port, clients, path="/dawdle") as load:
        await_replies(load, 3)
        open_before = Counter(kinds_of(server.pid))
        for kill in range(1, KILLS + 1):
            os.kill(random.choice(sorted(server.workers())), SIGKILL)
            server.wait_log("is ready after", count=3 + kill)
            await_replies(load, 2)
        wait_until(lambda: len(server.workers()) == 3, "all are replaced")
        wait_until(lambda: Counter(kinds_of(server.pid)) == open_before, "nothing is left open")
    tally = load.tally
    assert not tally.wrong
    assert tally.resets or tally.cut or tally.idle_closes
    assert len(tally.resets + tally.cut + tally.idle_closes) <= KILLS * clients
    assert set(served(start).values()) == {1}


def served(start: Starter) -> Counter[str]:
    """How often the application has been called for each of the requests to /dawdle."""
    return Counter((start.cwd / "served").read_text().split())


def kinds_of(pid: int) -> list[str]:
    """What its descriptors are: sockets and pipes without their numbers."""
    return [link.partition(":[")[0] for link in descriptors(pid)]


# Descriptors run out


LIMIT = "limit=160,160"
ROOM = 96  # 160 but for the 64 that are the application's
# The slowest clients keep their places, however long the test takes
UNHURRIED = """
import sys
from minicorn.cli import main
from minicorn.serving import room
room.SLOW_CLIENT = 60
sys.exit(main())
"""


def narrow(start: Starter) -> Server:
    """A server whose two workers have room for few connections."""
    command = (sys.executable, "-c", UNHURRIED, APP, *ANY_PORT, "--workers", "2", *PATIENT)
    server = start.command(*command, prelude=LIMIT)
    server.wait_ready(2)
    return server


def half_heads(server: Server, count: int) -> list[http.client.HTTPConnection]:
    """Connections that have begun a request, which the server cannot close for others' sake."""
    connections = [keep(server) for _ in range(count)]
    for connection in connections:
        connection.sock.sendall(HEAD)
    return connections


def finish_heads(connections: list[http.client.HTTPConnection]) -> None:
    """All end their requests, and are answered."""
    for number, connection in enumerate(connections):
        connection.sock.sendall(b"%d\r\nConnection: close\r\n\r\n" % number)
    marks = [read_raw(connection)["HTTP_MARK"] for connection in connections]
    assert marks == [str(number) for number in range(len(connections))]


def test_connections_beyond_the_descriptor_limit_wait_their_turn(start: Starter) -> None:
    server = narrow(start)
    connections = half_heads(server, 3 * ROOM)
    wait_until(lambda: sum(len(ports_of(pid)) for pid in server.workers()) == 2 * ROOM, "both workers are full")
    assert cpu_share(server, 1) < 0.2
    finish_heads(connections)


def test_a_full_receiver_leaves_what_it_cannot_take_in_the_queue(start: Starter) -> None:
    server = narrow(start)
    owner, _, others = hold_owner(server, 19)
    (receiver,) = server.workers() - {owner}
    blockers = half_heads(server, ROOM)
    wait_until(lambda: len(ports_of(receiver)) == ROOM, "the receiver is full")
    for connection in others:
        connection.request("GET", "/")
    wait_in_queue(server, *others)
    assert cpu_share(server, 1) < 0.2
    server.release()
    assert [int(read(connection).text) for connection in others] == [owner] * len(others)
    finish_heads(blockers)


def test_a_receiver_without_a_free_descriptor_loses_nothing(start: Starter) -> None:
    """Its application has taken those as well that we leave to it."""
    server = narrow(start)
    owner, held, others = hold_owner(server, 3)
    (receiver,) = server.workers() - {owner}
    assert int(server.get("/leak").text) == receiver
    new = keep(server)
    for connection in (new, *others):
        connection.request("GET", "/")
    wait_in_queue(server, *others)
    assert cpu_share(server, 1) < 0.2
    (start.cwd / "give-back").touch()
    assert [int(read(connection).text) for connection in (new, *others)] == [receiver] * 4
    server.release()
    assert int(read(held).text) == owner


# Applications that fork


@pytest.mark.parametrize("how", ["fork", "run", "run-prepared", "multiprocess"])
def test_a_fork_in_a_request_harms_nobody(start: Starter, how: str) -> None:
    """Each takes 20 ms and more, so that the helper is at work."""
    server = start(APP, "--workers", "2")
    with Load(server.port, 4, path=f"/{how}") as forking, Load(server.port, 4) as others:
        await_replies(forking, 6)
        await_replies(others, 10)
    check_harmless(server, forking.tally)
    check_harmless(server, others.tally)


@pytest.mark.parametrize("log", [(), ("--access-logfile", "access.log", "--access-logformat", "json")])
def test_a_forked_child_that_comes_back_from_the_application_is_ended_there(
    start: Starter, log: tuple[str, ...]
) -> None:
    server = start(APP, *log)
    (worker,) = server.workers()
    connection = keep(server)
    came_back = "^ERROR: +a process that the application has forked came back to the server: it is ended"
    assert ask(connection, "/fork-and-return").status == 200
    server.wait_log(f"{came_back}$")
    assert ask(connection, "/fork-and-raise").status == 200
    server.wait_log(f"{came_back}, having raised\n(.+\n)+ValueError: in the child$")
    assert ask(connection, "/fork-and-exit").status == 200
    assert who(connection) == worker
    assert server.log.text.count("ERROR") == 2
    if log:  # a line may be written after its reply has come
        path = start.cwd / "access.log"
        wait_until(lambda: path.read_text().count("\n") >= 4, "all are logged")
        assert path.read_text().count("\n") == 4


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_child_forked_at_the_import_does_not_speak_for_its_parent(start: Starter, flags: tuple[str, ...]) -> None:
    start.write("forking.py", "import os\nif not os.fork(): raise ValueError('in the child')\nfrom plain import app\n")
    server = start("forking:app", *flags)
    server.hup()
    server.wait_log("came back to the server: it is ended, having raised", count=2)
    assert "could not load" not in server.log.text


def test_connections_of_a_busy_worker_are_served_elsewhere_after_a_fork(start: Starter) -> None:
    server = start(APP, "--workers", "2")
    owner, held, others = hold_owner(server, 2, "/fork-and-hold")
    assert owner not in map(who, others)
    server.release()
    assert int(read(held).text) == owner


def test_a_forked_child_keeps_no_connection_open(start: Starter) -> None:
    """Neither the one whose request has forked it, nor one that was idle then."""
    server = start(APP)
    idle, parent = keep(server), keep(server)
    assert who(idle)
    for connection, path in ((parent, "/leave-child"), (idle, "/")):
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        assert response.read()
        assert response.fp is None or not response.fp.read()
    assert len(server.family()) == 3


def test_a_forked_child_that_outlives_its_worker_keeps_no_connection_open(start: Starter) -> None:
    """Not even one that has left its process group, and so is not killed with the worker."""
    server = start(APP)
    idle, parent = keep(server), keep(server)
    assert who(idle) == int(ask(parent, "/leave-daemon").text)
    os.kill(who(idle), SIGKILL)
    assert [connection.sock.recv(1) for connection in (idle, parent)] == [b"", b""]
    assert not (start.cwd / "daemon-ended").exists()


# Heartbeats under load


WRITER = """
import mmap, sys
from minicorn.figures.heartbeat import SIZE, Page
with open(sys.argv[1], "r+b") as file:
    page = Page(mmap.mmap(file.fileno(), SIZE))
page.reset(deadline=160.0, now=100.0)
print(flush=True)
while True:
    page.begin("GET", "/", "127.0.0.1", now=100.0, deadline=160.0)
"""


def test_a_promise_is_never_seen_half_written(tmp_path: Path) -> None:
    """The arbiter kills a worker whose deadline it reads as 0."""
    path = tmp_path / "page"
    path.write_bytes(bytes(SIZE))
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment()
    ) as writer:
        assert writer.stdout.readline()
        with path.open("r+b") as file:
            page = Page(mmap.mmap(file.fileno(), SIZE))
        seen = {page.deadline for _ in range(1_000_000)}
        writer.kill()
    assert seen == {160.0}


# One thread at a time


def test_each_request_is_served_once(start: Starter) -> None:
    """Threads change as often as they can, and the helper is at work when the application returns."""
    start.write("switch-often", "")
    server = start(APP, "--workers", "2", "--handoff-after", "1")
    with Load(server.port, 32, path="/hurry") as load:
        await_replies(load, 20)
        server.hup()
        await_replies(load, 20)
    check_harmless(server, load.tally)
    counts = served(start)
    assert len(counts) == load.tally.requests
    assert set(counts.values()) == {1}
    assert "Traceback" not in server.log.text
    assert len(pids(load.tally)) == 4


def test_pipelined_requests_are_served_once_and_in_order(start: Starter) -> None:
    server = start(APP, "--workers", "3")
    connections = [keep(server) for _ in range(12)]
    for turn in range(5):
        for number, connection in enumerate(connections):
            targets = [f"/dawdle/{number}-{turn}-{serial}" for serial in range(5)]
            connection.sock.sendall("".join(f"GET {each} HTTP/1.1\r\nHost: x\r\n\r\n" for each in targets).encode())
        for number, connection in enumerate(connections):
            got = [reply.split()[1] for reply in read_pipelined(connection, 5)]
            assert got == [f"{number}-{turn}-{serial}" for serial in range(5)]
    counts = served(start)
    assert len(counts) == 12 * 5 * 5
    assert set(counts.values()) == {1}


def read_pipelined(connection: http.client.HTTPConnection, count: int) -> list[str]:
    """The bodies of `count` replies that come one after the other."""
    bodies = []
    with connection.sock.makefile("rb") as file:
        for _ in range(count):
            assert file.readline().startswith(b"HTTP/1.1 200")
            fields = http.client.parse_headers(file)
            bodies.append(file.read(int(fields["Content-Length"])).decode())
    return bodies


def test_a_long_patience_holds_up_neither_a_fork_nor_the_end(start: Starter) -> None:
    server = start("plain:app", "--handoff-after", "60000")
    assert json.loads(server.get("/child").text)["descriptors"] == [0, 1, 2]
    assert server.get("/").status == 200
    assert server.stop() == 0
