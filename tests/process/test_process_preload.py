"""`--preload`: one import in a template, workers forked from it; and what happens to either."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2

import pytest
from harness import Server, Starter, descriptors, is_alive, read, wait_until
from load import Load

# A server's word, and what tells workers apart
STATE = """
import json, os, random, ssl, uuid
from plain import ROUTES, app
random.random(), ssl.RAND_bytes(8), uuid.uuid1(), uuid.uuid4()
FORKS = []
os.register_at_fork(after_in_child=lambda: FORKS.append(os.getpid()))

def tell(environ):
    return json.dumps({
        "pid": os.getpid(), "random": random.random(), "ssl": ssl.RAND_bytes(8).hex(),
        "uuid1": [uuid.uuid1().clock_seq for _ in range(4)], "uuid4": str(uuid.uuid4()), "forked": FORKS[-1:],
    })

ROUTES["/state"] = tell
"""
WORD = """
import os

def app(environ, start_response):
    body = f"{WORD} {environ['PATH_INFO'].rpartition('/')[2]} ".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def templates(server: Server) -> list[int]:
    """The pids of all templates that have come up, the newest last."""
    return [int(pid) for pid in re.findall(r"template (\d+) \(gen \d+\) is up", server.log.text)]


def template(server: Server) -> int:
    return templates(server)[-1]


def workers(server: Server) -> set[int]:
    """The pids of the living children that are no templates."""
    return server.workers() - set(templates(server))


def preloaded(start: Starter, app: str = "plain:app", count: int = 2, *flags: str) -> Server:
    server = start(app, "--workers", str(count), "--preload", *flags)
    # The process between template and worker may not have ended yet: then the worker is not the arbiter's
    wait_until(lambda: len(server.workers()) == count + 1, "the arbiter has adopted its workers")
    return server


def check_that_they_differ(server: Server, count: int) -> None:
    """Each of so many workers of state_app.py has chances of its own, and has run the hooks of a fork."""
    told: dict[int, dict[str, object]] = {}

    def all_told() -> bool:
        connections = [server.send("/state") for _ in range(2 * count)]
        for connection in connections:
            state = json.loads(connection.getresponse().read())
            told.setdefault(state["pid"], state)
        return len(told) == count

    wait_until(all_told, f"each of {count} workers has answered")
    for name in ("random", "ssl", "uuid1", "uuid4"):
        assert len({str(state[name]) for state in told.values()}) == count, name
    assert all(state["forked"] == [pid] for pid, state in told.items())


# What it is for


def test_the_application_is_imported_once_and_served_by_all(start: Starter) -> None:
    server = preloaded(start, "plain:app", 3)
    assert [path.name for path in start.cwd.glob("boot-*")] == [f"boot-{template(server)}"]
    assert len(workers(server)) == 3
    assert int(server.get().text) in workers(server)


def test_the_template_holds_neither_port_nor_queue(start: Starter) -> None:
    server = preloaded(start)

    def sockets() -> int:
        return sum(link.startswith("socket:") for link in descriptors(template(server)))

    wait_until(lambda: sockets() == 1, "its channel alone is left, the last order is carried out")


def test_what_the_import_starts_has_its_signals(start: Starter) -> None:
    """What a terminal sends means nothing to a template, but must not be ignored by others for that."""
    start.write(
        "starts.py",
        "import plain\nTOLD = plain.tell_child({})\nplain.ROUTES['/told'] = lambda _: TOLD\napp = plain.app",
    )
    told = json.loads(start("starts:app", "--preload").get("/told").text)
    assert (told["blocked"], told["ignored"]) == ("0" * 16, "0" * 16)


def test_workers_differ_in_what_must_not_be_shared(start: Starter) -> None:
    start.write("state_app.py", STATE)
    check_that_they_differ(preloaded(start, "state_app:app", 3), 3)


def test_exit_functions_run_in_workers_and_not_in_the_template(start: Starter) -> None:
    server = preloaded(start)
    all_of_them = workers(server)
    assert server.stop() == 0
    assert {int(path.name.split("-")[1]) for path in start.cwd.glob("exit-*")} == all_of_them


