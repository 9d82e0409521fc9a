"""`--reload`: real files are edited under clients that ask all the time."""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CHECKOUT, Server, Starter, descriptors, read, wait_until
from reloading import APP, HTML, await_status, await_word, get, rolls, serve, settle, write
from test_process_counting import look

from minicorn.serving.connection import RELOAD_MOST


def replace_older(start: Starter) -> None:
    path = write(start, "two", name="other.py")
    os.utime(path, (1_000_000, 1_000_000))
    path.replace(start.cwd / "project.py")


def save_like_vim(start: Starter) -> None:
    project = start.cwd / "project.py"
    project.rename(start.cwd / "project.py~")
    project.write_text(APP.format(word="two", extra=""))
    (start.cwd / "project.py~").unlink()


def save_in_place(start: Starter) -> None:
    (start.cwd / "project.py").write_text(APP.format(word="two", extra=""))


@pytest.mark.parametrize("save", [save_in_place, save_like_vim, replace_older])
def test_a_saved_file_is_served_however_it_is_saved(start: Starter, save: Callable[[Starter], None]) -> None:
    write(start, "one")
    server = serve(start)
    await_word(server, "one")
    save(start)
    await_word(server, "two")


def test_edits_within_a_second_at_the_same_length_are_all_served(start: Starter) -> None:
    # A .pyc is trusted for a second's edits: this one has them
    write(start, "one")
    server = serve(start, env={"PYTHONDONTWRITEBYTECODE": ""})
    for word in ("two", "six", "ten", "one"):
        write(start, word)
        await_word(server, word)


def test_templates_and_translations_are_code(start: Starter) -> None:
    write(start, "one", extra="PAGE = open('templates/shop/page.html').read()")
    project = start.cwd / "project.py"
    project.write_text(project.read_text().replace("WORD.encode()", "PAGE.encode()"))
    for name in ("templates/shop/page.html", "data/templates", "locale/de/LC_MESSAGES/django.mo"):
        start.cwd.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        start.cwd.joinpath(name).write_text("one")
    server = serve(start)
    (start.cwd / "data" / "templates").write_text("no code")
    (start.cwd / "templates" / "shop" / "page.html").write_text("two")
    await_word(server, "two")
    (start.cwd / "locale" / "de" / "LC_MESSAGES" / "django.mo").write_text("two")
    server.wait_log(r"Detected modified: locale/.*\.mo")
    assert "data" not in server.log.text


def test_a_new_module_and_its_deletion_are_seen(start: Starter) -> None:
    write(start, "one", extra="try:\n    from extra import WORDS\nexcept ImportError:\n    WORDS = 0")
    server = serve(start)
    settle(server, start)
    write(start, "x", name="package/extra.py")
    server.wait_log(r"Detected created: package/extra\.py")
    (start.cwd / "package" / "extra.py").unlink()
    server.wait_log(r"Detected deleted: package/extra\.py")


