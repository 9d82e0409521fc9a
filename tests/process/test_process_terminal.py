"""In the foreground of a terminal: its signals are no operator's, and its log has colours."""

import re
import sys
from signal import SIGHUP, SIGTTIN, SIGUSR2

from harness import Server, Starter, read, resize_terminal, wait_until

SLOW_IMPORT = """
import pathlib, time
pathlib.Path("importing").touch()
time.sleep(60)
"""


def on_terminal(start: Starter, *flags: str, **env: str) -> Server:
    """A server that a shell of a new pseudo-terminal would have in its foreground."""
    return start("plain:app", *flags, prelude="terminal", env=env)


def test_a_resized_window_changes_nothing(start: Starter) -> None:
    server = on_terminal(start)
    workers = server.workers()
    resize_terminal(server.master)
    # Taken in the same turn, or later
    server.signal(SIGTTIN)
    server.wait_log("is ready after", count=2)
    assert workers < server.workers()
    assert "retire" not in server.log.text


def test_a_lost_terminal_stops_gracefully(start: Starter) -> None:
    server = on_terminal(start, "--workers", "2")
    connection = server.hold()
    server.log.close()
    wait_until(lambda: len(server.workers()) == 1, "the idle worker has gone")
    server.release()
    assert len(read(connection).body) == 500_000
    assert server.wait() == 0


def test_a_lost_terminal_stops_a_server_whose_log_is_elsewhere(start: Starter) -> None:
    server = on_terminal(start, "--access-logfile", "-")
    error = start.cwd / "error.log"
    other = start("plain:app", "--error-logfile", str(error), prelude="terminal", ready=0)
    wait_until(lambda: error.exists() and "is ready after" in error.read_text(), "it is ready")
    for each in (server, other):
        each.log.close()
        assert each.wait() == 0
    assert "stopping gracefully" in error.read_text()


def test_nohup_outlives_its_terminal_after_an_upgrade_too(start: Starter) -> None:
    """There HUP is always an operator's: it rolls, as under gunicorn."""
    error = start.cwd / "error.log"
    server = start("plain:app", "--error-logfile", str(error), prelude="terminal nohup", ready=0)

    def says(pattern: str) -> None:
        wait_until(lambda: error.exists() and re.search(pattern, error.read_text()), pattern)

    says("is ready after")
    server.signal(SIGUSR2)
    says("generation 2 serves")
    server.log.close()
    says("generation 3 serves")
    server.signal(SIGHUP)
    says("generation 4 serves")
    assert server.get("/", at=server.listening_port()).status == 200
    assert server.stop() == 0


def test_hup_by_hand_rolls_while_the_terminal_is_there(start: Starter) -> None:
    server = on_terminal(start)
    server.hup()
    assert server.get("/").status == 200


def test_ctrl_c_stops_everything_without_a_traceback(start: Starter) -> None:
    server = on_terminal(start, "--workers", "2")
    server.begin("/nap")
    server.type(b"\x03")
    assert server.wait() == 0
    assert "Traceback" not in server.log.finish()


def test_ctrl_c_while_idle_is_quick_and_quiet(start: Starter) -> None:
    server = on_terminal(start, "--workers", "2")
    server.type(b"\x03")
    assert server.wait() == 0
    log = server.log.finish()
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_ctrl_c_during_a_slow_import_is_quick_and_quiet(start: Starter) -> None:
    start.write("slow_import.py", SLOW_IMPORT)
    server = start("slow_import:app", prelude="terminal", ready=0)
    wait_until(lambda: (start.cwd / "importing").exists(), "the import has begun")
    server.type(b"\x03")
    assert server.wait() == 0
    assert "Traceback" not in server.log.finish()


EARLY = """
import sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "minicorn.arbiter.arbiter":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from minicorn.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_minicorn_itself_is_imported_is_quiet(start: Starter) -> None:
    server = start.command(sys.executable, "-c", EARLY, "plain:app")
    assert server.wait() == 130
    assert not server.log.finish()


def test_the_log_has_colours_on_a_terminal(start: Starter) -> None:
    server = on_terminal(start)
    assert "\033[32mINFO\033[0m:" in server.log.text


def test_the_log_has_no_colours_elsewhere(start: Starter) -> None:
    server = start()
    assert server.log.text.startswith("INFO:     ")
    assert "\033" not in server.log.text


def test_no_color_is_honoured(start: Starter) -> None:
    server = on_terminal(start, NO_COLOR="1")
    assert "INFO:     " in server.log.text
    assert "\033" not in server.log.text


def test_a_dumb_terminal_gets_no_colours(start: Starter) -> None:
    assert "\033" not in on_terminal(start, TERM="dumb").log.text
