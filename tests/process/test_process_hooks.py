"""gunicorn's hooks: each runs, where it should, with what real ones use; and none harms the server."""

import os
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGSTOP, SIGTTIN, SIGUSR2

import pytest
from harness import Server, Starter, wait_until

ALL = """
import os

def note(name, *more):
    with open("notes", "a") as file:
        print(name, os.getpid(), *more, file=file)

def on_starting(server):
    server.seen = 1
    note("on_starting", server.pid, server.address[0], server.cfg.workers, server.proc_name)
def when_ready(server):
    server.log.info("hook: ready")
    note("when_ready", server.seen)
def pre_fork(server, worker): note("pre_fork", worker.age)
def post_fork(server, worker):
    worker.log.info("hook: worker spawned (pid: %s)", worker.pid)
    note("post_fork", worker.pid, server.pid)
def post_worker_init(worker): note("post_worker_init", worker.pid)
def pre_request(worker, req):
    req.mark = dict(req.headers)["HOST"]
    note("pre_request", req.method, req.path, req.query)
def post_request(worker, req, environ, resp): note("post_request", req.mark, resp.status, environ["PATH_INFO"])
def worker_int(worker): note("worker_int", worker.pid)
def worker_abort(worker): note("worker_abort", worker.pid)
def worker_exit(server, worker): note("worker_exit", worker.pid)
def child_exit(server, worker): note("child_exit", worker.pid, worker.age)
def nworkers_changed(server, new_value, old_value): note("nworkers_changed", new_value, old_value)
def on_reload(server): note("on_reload")
def pre_exec(server): note("pre_exec")
def on_exit(server): note("on_exit")
"""


def notes(cwd: Path, name: str) -> list[list[str]]:
    """What the hook `name` has noted: the pid that ran it, and more."""
    path = cwd / "notes"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [rest for first, *rest in lines if first == name]


def ready(server: Server, count: int) -> list[int]:
    """The pids of the first so many workers."""
    return [int(server.wait_log(r"worker (\d+) \(slot.*is ready after", count=nth + 1)[1]) for nth in range(count)]


def test_a_new_file_makes_a_new_hooks_process_at_once(start: Starter) -> None:
    """The end of the old one is no death: nobody is warned, and the next does not have to wait."""
    start.write("minicorn.conf.py", ALL)
    server = start("plain:app")
    for roll in (1, 2, 3):
        server.hup(roll)
    ran = [pid for pid, *_ in notes(start.cwd, "on_reload")]
    assert len(set(ran)) == 3
    assert "hooks process" not in server.log.text
    start.write("minicorn.conf.py", "")
    server.hup(4)
    wait_until(lambda: len(server.workers()) == 1, "without hooks there is none")


def test_every_hook_runs_where_it_should(start: Starter) -> None:
    start.write("minicorn.conf.py", ALL)
    server = start("plain:app")
    cwd = start.cwd
    worker = notes(cwd, "post_fork")[0][0]
    for name in ("pre_fork", "post_fork", "post_worker_init"):
        assert notes(cwd, name)[0][0] == worker
    wait_until(lambda: notes(cwd, "when_ready"), "when_ready runs")
    ((child, arbiter, address, workers, title),) = notes(cwd, "on_starting")
    assert (int(arbiter), address, workers, title) == (server.pid, f"http://127.0.0.1:{server.port}", "1", "plain:app")
    assert child not in (arbiter, worker)
    assert notes(cwd, "when_ready") == [[child, "1"]]
    assert server.get("/?a=1").status == 200
    assert notes(cwd, "pre_request") == [[worker, "GET", "/", "a=1"]]
    wait_until(lambda: notes(cwd, "post_request"), "post_request runs")
    assert notes(cwd, "post_request") == [[worker, f"127.0.0.1:{server.port}", "200", "OK", "/"]]
    server.signal(SIGTTIN)
    wait_until(lambda: notes(cwd, "nworkers_changed"), "nworkers_changed runs")
    assert notes(cwd, "nworkers_changed") == [[child, "2", "1"]]
    server.wait_ready(2)
    os.kill(int(worker), SIGKILL)
    wait_until(lambda: notes(cwd, "child_exit"), "child_exit runs")
    assert notes(cwd, "child_exit") == [[child, worker, "1"]]
    server.hup()
    assert len(notes(cwd, "on_reload")) == 1
    assert server.stop() == 0
    assert len(notes(cwd, "worker_exit")) >= 2
    assert len(notes(cwd, "on_exit")) == 1


def test_a_late_worker_runs_worker_abort(start: Starter) -> None:
    start.write("minicorn.conf.py", ALL)
    server = start("plain:app", "--timeout", "0.5")
    server.hold()
    wait_until(lambda: notes(start.cwd, "worker_abort"), "worker_abort runs")
    server.release()


def test_an_upgrade_asks_pre_exec(start: Starter) -> None:
    start.write("minicorn.conf.py", ALL)
    server = start("plain:app")
    server.signal(SIGUSR2)
    server.wait_log("goes on as")
    assert len(notes(start.cwd, "pre_exec")) == 1
    server.wait_log(r"generation \d+ serves")


