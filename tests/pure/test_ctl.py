"""`minicornctl` in this process, and in a child what it sees of an arbiter: the directory, the signals, the ledger."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicorn import ctl
from minicorn.figures import survey
from minicorn.figures.directory import Directory
from minicorn.figures.heartbeat import Page
from minicorn.pool.life import State
from minicorn.pool.rolls import Ending, Rolled
from minicorn.pool.standing import Stage, Standing
from minicorn.record import replace
from minicorn.system import spawn
from minicorn.version import VERSION

SIGNALS = {signal.SIGHUP, signal.SIGTERM, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2}
Obey = Callable[[str, Standing], Iterator[Standing]]
Said = tuple[int, str, str]


def heard(name: str, standing: Standing, **changes: object) -> Standing:
    """`standing` as a signal is obeyed."""
    obeyed = standing.obeyed | {name: standing.obeyed.get(name, 0) + 1}
    return replace(standing, obeyed=obeyed, **changes)


def by_number(name: str, standing: Standing) -> Iterator[Standing]:
    """What SIGTTIN and SIGTTOU do to the number of workers."""
    yield heard(name, standing, size=standing.size + (1 if name == "SIGTTIN" else -1))


class Arbiter:
    """A child that tells where it stands. What a signal leads to, by `obey`, it tells one by one, each time that who
    waits for it would sleep; where a signal leads to nothing, it ends."""

    def __init__(self, base: Path, obey: Obey, said: bool = True, **standing: object) -> None:
        self.base, self.obey, self.said = base, obey, said
        self.standing = Standing(**({"size": 1, "stage": Stage.SERVING, "title": "shop"} | standing))
        self._line, theirs = socket.socketpair()
        with theirs:
            self.pid = spawn.fork(lambda: self._be(theirs))
        self.path = Path(self._line.recv(1000).decode())

    def _be(self, line: socket.socket) -> int:
        self._line.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        directory = Directory(str(self.base))
        ledger, standing = directory.ledger(), replace(self.standing, pid=os.getpid())
        self._staff(directory, standing)
        if self.said:
            ledger.beat(time.monotonic())
            ledger.write(standing)
        line.send(directory.path.encode())
        coming: list[Standing] = []
        while line.recv(1):
            if came := signal.sigtimedwait(SIGNALS, 0):
                coming = list(self.obey(signal.Signals(came.si_signo).name, standing))
                if not coming:
                    directory.remove()
                    return 0
            if coming:
                standing = coming.pop(0)
                self._staff(directory, standing)
                ledger.write(standing)
            line.send(b".")
        return 0

    def go_on(self) -> None:
        """Let it tell the next."""
        try:
            self._line.send(b".")
            self._line.recv(1)
        except OSError:
            pass  # it has ended

    def _staff(self, directory: Directory, standing: Standing) -> None:
        """Have as many workers as are wanted, but for those that boot still (by `exits`); the first has a request."""
        booting = standing.exits.get("booting", 0)
        for slot in range(1, 9):
            page: Page = directory.page(slot)
            page.enter(os.getpid() if slot <= standing.size + standing.exits.get("surplus", 0) else 0, 5, 0.0)
            page.live(State.READY if slot <= standing.size - booting else State.BOOTING)
            if slot == 1:
                page.begin("GET", "/hold", "", 0.0, 0.0)
            else:
                page.idle(0.0)

    def end(self) -> None:
        self._line.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


Run = Callable[..., Arbiter]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    began: list[Arbiter] = []

    def sleep(seconds: float) -> None:
        for arbiter in began:
            arbiter.go_on()

    monkeypatch.setattr(time, "sleep", sleep)

    def run(obey: Obey = by_number, **more: object) -> Arbiter:
        began.append(Arbiter(tmp_path, obey, **more))
        return began[-1]

    yield run
    for arbiter in began:
        arbiter.end()


@pytest.fixture
def tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Said]:
    """Runs a command: its exit code, and what it writes."""

    def tell(words: str) -> Said:
        code = ctl.main(["--worker-tmp-dir", str(tmp_path), *words.split()])
        written = capsys.readouterr()
        return code, written.out, written.err

    return tell


Tell = Callable[[str], Said]


def rolled(generation: int, wish: int, ending: Ending = Ending.DONE) -> dict[str, object]:
    return {"rolled": Rolled(generation, wish, ending)}


# Reload


def test_reload_waits_for_the_roll_that_was_wished_for(run: Run, tell: Tell) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        assert name == "SIGHUP"
        yield (now := replace(now, reloads=2))
        yield (now := replace(now, **rolled(3, 2, Ending.SUPERSEDED)))
        yield replace(now, generation=4, **rolled(4, 3))

    run(obey, reloads=1, roll_error="of old", **rolled(2, 1, Ending.FAILED))
    assert tell("reload --wait") == (0, "generation 4 serves\n", "")


def test_reload_that_is_not_to_wait_does_not(run: Run, tell: Tell) -> None:
    run(lambda name, now: iter([heard(name, now)]))
    assert tell("reload") == (0, "", "")


def test_reload_tells_why_the_roll_has_failed(run: Run, tell: Tell) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        yield (now := replace(now, reloads=1))
        yield replace(now, roll_error="it is broken", **rolled(2, 1, Ending.FAILED))

    run(obey)
    assert tell("reload --wait") == (1, "", "minicornctl: the roll to generation 2 failed:\nit is broken\n")


def test_reload_tells_why_it_is_off(run: Run, tell: Tell) -> None:
    run(lambda name, now: iter([replace(now, refusals=5, refusal="timeout = 'soon'")]), refusals=4)
    assert tell("reload --wait") == (1, "", "minicornctl: the reload is off: timeout = 'soon'\n")


@pytest.mark.parametrize("reloads", [0, 1])
def test_reload_of_a_server_that_stops_is_off(run: Run, tell: Tell, reloads: int) -> None:
    run(lambda name, now: iter([replace(now, reloads=reloads, stage=Stage.DRAINING)]))
    assert tell("reload --wait") == (1, "", "minicornctl: the server stops\n")


def test_reload_waits_no_longer_than_it_is_told(run: Run, tell: Tell) -> None:
    run(lambda name, now: iter([heard(name, now)]))
    assert tell("reload --wait --timeout 0.05") == (1, "", "minicornctl: not within 0.05 s: SIGHUP is heard\n")


def test_a_server_that_ends_meanwhile_is_told(run: Run, tell: Tell) -> None:
    arbiter = run(lambda name, now: iter([]))
    code, _, told = tell("reload --wait")
    assert (code, told) == (1, f"minicornctl: the server {arbiter.pid} has ended\n")


# Stop


def test_stop_waits_for_the_end_where_it_is_to(run: Run, tell: Tell) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        assert name == "SIGTERM"
        if now.stage is Stage.SERVING:
            yield replace(now, stage=Stage.DRAINING)

    arbiter = run(obey)
    assert tell("stop") == (0, "", "")
    arbiter.go_on()  # two signals of a kind that wait are one
    assert tell("stop --wait") == (0, "", "")
    assert not arbiter.path.exists()


def test_stop_that_takes_too_long_says_so(run: Run, tell: Tell) -> None:
    arbiter = run(lambda name, now: iter([heard(name, now)]))
    told = f"minicornctl: not within 0.01 s: the server {arbiter.pid} has ended\n"
    assert tell("stop --wait --timeout 0.01") == (1, "", told)


# Scale


@pytest.mark.parametrize("count", [1, 3, 5])
def test_scale_goes_up_and_down_one_by_one(run: Run, tell: Tell, count: int) -> None:
    arbiter = run(size=3, obeyed={"SIGTTIN": 4})
    assert tell(f"scale {count}") == (0, f"{count} workers\n", "")
    standing = survey.read_standing(arbiter.path)
    assert (standing.size, sum(standing.obeyed.values())) == (count, 4 + abs(count - 3))


def test_scale_waits_until_all_are_ready_and_none_is_left_of_those_too_many(run: Run, tell: Tell) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        yield (now := heard(name, now, size=3, exits={"booting": 1}))
        yield (now := replace(now, exits={"surplus": 1}))
        yield replace(now, exits={})

    arbiter = run(obey, size=2)
    assert tell("scale 3") == (0, "3 workers\n", "")
    assert not survey.read_standing(arbiter.path).exits


@pytest.mark.parametrize("stage", [Stage.PARKED, Stage.DRAINING])
def test_scale_of_a_server_that_does_not_serve_is_told(run: Run, tell: Tell, stage: Stage) -> None:
    run(stage=stage)
    assert tell("scale 2") == (1, "", f"minicornctl: the server is {stage}\n")


@pytest.mark.parametrize("count", ["0", "1001", "two", "1.5"])
def test_no_other_number_of_workers_is_taken(tell: Tell, capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        tell(f"scale {count}")
    assert ended.value.code == 2
    assert "is no number from 1 to 1000" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 1000])
def test_the_outermost_numbers_are_taken(count: int) -> None:
    assert ctl.build_parser().parse_args(["scale", str(count)]).workers == count


# Logs, upgrade


@pytest.mark.parametrize("before", [{}, {"SIGUSR1": 3}])
def test_reopen_logs_waits_until_it_is_heard(run: Run, tell: Tell, before: dict[str, int]) -> None:
    arbiter = run(lambda name, now: iter([heard(name, now)]), obeyed=before)
    assert tell("reopen-logs") == (0, "", "")
    assert survey.read_standing(arbiter.path).obeyed["SIGUSR1"] == before.get("SIGUSR1", 0) + 1


def test_upgrade_waits_for_the_new_program_and_its_roll(run: Run, tell: Tell) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        assert name == "SIGUSR2"
        yield (now := heard(name, now, upgrading=True))
        yield (now := replace(now, upgrades=2, upgrading=False, version="9.9"))
        yield (now := replace(now, reloads=2))
        yield replace(now, generation=3, **rolled(3, 2))

    run(obey, upgrades=1, reloads=1, obeyed={"SIGUSR2": 1}, upgrade_error="of old", **rolled(2, 1))
    assert tell("upgrade --wait") == (0, "minicorn 9.9 serves, generation 3\n", "")


def test_upgrade_that_is_not_to_wait_does_not(run: Run, tell: Tell) -> None:
    run(lambda name, now: iter([heard(name, now)]))
    assert tell("upgrade") == (0, "", "")


@pytest.mark.parametrize("before", [{}, {"SIGUSR2": 1}])
def test_upgrade_tells_why_it_is_off(run: Run, tell: Tell, before: dict[str, int]) -> None:
    def obey(name: str, now: Standing) -> Iterator[Standing]:
        yield (now := heard(name, now, upgrading=True))
        yield replace(now, upgrading=False, upgrade_error="no module")

    run(obey, obeyed=before, upgrade_error="of old")
    assert tell("upgrade --wait") == (1, "", "minicornctl: the upgrade is off: no module\n")


def test_upgrade_of_a_server_that_stops_is_off(run: Run, tell: Tell) -> None:
    run(lambda name, now: iter([replace(now, stage=Stage.DRAINING)]))
    assert tell("upgrade --wait") == (1, "", "minicornctl: the server stops\n")


# Looking


def test_stacks_are_of_all_workers_or_of_one_slot(run: Run, tell: Tell) -> None:
    """Those here are the arbiter's own process, which is no child of its own and is not asked."""
    run(size=2, generation=5)
    code, out, _ = tell("stacks")
    assert (code, out.count("it wrote no stack in time")) == (0, 2)
    code, out, _ = tell("stacks 2")
    assert code == 0 and "(slot 2, gen 5): idle, " in out and "slot 1" not in out
    assert tell("stacks 3")[::2] == (1, "minicornctl: no worker in slot 3\n")


