"""The pages of --reload in a real browser: they load themselves again, by nobody's hand."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import chromium
import pytest
from harness import Server, Starter, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

APP = """
import pathlib
{extra}

def app(environ, start_response):
    if "Chrome" in environ.get("HTTP_USER_AGENT", ""):
        pathlib.Path("visited").write_text({word!r})
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<title>mended</title>"]
"""


@contextmanager
def browser(server: Server) -> Iterator[None]:
    """Chromium, that looks at the server's first page and stays there."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.port}/"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def test_the_error_page_loads_itself_again_when_the_code_is_mended(start: Starter) -> None:
    start.write("project.py", APP.format(extra="nothing_of_this_name", word="none"))
    server = start("project:app", "--reload", "--access-logfile", "-")
    with browser(server):
        # The path that waits is logged when it is answered: its page has been loaded before
        server.output.wait(r'"GET / HTTP/1.1" 500 .*Chrome', 1, 60)
        start.write("project.py", APP.format(extra="another_unknown", word="none"))
        server.output.wait(r'"GET / HTTP/1.1" 500 .*Chrome', 2, 30)
        start.write("project.py", APP.format(extra="", word="mended"))
        visited = start.cwd / "visited"
        wait_until(lambda: visited.exists() and visited.read_text() == "mended", "the browser is back", 30)


def test_tabs_that_are_not_looked_at_keep_no_other_tab_waiting(start: Starter) -> None:
    start.write("project.py", APP.format(extra="nothing_of_this_name", word="none"))
    server = start("project:app", "--reload", "--access-logfile", "-")
    with chromium.browser() as page:
        tabs = []
        for number in range(7):  # one more than a browser has connections to a server
            url = f"http://127.0.0.1:{server.port}/{number}"
            tabs.append(page.send("Target.createTarget", url=url)["targetId"])
            server.output.wait(f'"GET /{number} HTTP/1.1" 500', 1, 30)
        start.write("project.py", APP.format(extra="", word="mended"))
        server.output.wait('"GET /6 HTTP/1.1" 200', 1, 30)
        assert '"GET /0 HTTP/1.1" 200' not in server.output.text
        page.send("Target.activateTarget", targetId=tabs[0])
        server.output.wait('"GET /0 HTTP/1.1" 200', 1, 30)