def test_after_an_upgrade_whose_roll_is_off_the_old_workers_are_replaced_by_their_like(start: Starter) -> None:
    start.write("minicorn.conf.py", ALL + "workers = 1\n")
    server = start("plain:app")
    start.write("minicorn.conf.py", ALL + "workers = 2\ndef post_worker_init(worker): 1 / 0\n")
    server.signal(SIGUSR2)
    server.wait_log("roll to generation 2 is off.*; generation 1 serves on")
    os.kill(ready(server, 1)[0], SIGKILL)
    server.wait_log(r"\(slot 1, gen 1\) is ready after", count=2)
    assert server.get("/").status == 200
    start.write("minicorn.conf.py", ALL + "workers = 2\n")
    server.signal(SIGUSR2)
    server.wait_log("generation 3 serves: 2 workers replaced")


# What raises stops what it guards


def test_on_starting_that_raises_stops_the_start(start: Starter) -> None:
    start.write("minicorn.conf.py", "def on_starting(server): 1 / 0")
    server = start("plain:app", ready=0)
    assert server.wait() == 1
    assert "hook on_starting raised" in server.log.finish()


def test_on_reload_that_raises_stops_the_roll(start: Starter) -> None:
    start.write("minicorn.conf.py", "def on_reload(server): exit(3)")
    server = start("plain:app")
    before = server.workers()
    server.signal(SIGHUP)
    server.wait_log("reload is off, all serve on as before: on_reload has failed")
    assert server.get("/").status == 200
    assert before & server.workers()


@pytest.mark.parametrize("place", ["minicorn.conf.py", "python:deployment", "python:deployment HUP"])
def test_who_is_replaced_runs_the_hooks_that_its_generation_began_with(start: Starter, place: str) -> None:
    """Whatever the file says by now: broken, or broken by an edit that HUP has refused."""
    place, _, hup = place.partition(" ")
    file = place.replace("python:deployment", "deployment.py")
    start.write(file, ALL)
    server = start("plain:app", "-c", place, "--workers", "2")
    first = set(ready(server, 2))
    start.write(file, f"{ALL}\nworkers = = 2")
    if hup:
        server.signal(SIGHUP)
        server.wait_log("reload is off")
    for pid in first:
        os.kill(pid, SIGKILL)
    wait_until(lambda: len(notes(start.cwd, "child_exit")) == 2, "child_exit runs")
    second = set(ready(server, 4)) - first
    assert {int(pid) for pid, *_ in notes(start.cwd, "post_fork")} == first | second
    assert server.get("/").status == 200
    wait_until(lambda: notes(start.cwd, "post_request"), "post_request runs")
    start.write(file, ALL.replace('note("post_fork"', 'note("later"'))
    server.hup()
    assert len(notes(start.cwd, "later")) == 2


def test_the_arbiters_hooks_are_those_of_what_serves(start: Starter) -> None:
    """A roll that is off leaves none of its own behind."""
    start.write("minicorn.conf.py", ALL)
    server = start("plain:app")
    new = ALL.replace('note("child_exit"', 'note("later"') + "def post_worker_init(worker): 1 / 0\n"
    start.write("minicorn.conf.py", new)
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off")
    (victim,) = ready(server, 1)
    os.kill(victim, SIGKILL)
    server.wait_log(r"\(slot 1, gen 1\) is ready after", count=2)
    wait_until(lambda: [str(victim), "1"] in [more for _, *more in notes(start.cwd, "child_exit")], "child_exit runs")


@pytest.mark.parametrize("name", ["pre_fork", "post_fork"])
def test_a_fork_hook_that_raises_is_a_boot_that_failed(start: Starter, name: str) -> None:
    start.write("minicorn.conf.py", f"def {name}(server, worker): 1 / 0")
    server = start("plain:app", ready=0)
    assert server.wait() == 3
    assert f"hook {name} raised" in server.log.finish()


def test_pre_request_that_raises_is_a_500_and_the_next_is_asked_again(start: Starter) -> None:
    start.write("minicorn.conf.py", "def pre_request(worker, req):\n    assert req.path != '/environ'")
    server = start("plain:app")
    assert server.get("/environ").status == 500
    server.wait_log("hook pre_request raised")
    assert server.get("/").status == 200
    assert "/minicorn/serving/" not in server.log.text  # in the traceback is what is the user's


def test_a_hook_is_told_the_path_as_it_came(start: Starter) -> None:
    start.write(
        "minicorn.conf.py", "def pre_request(worker, req):\n    worker.log.info('%s %s', req.path, req.peer_addr[0])"
    )
    server = start("plain:app")
    server.get("/%41%2f?b%20c")
    server.wait_log(r"^INFO: +/%41%2f 127\.0\.0\.1$")


