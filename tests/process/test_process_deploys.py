"""New code: what HUP does when it is broken, and a first start that cannot succeed."""

import os
import re
import shutil
import zipfile
from pathlib import Path
from signal import SIGHUP, SIGKILL

import pytest
from harness import CHECKOUT, Server, Starter, wait_until

GOOD = """
from plain import ROUTES, app
ROUTES["/version"] = lambda environ: "{version}"
"""
# Broken modules, and what the log must say of each
BROKEN = {
    "SyntaxError": ("x = 1\nif x\n", r'File ".*site_app\.py", line 2\n(.*\n)+SyntaxError'),
    "ImportError": (
        "import json\nfrom json import nothing\n",
        r'File ".*site_app\.py", line 2, in <module>\n(.*\n)+ImportError: cannot import name \'nothing\'',
    ),
    "ModuleNotFoundError": (
        "import no_such_library\n",
        r'File ".*site_app\.py", line 1, in <module>\n(.*\n)+ModuleNotFoundError: .*no_such_library',
    ),
    "SystemExit": ("import sys\n\nsys.exit(3)\n", r'File ".*site_app\.py", line 3, in <module>\n(.*\n)+SystemExit: 3'),
    "KeyboardInterrupt": (
        "raise KeyboardInterrupt\n",
        r'File ".*site_app\.py", line 1, in <module>\n(.*\n)+KeyboardInterrupt',
    ),
    "hang": ("import time\ntime.sleep(60)\n", r'File ".*site_app\.py", line 2 in <module>'),
    "os._exit": ("import os\nos._exit(3)\n", r"exit code 3"),
}
HANGS = ("--boot-timeout", "2")


def boot(start: Starter, *flags: str) -> Server:
    start.write("site_app.py", GOOD.format(version="old"))
    return start("site_app:app", *flags)


@pytest.mark.parametrize("name", BROKEN)
def test_the_old_code_serves_on_when_the_new_is_broken(start: Starter, name: str) -> None:
    source, expected = BROKEN[name]
    server = boot(start, "--workers", "2", *(HANGS if name == "hang" else ()))
    before = server.workers()
    start.write("site_app.py", source)
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off")
    server.wait_log(expected)
    assert {server.get("/version").text for _ in range(5)} == {"old"}
    assert server.workers() == before
    assert server.log.text.count("Traceback") <= 1
    start.write("site_app.py", GOOD.format(version="fixed"))
    server.hup()
    assert {server.get("/version").text for _ in range(5)} == {"fixed"}


@pytest.mark.parametrize("flags", [(), ("--preload",)])
def test_an_error_without_a_text_is_told_by_its_name(start: Starter, flags: tuple[str, ...]) -> None:
    server = boot(start, *flags)
    start.write("site_app.py", "from minicorn.errors import ConfigError\nraise ConfigError('')\n")
    server.signal(SIGHUP)
    server.wait_log("could not load site_app:app: ConfigError$")
    server.wait_log("roll to generation 2 is off")
    assert server.get("/version").text == "old"


def test_a_roll_that_is_off_is_not_tried_again_and_again(start: Starter) -> None:
    server = boot(start)
    start.write("site_app.py", "1 / 0\n")
    server.signal(SIGHUP)
    server.wait_log("roll to generation 2 is off")
    server.signal(SIGHUP)
    server.wait_log("roll to generation 3 is off")
    assert server.log.text.count("ZeroDivisionError") == 2


def test_a_worker_that_dies_after_a_broken_deploy_does_not_end_the_server(start: Starter) -> None:
    """Its replacement can only import the broken code; that is no reason to stop."""
    server = boot(start, "--workers", "2")
    start.write("site_app.py", "1 / 0\n")
    victim = min(server.workers())
    os.kill(victim, SIGKILL)
    server.wait_log("ZeroDivisionError")
    assert server.get("/version").text == "old"
    start.write("site_app.py", GOOD.format(version="fixed"))
    server.hup()
    assert {server.get("/version").text for _ in range(5)} == {"fixed"}


def test_hup_during_a_hanging_roll_makes_one_more_roll(start: Starter) -> None:
    server = boot(start, *HANGS)
    start.write("site_app.py", BROKEN["hang"][0])
    server.signal(SIGHUP)
    server.wait_log("rolling to generation 2")
    start.write("site_app.py", GOOD.format(version="fixed"))
    server.signal(SIGHUP)
    wait_until(lambda: server.get("/version").text == "fixed", "the newest code is served")


