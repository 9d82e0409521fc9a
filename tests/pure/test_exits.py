"""What the log says of a worker's end: who, how, doing what, and whether we wanted it."""

import logging
import signal

import pytest

import minicorn
from minicorn.pool.actions import Level
from minicorn.pool.exits import cause_of, describe_death, trim
from minicorn.pool.life import PLACEHOLDER, Cause, Exit, Worker

WHO = "worker 3121 (slot 2, gen 4)"
LIFE = "aged 90 s after 17 requests"
DOING = "30.4 s in GET /report"


def told(
    exit: Exit, verdict: str = "", was_ready: bool = True, dismissed: bool = False, idle: bool = True
) -> tuple[Level, str]:
    worker = Worker(3121, 2, 4, born=1000.0, was_ready=was_ready, dismissed=dismissed)
    return describe_death(worker, exit, DOING, idle, 17, verdict, 1090.0)


def test_a_clean_exit_is_a_retirement() -> None:
    assert told(Exit(3121, 0)) == (Level.INFO, f"{WHO} has retired, {LIFE}")


def test_an_exit_in_the_middle_of_a_request_is_no_retirement_whatever_its_code() -> None:
    text = f"{WHO} ended with exit code 0, {DOING}, {LIFE}"
    assert told(Exit(3121, 0), idle=False) == (Level.ERROR, text)
    assert told(Exit(3121, 0), idle=False, dismissed=True) == (Level.ERROR, text)


def test_an_exit_code_is_an_error_with_what_it_was_doing() -> None:
    assert told(Exit(3121, 7)) == (Level.ERROR, f"{WHO} ended with exit code 7, {DOING}, {LIFE}")


def test_a_signal_that_we_did_not_send_is_told_so() -> None:
    text = f"{WHO} was killed by SIGKILL, which we did not send, {DOING}, {LIFE}"
    assert told(Exit(3121, 0, signal.SIGKILL)) == (Level.ERROR, text)


def test_a_death_of_our_doing_gives_our_reason() -> None:
    text = f"{WHO} was late: killed by SIGABRT, {LIFE}"
    assert told(Exit(3121, 0, signal.SIGABRT), "was late") == (Level.ERROR, text)
    assert told(Exit(3121, 3), "was late") == (Level.ERROR, f"{WHO} was late: exit code 3, {LIFE}")


def test_the_wanted_end_of_a_worker_that_never_served_is_no_error() -> None:
    level, _ = told(Exit(3121, 0, signal.SIGKILL), "was not needed", was_ready=False, dismissed=True)
    assert level == Level.INFO


def test_a_boot_that_was_too_slow_is_an_error() -> None:
    level, _ = told(Exit(3121, 0, signal.SIGKILL), "was late", was_ready=False)
    assert level == Level.ERROR


def test_the_forced_end_of_a_worker_that_served_is_an_error_though_it_was_dismissed() -> None:
    level, _ = told(Exit(3121, 0, signal.SIGKILL), "did not finish in time", dismissed=True)
    assert level == Level.ERROR


def test_a_line_says_whether_its_subject_serves() -> None:
    assert str(Worker(7, 2001, 2, born=0.0, template=True)) == "template 7 (gen 2)"
    assert str(Worker(7, 3, PLACEHOLDER, born=0.0)) == "placeholder 7"


@pytest.mark.parametrize("number", sorted(int(signum) for signum in signal.Signals))
def test_every_signal_has_its_own_name(number: int) -> None:
    _, text = told(Exit(3121, 0, number))
    assert f"killed by {signal.Signals(number).name}, " in text


def test_of_two_names_of_a_signal_the_usual_one_is_told() -> None:
    assert "SIGCHLD" in told(Exit(3121, 0, signal.SIGCHLD))[1]
    assert "SIGABRT" in told(Exit(3121, 0, signal.SIGABRT))[1]


def test_a_signal_without_a_name_is_told_by_number() -> None:
    assert "killed by signal 200," in told(Exit(3121, 0, 200))[1]