STARTS_A_PROCESS = """
import multiprocessing, threading
from plain import ROUTES, app

def count(value):
    while not threading.Event().wait(0.01):
        value.value += 1

COUNT = multiprocessing.Value("q")
PROCESS = multiprocessing.Process(target=count, args=(COUNT,), daemon=True)
PROCESS.start()
ROUTES["/counts"] = lambda environ: str(COUNT.value)
ROUTES["/process"] = lambda environ: str(PROCESS.pid)
"""


def test_a_process_that_the_import_has_started_ends_with_the_template_and_not_with_a_worker(start: Starter) -> None:
    start.write("site_app.py", STARTS_A_PROCESS)
    server = preloaded(start, "site_app:app")
    first = int(server.get("/process").text)
    server.signal(signal.SIGTTOU)
    server.wait_log(r"worker \d+ .* has retired")
    for _ in range(2):
        before = int(server.get("/counts").text)
        wait_until(lambda before=before: int(server.get("/counts").text) > before, "it goes on")
    server.hup()
    server.wait_log(r"template \d+ \(gen 1\) has ended")
    wait_until(lambda: not is_alive(first), "the old one ends with its template")
    second, stopped = int(server.get("/process").text), server.hold()
    server.signal(signal.SIGTERM)
    server.wait_log("stopping gracefully")
    assert is_alive(second)  # a worker may use it
    server.release()
    assert read(stopped).status == 200
    assert server.wait() == 0
    assert not is_alive(second)


LIES = """
from minicorn.system.channel import Channel
from plain import app

def lie(self, word, value="", descriptors=(), send=Channel.send):
    return send(self, word, {pid} if word == "born" else value, descriptors)

Channel.send = lie
"""