def test_what_is_no_edit_changes_nothing(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    settle(server, start)
    project = start.cwd / "project.py"
    project.read_text()
    project.touch()
    project.write_text(project.read_text())
    others = ("notes.txt", ".project.py.swp", "project.py~", "node_modules/x.py", "build/lib/y.py", ".venv/z.py")
    for name in (*others, "py311/lib/site-packages/p.py"):
        write(start, "x", name=name)
    settle(server, start)
    told = server.log.text.split("Detected")[1:]
    assert all("marker.py" in line.splitlines()[0] for line in told), told


def test_a_burst_is_one_roll(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    settle(server, start)
    wait_until(lambda: rolls(server) == server.log.text.count("Detected"), "the roll has ended")
    before = rolls(server)
    watcher = find_watcher(server)
    os.kill(watcher, signal.SIGSTOP)  # or a test that is held up for a moment has made two
    for number in range(50):
        (start.cwd / f"module_{number}.py").write_text(f"X = {number}")
    os.kill(watcher, signal.SIGCONT)
    server.wait_log(r"Detected created: module_0\.py, module_1\.py, module_10\.py and 47 more")
    wait_until(lambda: rolls(server) > before, "the burst's roll has ended")
    settle(server, start)
    wait_until(lambda: rolls(server) == before + 2, "one roll for the burst, one for the marker")


def test_included_excluded_and_extra_files_are_as_told(start: Starter) -> None:
    write(start, "one")
    for name in ("page.html", ".env", "generated/x.py"):
        write(start, "x", name=name)
    flags = ("--reload-include", "*.py", "--reload-include", "*.html", "--reload-extra-file", ".env")
    server = serve(start, *flags, "--reload-exclude", "generated")
    for name in ("page.html", ".env"):
        (start.cwd / name).write_text("changed")
        server.wait_log(rf"Detected modified: {name}")
    (start.cwd / "generated" / "x.py").write_text("changed")
    settle(server, start)
    assert "generated" not in server.log.text


def test_an_edited_configuration_file_is_read_again(start: Starter) -> None:
    write(start, "one")
    configuration = start.cwd / "settings" / "server.toml"
    configuration.parent.mkdir()
    configuration.write_text("graceful_timeout = 11")
    server = serve(start, "-c", str(configuration))
    configuration.write_text("graceful_timeout = ")
    server.wait_log("reload is off, all serve on as before: .*server.toml")
    await_word(server, "one")
    configuration.write_text("env = ['WORD=two']")
    path = start.cwd / "project.py"
    path.write_text(path.read_text().replace("'one'", "__import__('os').environ.get('WORD', 'none')"))
    wait_until(lambda: get(server).text == "two", "the new settings serve")


def test_a_module_from_outside_is_watched(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("elsewhere")
    (outside / "library").mkdir()
    (outside / "library" / "__init__.py").write_text("WORD = 'one'")
    write(start, "unused", extra="import library")
    path = start.cwd / "project.py"
    path.write_text(path.read_text().replace("WORD.encode()", "library.WORD.encode()"))
    server = serve(start, env={"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{CHECKOUT}:{outside}"})
    await_word(server, "one")
    (outside / "library" / "__init__.py").write_text("WORD = 'two'")
    await_word(server, "two")


def test_an_edit_while_the_application_is_imported_is_served(start: Starter) -> None:
    begun = "pathlib.Path('importing').touch()"
    waits = f"import pathlib, time\n{begun}\nwhile not pathlib.Path('go').exists(): time.sleep(.01)"
    write(start, "one", extra=waits)
    server = start("project:app", "--reload", ready=0)
    wait_until(lambda: (start.cwd / "importing").exists(), "the first import has begun")
    write(start, "two")
    await_word(server, "two")


ERRORS = {
    "a syntax error": ("x = (", "SyntaxError"),
    "an unknown name": ("nothing_of_this_name", "NameError"),
    "an exit": ("raise SystemExit(3)", "SystemExit"),
    "a submodule": ("import broken", "ZeroDivisionError"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_at_import_is_shown_and_its_fix_served(start: Starter, kind: str) -> None:
    extra, name = ERRORS[kind]
    start.write("broken.py", "x = 1 / 0\n")
    write(start, "one")
    server = serve(start)
    write(start, "two", extra=extra)
    page = await_status(server, 500)
    assert name in page.text
    assert "text/html" in page.headers["Content-Type"]
    assert name in get(server).text
    told = json.loads(get(server, Accept="application/json").text)
    assert name in told["traceback"]
    assert told["frames"][0]["path"] == ("broken.py" if kind == "a submodule" else "project.py")
    waiting = server.connect()
    waiting.request("GET", page.text.split('fetch("')[1].split('"')[0])
    write(start, "three")
    assert read(waiting).status == 204  # the page loads itself again
    await_word(server, "three")


def test_the_first_boot_waits_for_the_fix(start: Starter) -> None:
    write(start, "one", extra="x = (")
    server = serve(start)
    assert get(server).status == 500
    server.wait_log("to show the error until")
    write(start, "two")
    wait_until(lambda: get(server).text == "two", "the fix is served")


def test_an_import_that_kills_or_hangs_is_shown(start: Starter) -> None:
    write(start, "one")
    server = serve(start, "--boot-timeout", "1")
    write(start, "two", extra="import os; os._exit(7)")
    assert "exit code 7" in await_status(server, 500).text
    write(start, "three", extra="import time; time.sleep(60)  # hangs")
    wait_until(
        lambda: "time.sleep" in get(server, **HTML).text or "was late" in get(server, **HTML).text, "it is shown"
    )
    write(start, "four")
    await_status(server, 200)


def test_an_application_that_binds_an_address_is_imported_when_the_old_code_has_left_it(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    binds = f"import socket; exporter = socket.create_server(('127.0.0.1', {port}))"
    write(start, "one", extra=binds)
    server = serve(start)
    for word in ("two", "three"):
        write(start, word, extra=binds)
        await_word(server, word)
    assert server.log.text.count("found an address in use") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(start, "four", extra=binds.replace(str(port), str(taken.getsockname()[1])))
        assert "in use" in await_status(server, 500).text


def test_an_exception_in_a_request_is_shown_on_this_machine_only(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    assert "as the path says" in get(server, "/boom", **HTML).text
    assert "as the path says" in get(server, "/boom", Host=f"shop.test:{server.port}", **HTML).text
    # Another machine behind a proxy, and another's page whose name leads here (DNS rebinding)
    told = ({"X-Forwarded-For": "203.0.113.9"}, {"X-Real-IP": "203.0.113.9"}, {"Host": f"shop.example:{server.port}"})
    for said in told:
        far = get(server, "/boom", **said, **HTML)
        assert far.status == 500
        assert "as the path says" not in far.text


def test_without_debug_page_nothing_is_shown(start: Starter) -> None:
    write(start, "one")
    server = serve(start, "--no-debug-page")
    assert "as the path says" not in get(server, "/boom", **HTML).text


def test_who_waits_long_is_told_and_others_are_kept(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(.01)"
    write(start, "two", extra=waits)
    server.wait_log("Detected")
    plain = server.send("/")
    page = get(server, **HTML)
    assert page.status == 503
    assert "Still importing" in page.text
    (start.cwd / "go").touch()
    assert read(plain).text == "two"


def test_who_waits_long_for_the_first_import_is_told_and_others_are_kept(start: Starter) -> None:
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(.01)"
    write(start, "one", extra=waits)
    server = start("project:app", "--reload", ready=0)
    plain = server.send("/")
    page = get(server, **HTML)
    assert page.status == 503
    assert "Still importing" in page.text
    waiting = server.connect()
    waiting.request("GET", page.text.split('fetch("')[1].split('"')[0])
    (start.cwd / "go").touch()
    assert read(waiting).status == 204  # the page loads itself again
    assert read(plain).text == "one"
    wait_until(lambda: get(server, **HTML).text == "one", "nobody is told any more")


@pytest.mark.parametrize("edits", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(400)])])
def test_nothing_is_refused_or_answered_by_old_code(start: Starter, edits: int) -> None:
    """Keep-alive clients that send without pause, bodies of all sizes among it, while words count up;
    every fifth edit is a syntax error, to which the answer is 500."""
    write(start, "w0")
    server = serve(start, "--workers", "2", ready=2)
    wrong: list[str] = []
    announced = [0]
    stop = threading.Event()

    def ask(number: int) -> None:
        connection = server.connect()
        serial = 0
        while not stop.is_set():
            serial += 1
            body = b"x" * (0, 10, 50_000, 200_000)[(serial + number) % 4]
            least = announced[0]
            connection.request("POST" if body else "GET", "/", body=body or None)
            reply = read(connection)
            if reply.status == 500 and "SyntaxError" in reply.text:
                continue
            word = int(reply.text.rstrip("x")[1:]) if reply.status == 200 else -1
            if word < least or not reply.body.endswith(body):
                wrong.append(f"{reply.status} {reply.body[:40]!r} after w{least}")

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    for number in range(1, edits + 1):
        write(start, f"w{number}", extra="" if number % 5 else "x = (")
        server.wait_log("Detected", count=number)
        announced[0] = number
        server.wait_log("Reloaded in|The error is shown", count=number)
    stop.set()
    for client in clients:
        client.join()
    assert not wrong, wrong[:5]


def test_an_upload_too_long_to_be_given_on_is_answered_by_the_code_that_began_it(start: Starter) -> None:
    write(start, "old")
    server = serve(start, "--max-body-size", "0")
    size = RELOAD_MOST
    connection = server.connect()
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(size))
    connection.endheaders(b"x" * (size - 1))
    write(start, "new")
    server.wait_log("Reloaded in")
    connection.send(b"x")
    assert read(connection).text == "old" + "x" * size
    assert get(server).text == "new"


def test_without_watchdog_one_line_says_what_to_install(start: Starter) -> None:
    hide = "import sys; sys.modules['watchdog'] = None; from minicorn.cli import main; sys.exit(main())"
    server = start.command(sys.executable, "-c", hide, "plain:app", "--reload", "--bind", "127.0.0.1:0")
    assert server.wait() == 1
    assert "pip install watchdog" in server.log.finish()


@pytest.mark.parametrize("flags", [("--reload-dir", "nowhere"), ("--reload-extra-file", "nowhere/.env")])
def test_what_is_to_be_watched_must_be_there(start: Starter, flags: tuple[str, str]) -> None:
    server = start("project:app", "--reload", *flags, ready=0)
    assert server.wait() == 1
    assert server.log.finish() == f"minicorn: error: {flags[0]}: there is no directory nowhere\n"


def find_watcher(server: Server) -> int:
    found: list[int] = []

    def look() -> list[int]:
        found[:] = [pid for pid in server.workers() if "anon_inode:inotify" in descriptors(pid)]
        return found

    wait_until(look, "it watches")
    return found[0]


def make_files(folder: Path, events: int) -> None:
    for number in range(events // 4):  # each of four events, at least
        os.close(os.open(folder / f"noise{number % 2}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        (folder / f"noise{number % 2}").unlink()


def open_directories(folder: Path, events: int) -> None:
    """Of these events watchdog passes none on."""
    for _ in range(events // 2):
        os.close(os.open(folder, os.O_RDONLY))


@pytest.mark.slow
@pytest.mark.parametrize("flood", [make_files, open_directories])
def test_edits_are_seen_that_the_system_has_no_room_to_tell_of(
    start: Starter, flood: Callable[[Path, int], None]
) -> None:
    write(start, "one")
    (start.cwd / "node_modules").mkdir()  # excluded: each other directory is watched for itself
    server = serve(start)
    settle(server, start)
    watcher = find_watcher(server)
    os.kill(watcher, signal.SIGSTOP)
    flood(start.cwd, int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 400)
    write(start, "two")
    late = write(start, "x", name="late/module.py")
    os.kill(watcher, signal.SIGCONT)
    await_word(server, "two")
    late.write_text("the directory has come unseen, and is watched")
    server.wait_log(r"modified: late/module\.py")
    assert "overflow" not in server.log.text


def test_edits_are_seen_after_a_directory_was_moved_away_whose_name_came_and_went(
    start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A thread of watchdog 7.1's dies of that
    away = tmp_path_factory.mktemp("elsewhere") / "away"
    here = start.cwd / "package"
    here.mkdir()
    write(start, "one")
    server = serve(start)
    settle(server, start)
    here.rename(away)
    here.mkdir()
    settle(server, start)
    here.rmdir()
    settle(server, start)
    away.rmdir()
    for word in ("two", "three"):
        write(start, word)
        await_word(server, word)


def test_where_a_thread_of_watchdogs_has_died_files_are_polled(start: Starter) -> None:
    dies = """
import sys
from minicorn.cli import main
from watchdog.observers.api import BaseObserver
def dispatch_events(self, event_queue):
    raise LookupError(event_queue.get())
BaseObserver.dispatch_events = dispatch_events
sys.exit(main())
"""
    write(start, "one")
    server = start.command(sys.executable, "-c", dies, "project:app", "--reload", "--bind", "127.0.0.1:0")
    for word in ("two", "three"):
        server.wait_ready()
        write(start, word)
        await_word(server, word)
    died = "files are looked at every 2 s, as the system cannot tell of changes: a thread of watchdog's has died of"
    assert server.log.text.count(died) == 1


def test_edits_are_seen_that_come_while_the_watcher_is_dead(start: Starter) -> None:
    write(start, "one")
    server = serve(start)
    settle(server, start)
    killed = find_watcher(server)
    os.kill(killed, signal.SIGKILL)
    write(start, "two")
    await_word(server, "two")
    server.wait_log(f"the watcher {killed} has died of SIGKILL")


def test_a_watcher_that_comes_after_another_knows_what_was_imported(
    start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = tmp_path_factory.mktemp("elsewhere") / "library.py"
    library.write_text("WORD = 'one'")
    start.write("project.py", APP.format(word="unused", extra="import library").replace("WORD.", "library.WORD."))
    server = serve(start, env={"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{CHECKOUT}:{library.parent}"})
    library.write_text("WORD = 'two'")
    await_word(server, "two")
    killed = find_watcher(server)
    os.kill(killed, signal.SIGKILL)
    server.wait_log(f"the watcher {killed} has died of SIGKILL")
    library.write_text("WORD = 'three'")
    await_word(server, "three")


def test_breakpoint_works_on_the_terminal_and_nothing_is_late_meanwhile(start: Starter) -> None:
    write(start, "one")
    path = start.cwd / "project.py"
    path.write_text(path.read_text().replace("    body =", "    breakpoint()\n    body ="))
    server = serve(start, "--timeout", "1", prelude="terminal")
    connection = server.send("/")
    server.wait_log(r"\(Pdb\)")

    def is_judged() -> bool:
        """The arbiter has planned when the request was late, but for this."""
        seen = look(server)
        return any(seen.heard > each.since + 1.5 for each in seen.workers if each.busy)

    wait_until(is_judged, "the timeout is over")
    server.type(b"p 'w' + 'ell'\n")
    server.wait_log("'well'")
    server.type(b"c\n")
    assert read(connection).text == "one"
    server.type(b"\x03")  # which is the server's, not pdb's
    assert server.wait() == 0
    assert "(Pdb)" not in server.log.text.partition("SIGINT")[2]
    assert "interrupted" not in server.log.text


def test_the_last_line_of_an_error_is_red_on_a_terminal(start: Starter) -> None:
    write(start, "one")
    server = serve(start, prelude="terminal")
    write(start, "two", extra="nothing_of_this_name")
    server.wait_log(r"\033\[31mNameError: name 'nothing_of_this_name' is not defined\033\[0m")
    server.wait_log("The error is shown")
