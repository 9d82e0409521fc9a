"""The groundwork of --reload in processes of its own: what is imported for all, what is left to the workers."""

import json
import subprocess
import sys
from pathlib import Path
from signal import SIGHUP

from harness import CHECKOUT, Starter, wait_until
from reloading import APP, await_word, serve, write

LAY = """
import json, logging, sys
from minicorn.reload.groundwork import Groundwork
sys.path[:0] = sys.argv[2:]
ground = Groundwork()
ground.learn(json.loads(sys.argv[1]), ["project"])
refused = ground.lay()
print(json.dumps([refused, [name for name in ground.modules if sys.modules.get(name)]]))
"""


def lay(folder: Path, **modules: str) -> tuple[dict[str, str], list[str]]:
    """What is refused, and what is imported, of these modules, which are laid out in `folder`."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-c", LAY, json.dumps(list(modules)), str(CHECKOUT), str(folder)]
    refused, imported = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return refused, imported


def test_what_needs_nothing_of_the_project_is_imported(tmp_path: Path) -> None:
    assert lay(tmp_path, one="import two", two="x = 1") == ({}, ["one", "two"])


def test_who_asks_for_the_project_is_left_out_even_if_it_can_do_without(tmp_path: Path) -> None:
    asks = "try:\n    import project\nexcept ImportError:\n    project = None"
    refused, imported = lay(tmp_path, asks=asks, needs="import asks", free="x = 1")
    assert "project" in refused["asks"]
    assert "needs" in refused
    assert imported == ["free"]


def test_who_starts_a_thread_is_left_out_with_all_that_need_it(tmp_path: Path) -> None:
    starts = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    refused, imported = lay(tmp_path, starts=starts, needs="import starts", free="x = 1")
    assert refused["starts"] == "it starts a thread"
    assert "needs" in refused
    assert imported == ["free"]


def test_who_cannot_be_imported_alone_or_ends_its_process_is_left_out(tmp_path: Path) -> None:
    refused, imported = lay(tmp_path, exits="raise SystemExit", dies="import os; os._exit(1)", free="x = 1")
    assert set(refused) == {"exits", "dies"}
    assert imported == ["free"]


def test_new_workers_come_from_the_template(start: Starter) -> None:
    write(start, "one", extra="import flask")
    server = serve(start, "--log-level", "debug")
    server.wait_log(r"imported for all workers to come: .*\bflask\b")
    server.wait_log(r"template \d+ .* is up")
    write(start, "two", extra="import flask")
    await_word(server, "two")
    template = server.wait_log(r"template (\d+) ")[1]
    assert "project" not in server.wait_log("imported for all workers to come: .*")[0].split()
    wait_until(lambda: int(template) in server.workers(), "the template stays")


def test_hup_takes_new_settings_past_the_template(start: Starter) -> None:
    start.write("minicorn.conf.py", "raw_env = ['SAYS=one']")
    start.write("project.py", APP.format(word="", extra="import flask, os") + "WORD = os.environ['SAYS']\n")
    server = serve(start, "--log-level", "debug")
    server.wait_log(r"template \d+ .* is up")
    start.write("minicorn.conf.py", "raw_env = ['SAYS=two']")
    server.signal(SIGHUP)
    await_word(server, "two")


def test_without_the_template_nothing_is_imported_ahead(start: Starter) -> None:
    write(start, "one")
    server = serve(start, "--no-reload-template", "--log-level", "debug")
    write(start, "two")
    await_word(server, "two")
    assert "template" not in server.log.text