GONE = {
    "it was killed by us": (Cause.MEMORY, True, True, Exit(7, 0, signal.SIGKILL), False, Cause.MEMORY),
    "whatever it died of": (Cause.TIMEOUT, True, False, Exit(7, 3), False, Cause.TIMEOUT),
    "it never served": (None, False, False, Exit(7, 0, signal.SIGSEGV), False, Cause.BOOT),
    "the kernel has killed it": (None, True, False, Exit(7, 0, signal.SIGKILL), True, Cause.OOM),
    "nobody wanted it before it served": (None, False, True, Exit(7, 0), False, Cause.RETIRED),
    "a signal has": (None, True, True, Exit(7, 0, signal.SIGSEGV), False, Cause.SIGNAL),
    "it failed": (None, True, True, Exit(7, 1), False, Cause.EXIT),
    "nobody wanted it": (None, True, False, Exit(7, 0), False, Cause.EXIT),
    "it was wanted": (None, True, True, Exit(7, 0), False, Cause.RETIRED),
}


@pytest.mark.parametrize(("ours", "was_ready", "dismissed", "exit", "oom", "cause"), GONE.values(), ids=GONE)
def test_a_death_has_one_cause(
    ours: Cause | None, was_ready: bool, dismissed: bool, exit: Exit, oom: bool, cause: Cause
) -> None:
    worker = Worker(7, 2, 4, born=1000.0, cause=ours, was_ready=was_ready, dismissed=dismissed)
    assert cause_of(worker, exit, oom) is cause


def test_a_template_has_no_requests_and_memory_is_told_where_it_is_known() -> None:
    template = Worker(7, 2001, 2, born=1000.0, template=True, was_ready=True, dismissed=True, memory=30 << 20)
    text = "template 7 (gen 2) has ended, aged 90 s, 30 MiB"
    assert describe_death(template, Exit(7, 0), "", True, 0, "", 1090.0) == (Level.INFO, text)


def test_a_worker_that_wished_to_be_replaced_is_recycled() -> None:
    worker = Worker(7, 2, 4, born=1000.0, was_ready=True, dismissed=True, wish="it has served 5 requests")
    assert cause_of(worker, Exit(7, 0), out_of_memory=False) is Cause.RECYCLED


def test_the_record_of_a_death_is_one_line() -> None:
    for exit in (Exit(3121, 0), Exit(3121, 1), Exit(3121, 0, 9)):
        for verdict in ("", "was late"):
            assert "\n" not in told(exit, verdict)[1]


def test_the_levels_are_those_of_the_logging_package() -> None:
    assert {level.name: level.value for level in Level}.items() <= logging.getLevelNamesMapping().items()


OURS = minicorn.__file__.replace("__init__.py", "")
HELPER = f"""Thread 0x1 (most recent call first):
  File "{OURS}serving/helper.py", line 109 in _run
  File "/usr/lib/python3.11/threading.py", line 982 in run"""
BELOW = f"""
  File "{OURS}serving/wsgi.py", line 240 in run
  File "{OURS}server.py", line 338 in _answer
  File "/site/bin/minicorn", line 8 in <module>"""
BELOW_AN_IMPORT = f"""
  File "<frozen importlib._bootstrap>", line 1204 in _gcd_import
  File "/usr/lib/python3.11/importlib/__init__.py", line 126 in import_module
  File "{OURS}serving/loader.py", line 94 in _import"""


@pytest.mark.parametrize("below", [BELOW, BELOW_AN_IMPORT, ""])
@pytest.mark.parametrize("above", ["", f'  File "{OURS}serving/wsgi.py", line 215 in write\n'])
def test_of_a_stack_the_frames_below_the_applications_are_left_out(above: str, below: str) -> None:
    main = f'Current thread 0x2 (most recent call first):\n{above}  File "/site/shop.py", line 7 in buy'
    assert trim(f"{HELPER}\n\n{main}{below}\n\nExtension modules: x") == f"{HELPER}\n\n{main}\n\nExtension modules: x"


def test_a_stack_of_ours_alone_is_told_whole() -> None:
    for text in (f"Current thread 0x2 (most recent call first):{BELOW}".rpartition("\n")[0], HELPER, "", "anything"):
        assert trim(text) == text
