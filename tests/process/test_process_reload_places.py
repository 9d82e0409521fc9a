"""`--reload` wherever the code lies: symlinks, installed packages, file systems that tell of no change."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CHECKOUT, MINICORN, Starter, wait_until
from reloading import await_status, await_word, get, rolls, serve, settle, write

USES = """
import library

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [library.WORD.encode()]
"""


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package `library` that is not below the current directory."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "library").mkdir()
    (folder / "library" / "__init__.py").write_text("WORD = 'one'\n")
    return folder


def path(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": ":".join(map(str, (CHECKOUT, *folders)))}


def test_a_package_behind_a_symlink_is_watched_where_it_is(start: Starter, elsewhere: Path) -> None:
    (start.cwd / "library").symlink_to(elsewhere / "library")
    start.write("project.py", USES)
    server = serve(start)
    await_word(server, "one")
    (elsewhere / "library" / "__init__.py").write_text("WORD = 'two'\n")
    await_word(server, "two")


def test_a_link_that_leads_to_another_package_is_an_edit(start: Starter, elsewhere: Path) -> None:
    for word in ("one", "two"):
        (elsewhere / word).mkdir()
        (elsewhere / word / "library.py").write_text(f"WORD = {word!r}\n")
    shutil.rmtree(elsewhere / "library")
    current, following = elsewhere / "current", elsewhere / "following"
    current.symlink_to("one")
    start.write("project.py", USES)
    server = serve(start, env=path(current))
    await_word(server, "one")
    settle(server, start)
    wait_until(lambda: rolls(server) == server.log.text.count("Detected"), "the old one serves")
    following.symlink_to("two")
    following.replace(current)
    await_word(server, "two")
    (elsewhere / "two" / "library.py").write_text("WORD = 'three'\n")
    await_word(server, "three")


def test_a_package_beside_a_module_is_watched_below_too(start: Starter, elsewhere: Path) -> None:
    (elsewhere / "module.py").write_text("")
    (elsewhere / "library" / "below").mkdir()
    word = elsewhere / "library" / "below" / "word.py"
    word.write_text("WORD = 'one'\n")
    (elsewhere / "library" / "__init__.py").write_text("from library.below.word import WORD\n")
    start.write("project.py", f"import module\n{USES}")
    server = serve(start, env=path(elsewhere))
    await_word(server, "one")
    word.write_text("WORD = 'two'\n")
    await_word(server, "two")


@pytest.mark.parametrize("beside", ["lib", "node_modules"])  # an excluded directory: each other is watched for itself
def test_a_directory_that_comes_again_is_watched_again(start: Starter, beside: str) -> None:
    write(start, "one")
    (start.cwd / beside).mkdir()
    module = write(start, "x", name="package/below/module.py")
    server = serve(start)
    settle(server, start)
    shutil.rmtree(start.cwd / "package")
    write(start, "y", name="package/below/module.py")
    settle(server, start)
    module.write_text("edited")
    server.wait_log(r"modified: package/below/module\.py")
    module.write_text("edited again")
    server.wait_log(r"modified: package/below/module\.py", count=2)


def test_a_root_that_comes_again_is_watched_again(start: Starter, elsewhere: Path) -> None:
    start.write("project.py", USES)
    server = serve(start, "--reload-dir", str(elsewhere), env=path(elsewhere))
    settle(server, start)
    shutil.rmtree(elsewhere)
    server.wait_log(rf"{elsewhere} has gone: it is looked for every 2 s")
    (elsewhere / "library").mkdir(parents=True)
    (elsewhere / "library" / "__init__.py").write_text("WORD = 'two'\n")
    wait_until(lambda: server.get().text == "two", "it is served")
    (elsewhere / "library" / "__init__.py").write_text("WORD = 'three'\n")
    await_word(server, "three")
    assert "files are looked at" not in server.log.text  # for the system tells of changes


@pytest.mark.parametrize(("how", "renamed"), [("cwd", "project"), ("chdir", "project/below")])
def test_a_directory_that_another_one_takes_the_place_of_is_left_for_it(start: Starter, how: str, renamed: str) -> None:
    write(start, "one", name="project/below/project.py")
    write(start, "two", name="new/below/project.py")
    place = start.cwd / "project" / "below"
    flags, at = ((), place) if how == "cwd" else (("--chdir", "project/below"), start.cwd)
    server = start.command(*MINICORN, "project:app", "--reload", "--bind", "127.0.0.1:0", *flags, cwd=at)
    await_word(server, "one")
    (start.cwd / renamed).rename(start.cwd / "old")
    (start.cwd / renamed.replace("project", "new")).rename(start.cwd / renamed)
    await_word(server, "two")
    server.wait_log(f"created: {place}")
    write(start, "three", name="project/below/project.py")
    await_word(server, "three")


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_directory_that_has_gone_is_told_and_awaited(start: Starter, how: str) -> None:
    write(start, "one", name="project/project.py")
    place = start.cwd / "project"
    server = start.command(*MINICORN, "project:app", "--reload", "--bind", "127.0.0.1:0", cwd=place)
    await_word(server, "one")
    write(start, "two", name="project/project.py")
    await_word(server, "two")
    if how == "renamed":
        place.rename(start.cwd / "old")
    else:
        shutil.rmtree(place)
    server.wait_log(f"{place} has gone: it is looked for every 2 s")
    assert "No such file or directory" in await_status(server, 500).text
    write(start, "three", name="project/project.py")
    wait_until(lambda: get(server).text == "three", "it is served")
    write(start, "four", name="project/project.py")
    await_word(server, "four")
    assert "the watcher" not in server.log.text


def test_symlinks_that_lead_nowhere_hide_no_other_file(start: Starter) -> None:
    # As emacs locks a file, and one that has lost its file: neither ends the look at their directory
    write(start, "one")
    for name in (".#project.py", "aaa.py", "lost.py", "zzz.py"):
        (start.cwd / name).symlink_to("nobody@nowhere.1234")
    server = serve(start)
    settle(server, start)
    (start.cwd / "project.py").touch()
    settle(server, start)
    assert "project.py" not in server.log.text
    write(start, "two")
    await_word(server, "two")


def test_an_editable_install_is_watched(start: Starter, elsewhere: Path) -> None:
    venv.create(start.cwd / ".venv", symlinks=True)
    (site,) = (start.cwd / ".venv").glob("lib/*/site-packages")
    # What an editable install is: a .pth file that names the project; and what watchdog is found by here
    (site / "__editable__.library-1.pth").write_text(f"{elsewhere}\n")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    start.write("project.py", USES)
    python = str(start.cwd / ".venv" / "bin" / "python")
    server = start.command(python, "-m", "minicorn", "project:app", "--reload", "--bind", "127.0.0.1:0")
    server.wait_ready()
    (elsewhere / "library" / "__init__.py").write_text("WORD = 'two'\n")
    await_word(server, "two")


def test_a_package_that_was_installed_anew_is_imported_anew(
    start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("base")
    site = base / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / "library.py").write_text("WORD = 'one'\n")
    start.write("project.py", USES)
    server = serve(start, "--log-level", "debug", env=path(site) | {"PYTHONUSERBASE": str(base)})
    server.wait_log("imported for all workers to come: .* library")
    server.wait_log("template .* is up")
    (site / "library.new").write_text("WORD = 'two'\n")
    (site / "library.new").replace(site / "library.py")
    settle(server, start)
    await_word(server, "two")
    # What has been imported anew is shared again
    server.wait_log("imported for all workers to come: .* library", count=2)


def test_a_unix_socket_is_held_through_edits(start: Starter) -> None:
    write(start, "one")
    server = start("project:app", "--reload", "--bind", "unix:here.sock", bind=False)
    socket = start.cwd / "here.sock"
    inode = socket.stat().st_ino

    def says(word: str) -> bool:
        reply = server.get(at=socket)
        assert reply.status == 200, reply.text
        return reply.text == word

    for word in ("two", "three"):
        write(start, word)
        wait_until(lambda word=word: says(word), f"{word} is served")
    assert server.get("/boom", at=socket).status == 500
    assert "as the path says" in server.get("/boom", at=socket).text  # who comes by a Unix socket is on this machine
    assert socket.stat().st_ino == inode


@contextmanager
def mirrored(source: Path, place: Path) -> Iterator[None]:
    """`source` at `place` too, by a file system that tells the kernel of no change made elsewhere."""
    place.mkdir()
    process = subprocess.Popen(["bindfs", "-f", str(source), str(place)])
    try:
        wait_until(lambda: place.is_mount(), "it is mounted")
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(place)], check=True)
        process.terminate()  # a server that has not ended holds it
        process.wait()


@pytest.mark.skipif(not (shutil.which("bindfs") and shutil.which("fusermount3")), reason="there is no bindfs here")
def test_a_mount_whose_changes_come_from_elsewhere_is_polled(start: Starter, tmp_path_factory) -> None:
    write(start, "one")
    place = tmp_path_factory.mktemp("shared") / "project"
    with mirrored(start.cwd, place):
        server = start.command(*MINICORN, "project:app", "--reload", "--bind", "127.0.0.1:0", cwd=place)
        server.wait_log("files are looked at every 2 s, as the system cannot tell of changes: .* is on fuse")
        await_word(server, "one")
        write(start, "two")
        fresh = write(start, "x", name="fresh/module.py")
        await_word(server, "two")
        server.wait_log(r"fresh/module\.py")  # created, or newer than the server if this is its first look
        fresh.unlink()
        server.wait_log(r"deleted: fresh/module\.py")
        server.stop()


def limited(limit: str, number: int) -> tuple[str, ...]:
    """In front of a command: it is given so many of what inotify has."""
    set_limit = f'echo {number} > /proc/sys/user/{limit} && exec "$@"'
    alone = ("unshare", "-r", "sh", "-c", set_limit, "sh")
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not to be had")
    return alone


@pytest.mark.parametrize(("limit", "number"), [("max_inotify_instances", 0), ("max_inotify_watches", 2)])
def test_where_inotify_cannot_work_files_are_polled(start: Starter, limit: str, number: int) -> None:
    write(start, "one")
    for package in range(4):
        write(start, "x", name=f"package{package}/module.py")
    server = start.command(*limited(limit, number), *MINICORN, "project:app", "--bind", "127.0.0.1:0", "--reload")
    server.wait_log("files are looked at every 2 s")
    write(start, "two")
    await_word(server, "two")


@pytest.mark.parametrize("beside", ["lib", "node_modules"])  # an excluded directory: each other is watched for itself
def test_where_watches_run_out_files_are_polled_from_then_on(start: Starter, beside: str) -> None:
    write(start, "one")
    (start.cwd / beside).mkdir()
    alone = limited("max_inotify_watches", 30)
    server = start.command(*alone, *MINICORN, "project:app", "--bind", "127.0.0.1:0", "--reload")
    await_word(server, "one")
    assert "files are looked at" not in server.log.text
    for number in range(40):
        write(start, "x", name=f"late{99 - number}/module.py")
    server.wait_log("files are looked at every 2 s, as the system cannot tell of changes: inotify watch limit reached")
    write(start, "two")
    await_word(server, "two")
    write(start, "x", name="late60/fresh.py")  # the last one, and the first that is named, whatever is seen with it
    server.wait_log(r"created: late60/fresh\.py")
    assert server.log.text.count("files are looked at") == 1