def test_what_a_template_says_gets_no_stranger_signalled(start: Starter) -> None:
    """Who was born, the kernel says."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            start.write("site_app.py", LIES.format(pid=stranger.pid))
            server = start("site_app:app", "--preload")
            assert server.stop(signal.SIGQUIT) == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_warm_up_requests_are_made_once_in_the_template(start: Starter) -> None:
    server = preloaded(start, "plain:app", 3, "--warmup", "/")
    begun = {int(path.name.split("-")[1]) for path in start.cwd.glob("begun-*")}
    assert begun == {template(server)}


def test_orphans_of_the_application_are_reaped_quietly(start: Starter) -> None:
    server = preloaded(start, "plain:app", 2, "--log-level", "debug")
    assert server.get("/leave-orphan").text == "left"
    orphan = start.cwd / "orphan"
    wait_until(lambda: orphan.exists() and orphan.read_text(), "it says its pid")
    server.release()
    server.wait_log(rf"DEBUG:    reaped process {orphan.read_text()}, none of ours")
    assert server.get().status == 200


def test_workers_forked_after_a_rotation_write_to_the_new_log(start: Starter) -> None:
    server = preloaded(start, "plain:app", 1, "--access-logfile", "access.log")
    log = start.cwd / "access.log"
    log.rename(start.cwd / "access.old")
    server.signal(SIGUSR1)
    wait_until(log.exists, "the file is made again")
    (first,) = workers(server)
    os.kill(first, SIGKILL)
    server.wait_ready(2)
    server.get("/version")
    wait_until(lambda: "/version" in log.read_text(), "the request is logged in the new file")


# Replacing


def test_hup_imports_new_code_and_ends_the_old_template(start: Starter) -> None:
    start.write("word.py", "WORD = 'old'" + WORD)
    server = preloaded(start, "word:app")
    first = template(server)
    assert server.get().text.startswith("old")
    start.write("word.py", "WORD = 'new'" + WORD)
    server.hup()
    assert server.get().text.startswith("new")
    server.wait_log(rf"template {first} \(gen 1\) has ended")
    wait_until(lambda: len(server.workers()) == 3, "two workers and a template are left")


def test_new_code_that_fails_leaves_template_and_workers_as_they_are(start: Starter) -> None:
    start.write("word.py", "WORD = 'old'" + WORD)
    server = preloaded(start, "word:app")
    before = server.workers()
    start.write("word.py", "raise RuntimeError('as the test wants')")
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off: its template failed to boot; generation 1 serves on")
    assert "RuntimeError: as the test wants" in server.log.text
    wait_until(lambda: server.workers() == before, "those from before are left")
    os.kill(min(workers(server)), SIGKILL)
    server.wait_ready(3)
    assert server.get().text.startswith("old")


def test_a_first_import_that_fails_ends_the_server(start: Starter) -> None:
    start.write("broken.py", "raise RuntimeError('as the test wants')")
    server = start("broken:app", "--preload", ready=0)
    assert server.wait() == 3
    assert "RuntimeError: as the test wants" in server.log.finish()


def test_an_import_that_hangs_shows_its_stack_and_is_killed(start: Starter) -> None:
    start.write("hang.py", "import time\ntime.sleep(60)\n")
    server = start("hang:app", "--preload", "--boot-timeout", "1", ready=0)
    assert server.wait() == 3
    assert re.search(r"template \d+ \(gen 1\) was late .*\n(.*\n)*.*hang.py", server.log.finish())


def test_an_upgrade_takes_template_and_workers_over_and_rolls(start: Starter) -> None:
    start.write("word.py", "WORD = 'old'" + WORD)
    server = preloaded(start, "word:app")
    first = template(server)
    start.write("word.py", "WORD = 'new'" + WORD)
    server.signal(SIGUSR2)
    server.wait_log(r"generation 2 serves: .* replaced")
    server.wait_log(rf"template {first} \(gen 1\) has ended")
    assert server.get().text.startswith("new")
    wait_until(lambda: len(workers(server)) == 2, "the arbiter has adopted its workers")
    os.kill(min(workers(server)), SIGKILL)
    server.wait_ready(5)
    assert server.get().text.startswith("new")


# Deaths


def test_a_template_that_is_killed_is_replaced_without_touching_workers(start: Starter) -> None:
    server = preloaded(start)
    first, before = template(server), workers(server)
    os.kill(first, SIGKILL)
    server.wait_log(r"template \d+ \(gen 1\) is up", count=2)
    assert workers(server) == before
    assert template(server) != first


def test_a_worker_that_is_killed_is_replaced_without_an_import(start: Starter) -> None:
    server = preloaded(start)
    os.kill(min(workers(server)), SIGKILL)
    server.wait_ready(3)
    assert len(list(start.cwd.glob("boot-*"))) == 1
    assert server.get().status == 200


def test_killing_templates_and_workers_again_and_again_ends_well(start: Starter) -> None:
    server = preloaded(start, "plain:app", 3)
    for number in range(12):
        for pid in (*(workers(server) if number % 3 else ()), *([template(server)] if number % 2 else ())):
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass  # a template from before
        time.sleep(0.02 * (number % 4))
    wait_until(lambda: len(workers(server)) == 3 and template(server) in server.workers(), "it converges", 30)
    wait_until(lambda: server.get().status == 200, "it answers")
    wait_until(lambda: server.family() == {server.pid, template(server), *workers(server)}, "nobody else is left")


def test_term_to_all_processes_is_an_ordinary_end(start: Starter) -> None:
    """As systemd sends it where a unit does not say KillMode=mixed, and Heroku in any order."""
    server = preloaded(start)
    for pid in (template(server), *workers(server)):
        os.kill(pid, SIGTERM)
    server.wait_log("has retired")  # before the arbiter hears of it
    assert server.stop() == 0
    assert "ERROR" not in server.log.finish()


def test_a_stopped_template_does_not_hold_up_the_end(start: Starter) -> None:
    server = preloaded(start)
    os.kill(template(server), SIGSTOP)
    os.kill(min(workers(server)), SIGKILL)
    server.wait_log("which we did not send")
    assert server.stop() == 0


def test_a_template_ends_with_a_killed_arbiter(start: Starter) -> None:
    server = preloaded(start)
    server.kill_arbiter()
    wait_until(lambda: not server.family(), "template and workers have ended")


def test_a_stop_during_the_import_is_not_held_up(start: Starter) -> None:
    start.write("slow.py", "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    server = start("slow:app", "--preload", ready=0)
    wait_until(lambda: (Path(start.cwd) / "importing").exists(), "the import has begun")
    assert server.stop() in (0, 3)


# What does not survive a fork

UNSAFE = """
import atexit, logging, socket, sqlite3, threading
from plain import app
asleep = threading.Event()
threading.Thread(target=asleep.wait, name="poller", daemon=True).start()
server = socket.create_server(("127.0.0.1", 0))
DATA = open("data.txt")
LOG = open("own.log", "a")
base = sqlite3.connect("own.db")
base.execute("create table if not exists t (a)")
base.commit()
"""


def test_what_a_fork_breaks_or_shares_is_told_with_where_it_comes_from(start: Starter) -> None:
    start.write("unsafe.py", UNSAFE)
    start.write("data.txt", "data")
    server = preloaded(start, "unsafe:app")
    warnings = [line for line in server.log.text.splitlines() if line.startswith("WARNING:")]
    thread, sock, data, base = warnings
    assert "thread 'poller' (unsafe.py:5) runs in the template: it does not live on in workers" in thread
    assert re.search(r"a socket on 127\.0\.0\.1:\d+ \(unsafe\.py:6\) is open in the template", sock)
    assert re.search(r"file /.*/data\.txt \(held by unsafe\.DATA\) is open in the template, and shared", data)
    assert re.search(r"database /.*/own\.db is open in the template", base)
    assert server.get().status == 200


PATCHES = """
import _socket, socket, threading
import plain
from plain import ROUTES, app