def test_stacks_where_there_are_no_workers_say_so(run: Run, tell: Tell) -> None:
    run(size=0)
    assert tell("stacks")[::2] == (1, "minicornctl: no workers\n")


def test_status_is_of_each_server_that_can_be_read(run: Run, tell: Tell) -> None:
    one, other = run(title="shop"), run(title="blog")
    run(said=False)
    code, out, err = tell("status")
    assert (code, err) == (0, "")
    assert out.count(f"shop (), pid {one.pid}, ") == out.count(f"\n\nblog (), pid {other.pid}, ") == 1 or (
        out.count(f"blog (), pid {other.pid}, ") == out.count(f"\n\nshop (), pid {one.pid}, ") == 1
    )
    told = json.loads(tell("status --json")[1])
    assert {each["pid"] for each in told} == {one.pid, other.pid}


def test_who_reads_has_gone_before_all_is_written(run: Run, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    reading, writing = os.pipe()
    os.close(reading)
    closed = open(writing, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    assert tell("status")[::2] == (1, "")
    assert sys.stdout is None
    with pytest.raises(BrokenPipeError):
        closed.close()


def test_where_it_writes_there_is_no_room(run: Run, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stdout", full)
    assert tell("status") == (1, "", "minicornctl: No space left on device\n")
    assert sys.stdout is None
    with pytest.raises(OSError, match="No space"):
        full.close()


# Which server


@pytest.mark.parametrize("command", ["status", "reload"])
def test_a_server_that_has_said_nothing_yet_cannot_be_read(run: Run, tell: Tell, command: str) -> None:
    arbiter = run(said=False)
    told = f"minicornctl: {arbiter.path} cannot be read: its server has ended, just begins, or is of another version\n"
    assert tell(command) == (2, "", told)


def test_of_several_one_is_to_be_chosen(run: Run, tell: Tell) -> None:
    arbiters = [run(title="shop"), run(title="blog")]
    code, _, told = tell("reload")
    assert code == 2 and told.startswith("minicornctl: 2 servers run: choose by --pid one of ")
    assert all(f"{each.pid} ({each.standing.title})" in told for each in arbiters)


def test_one_is_chosen_by_its_pid_or_by_a_file_that_has_it(run: Run, tell: Tell, tmp_path: Path) -> None:
    run()
    arbiter = run(title="blog")
    (tmp_path / "pid").write_text(f"{arbiter.pid}\n")
    for pid in (arbiter.pid, tmp_path / "pid"):
        (told,) = json.loads(tell(f"status --json --pid {pid}")[1])
        assert told["pid"] == arbiter.pid


@pytest.mark.parametrize("text", ["", "shop", "12 13"])
def test_a_file_without_a_pid_is_a_mistake(tell: Tell, tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    for name in ("pid", "nowhere"):
        path = tmp_path / name
        assert tell(f"status --pid {path}") == (2, "", f"minicornctl: --pid {path}: no pid, nor a file with one\n")


def test_who_is_no_server_is_told(tell: Tell) -> None:
    assert tell(f"status --pid {os.getpid()}")[2].endswith(f"no minicorn of yours has the pid {os.getpid()}\n")
    code, _, told = tell("status")
    assert code == 2 and told.startswith("minicornctl: no server of yours runs here")


# The command line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "minicornctl: error: the following arguments are required: COMMAND"),
        ("--work /tmp status", "minicornctl: error: argument COMMAND: invalid choice: '/tmp'"),
        ("reload --wai", "minicornctl: error: unrecognized arguments: --wai"),
        ("stacks one", "minicornctl stacks: error: argument SLOT: invalid int value: 'one'"),
    ],
)
def test_mistakes_are_told(capsys: pytest.CaptureFixture[str], words: str, told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main(words.split())
    assert (ended.value.code, told in capsys.readouterr().err) == (2, True)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            ctl.main(words)
        assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"minicornctl {VERSION}\n" in told
    assert all(f"    {command} " in told for command in ("status", *ctl.COMMANDS))


@pytest.mark.parametrize("command", ["status", "scale 1", *(each for each in ctl.COMMANDS if each != "scale")])
def test_which_server_may_be_said_behind_each_command(command: str) -> None:
    options = ctl.build_parser().parse_args([*command.split(), "--pid", "7", "--worker-tmp-dir", "/tmp"])
    assert (options.pid, options.worker_tmp_dir) == ("7", "/tmp")