@pytest.mark.parametrize("how", ["cwd", "chdir"])
def test_a_release_behind_a_symlink_is_seen(start: Starter, how: str) -> None:
    current = start.cwd / "current"
    for version in "12":
        release(start, f"releases/{version}", version)
    switch(current, "releases/1")
    flags = ("--chdir", "current") if how == "chdir" else ()
    command = ("site_app:app", "--workers", "2", "--pythonpath", "lib", *flags)
    server = start(*command) if how == "chdir" else start(*command, cwd=current)
    assert server.get("/").text == "1 1"
    switch(current, "releases/2")
    server.hup()
    assert {server.get("/").text for _ in range(8)} == {"2 2"}


@pytest.mark.parametrize("flags", [(), ("--preload",)])
def test_the_release_that_the_server_began_with_may_be_removed(start: Starter, flags: tuple[str, ...]) -> None:
    current = start.cwd / "current"
    for version in "123":
        release(start, f"releases/{version}", version)
    switch(current, "releases/1")
    command = ("site_app:app", "--chdir", str(current), "--pythonpath", "lib", *flags)
    server = start(*command, cwd=current)
    for roll, version in enumerate("23", 1):
        switch(current, f"releases/{version}")
        shutil.rmtree(start.cwd / "releases/1", ignore_errors=True)
        server.hup(roll)
        assert server.get("/").text == f"{version} {version}"
    *_, victim = re.findall(r"worker (\d+) .*is ready after", server.log.text)
    os.kill(int(victim), SIGKILL)
    assert server.get("/").text == "3 3"


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=str)
def test_new_code_in_a_zip_file_is_seen(start: Starter, flags: tuple[str, ...]) -> None:
    """The arbiter has looked for its own imports there, and remembered where in the file each module was."""

    def release(version: str) -> None:
        with zipfile.ZipFile(start.cwd / "new.zip", "w") as archive:
            archive.writestr("before.py", version * 100)
            archive.writestr("zip_app.py", GOOD.format(version=version))
        (start.cwd / "new.zip").replace(start.cwd / "site.zip")

    release("old")
    path = os.pathsep.join([str(CHECKOUT), str(start.cwd / "site.zip")])
    server = start("zip_app:app", *flags, env={"PYTHONPATH": path})
    release("newer")
    server.hup()
    assert server.get("/version").text == "newer"


def test_the_directory_of_the_server_may_be_replaced(start: Starter) -> None:
    """Also where the file of settings and the arbiter's hooks ask for it."""
    release(start, "site", "1")
    server = start("site_app:app", "--pythonpath", "lib", cwd=start.cwd / "site")
    release(start, "new", "2")
    start.write("new/minicorn.conf.py", "import os\n_HERE = os.getcwd()\ndef on_reload(server):\n    os.getcwd()\n")
    (start.cwd / "site").rename(start.cwd / "old")
    (start.cwd / "new").rename(start.cwd / "site")
    shutil.rmtree(start.cwd / "old")
    server.hup()
    assert server.get("/").text == "2 e"


def release(start: Starter, place: str, version: str) -> None:
    """An application that tells its version and the last letter of where it runs."""
    start.write(f"{place}/lib/release.py", f"VERSION = {version}\n")
    start.write(
        f"{place}/site_app.py",
        "import os, release\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [f'{release.VERSION} {os.path.realpath(os.curdir)[-1]}'.encode()]\n",
    )


def switch(link: Path, target: str) -> None:
    """As deploy tools do: make a new link, rename it over the old."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.rename(link)


# The first start


@pytest.mark.parametrize("workers", ["1", "4"])
@pytest.mark.parametrize("name", [name for name in BROKEN if name not in ("hang", "os._exit")])
def test_a_first_start_of_broken_code_ends_with_3_and_one_traceback(start: Starter, name: str, workers: str) -> None:
    source, expected = BROKEN[name]
    start.write("site_app.py", source)
    server = start("site_app:app", "--workers", workers, ready=0)
    assert server.wait() == 3
    log = server.log.finish()
    assert len(re.findall(expected, log, re.MULTILINE)) == 1, log
    assert log.count("Traceback") <= 1, log
    assert f'File "{CHECKOUT}/minicorn/' not in log, log
    assert "importlib" not in log, log


def test_what_a_module_prints_at_import_is_not_lost(start: Starter) -> None:
    start.write("site_app.py", "print('before the end', end='')\n1 / 0\n")
    server = start("site_app:app", ready=0)
    assert server.wait() == 3
    assert server.output.finish() == "before the end"