class Cooperative(_socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None, note=""):
        super().__init__(family, type, proto, fileno)
        self.note = note

    def recvmsg(self, *args):
        raise RuntimeError("it would have waited for others")

    recv = recvmsg

socket.socket = Cooperative
start = threading.Thread.start
threading.Thread.start = wrapped = lambda thread: start(thread)

def tell(environ):
    socket.socket(note="ours").close()
    return str(threading.Thread.start is wrapped)

ROUTES["/patched"] = tell
"""


def test_what_the_import_puts_in_place_of_the_standard_librarys_stays_and_is_not_used_by_us(start: Starter) -> None:
    """As gevent does with sockets, and Sentry with threads."""
    start.write("patching.py", PATCHES)
    server = preloaded(start, "patching:app", 1)
    assert server.get("/patched").text == "True"
    server.hup()
    assert server.get("/patched").text == "True"


def test_strict_refuses_it(start: Starter) -> None:
    start.write("unsafe.py", UNSAFE)
    start.write("data.txt", "data")
    server = start("unsafe:app", "--preload", "--preload-strict", ready=0)
    assert server.wait() == 3
    assert "--preload-strict: 4 found" in server.log.finish()


# A thread that was joined is the system's for a moment longer
SAFE = """
import threading
from plain import app
for _ in range(50):
    thread = threading.Thread(target=sum, args=[()])
    thread.start()
    thread.join()
"""


def test_an_application_that_is_safe_passes_strict(start: Starter) -> None:
    start.write("safe.py", SAFE)
    server = preloaded(start, "safe:app", 2, "--preload-strict", "--warmup", "/")
    assert "WARNING" not in server.log.text
    assert server.get().status == 200


# Under load


@pytest.mark.slow
def test_no_request_fails_in_fifty_rolls(start: Starter) -> None:
    start.write("word.py", "WORD = '1'" + WORD)
    server = preloaded(start, "word:app", 3)
    with Load(server.port, 8, pause=0.002) as load:
        for number in range(2, 52):
            start.write("word.py", f"WORD = '{number}'" + WORD)
            server.signal(signal.SIGHUP)
            server.wait_log(rf"generation {number} serves: ")
            assert server.get().text.split()[0] == str(number)
    assert not load.tally.failures and not load.tally.idle_closes
    assert load.tally.words <= {str(number) for number in range(1, 52)}