def test_post_request_is_told_of_the_request_as_it_came_whatever_the_application_made_of_it(start: Starter) -> None:
    start.write(
        "minicorn.conf.py",
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('told of %s %s %d', req.path, environ, worker.nr)\n    worker.nr = None",
    )
    start.write(
        "clears.py",
        "def app(environ, start_response):\n"
        "    environ.clear()\n    start_response('204 No Content', [])\n    return []\n",
    )
    server = start("clears:app")
    assert [server.get(path).status for path in ("/one", "/two")] == [204, 204]
    server.wait_log(r"told of /one \{\} 1\n(.*\n)*.*told of /two \{\} 2")


def test_a_hook_that_hangs_is_killed_and_the_server_goes_on(start: Starter) -> None:
    start.write("minicorn.conf.py", "import time\ndef child_exit(server, worker): time.sleep(99)")
    server = start("plain:app", "--workers", "2", "--config-timeout", "1")
    os.kill(int(server.wait_log(r"worker (\d+) \(slot")[1]), SIGKILL)
    server.wait_log("hook child_exit takes longer than 1 s: it is killed")
    assert server.get("/").status == 200


def test_a_hooks_process_that_does_not_end_for_the_next_is_killed(start: Starter) -> None:
    start.write(
        "minicorn.conf.py",
        "import os\ndef when_ready(server): open('pid', 'w').write(f'{os.getpid()}\\n')\ndef on_reload(server): pass\n",
    )
    server = start("plain:app", "--config-timeout", "1")
    path = start.cwd / "pid"
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "the hooks process runs")
    os.kill(int(path.read_text()), SIGSTOP)
    server.hup()
    server.wait_log("a hooks process whose file is old takes longer than 1 s: it is killed")


def test_a_hooks_process_that_dies_loses_the_call_in_hand_and_no_other(start: Starter) -> None:
    """What was not run is said."""
    start.write(
        "minicorn.conf.py",
        "import os, signal\n"
        "def child_exit(server, worker):\n"
        "    if not os.path.exists('mended'):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    with open('told', 'a') as file:\n        print(worker.pid, file=file)\n",
    )
    server = start("plain:app", "--workers", "3")
    first, *others = ready(server, 3)
    os.kill(first, SIGKILL)
    server.wait_log(r"the hooks process has died; not run: child_exit \(1\)")
    (start.cwd / "mended").touch()
    for pid in others:
        os.kill(pid, SIGKILL)
    told = start.cwd / "told"
    wait_until(lambda: told.exists() and len(told.read_text().split()) == 2, "child_exit runs for both")
    assert sorted(map(int, told.read_text().split())) == sorted(others)


def test_what_waits_behind_a_hook_that_hangs_is_run_by_the_next_process(start: Starter) -> None:
    start.write(
        "minicorn.conf.py",
        "import os, time\n"
        "def child_exit(server, worker):\n"
        "    if os.path.exists('begun'):\n        open('run', 'w').close()\n"
        "    else:\n        open('begun', 'w').close()\n        time.sleep(99)\n",
    )
    server = start("plain:app", "--workers", "2", "--config-timeout", "1")
    for pid in ready(server, 2):
        os.kill(pid, SIGKILL)
    server.wait_log("hook child_exit takes longer than 1 s: it is killed")
    wait_until((start.cwd / "run").exists, "the other call is run")


# Vendors' recipes


def test_prometheus_forgets_the_gauges_of_the_dead(start: Starter) -> None:
    """prometheus_client's multiprocess recipe, as its documentation has it."""
    metrics = start.cwd / "metrics"
    metrics.mkdir()
    start.write(
        "gunicorn.conf.py",
        "from prometheus_client import multiprocess\n\n"
        "def child_exit(server, worker):\n    multiprocess.mark_process_dead(worker.pid)\n",
    )
    start.write(
        "counted.py",
        "from prometheus_client import Gauge\n"
        "gauge = Gauge('busy', 'busy', multiprocess_mode='livesum')\n"
        "def app(environ, start_response):\n"
        "    gauge.inc()\n    start_response('200 OK', [])\n    return [b'ok']\n",
    )
    server = start("counted:app", env={"PROMETHEUS_MULTIPROC_DIR": str(metrics)})
    assert server.get("/").status == 200
    (worker,) = {int(path.stem.rpartition("_")[2]) for path in metrics.glob("gauge_livesum_*.db")}
    os.kill(worker, SIGKILL)
    wait_until(lambda: not (metrics / f"gauge_livesum_{worker}.db").exists(), "its gauge is forgotten")


def test_hooks_are_told_how_many_workers_auto_makes(start: Starter) -> None:
    start.write(
        "minicorn.conf.py",
        "def when_ready(server): server.log.info('arbiter: %d', server.num_workers)\n"
        "def worker_exit(server, worker): server.log.info('worker: %d', server.num_workers)\n",
    )
    server = start("plain:app", "-w", "auto")
    count = server.wait_log(r"with (\d+) workers? for")[1]
    server.wait_log(f"arbiter: {count}\n")
    server.stop()
    server.wait_log(f"worker: {count}\n")
