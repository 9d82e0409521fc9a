"""The monitor's page in a real browser: looked at, clicked through, light and dark, wide and on a telephone."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import pytest
from chromium import CHROMIUM, Page, browser
from harness import Server, Starter, wait_until
from load import Load

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

# Elements whose text is wider than its place, and charts without a line
CROWDED = """
[...document.querySelectorAll("h1, h2, b, .card span, .doing, .facts, footer, li")]
  .filter(e => e.offsetParent && getComputedStyle(e).textOverflow !== "ellipsis" && e.scrollWidth > e.clientWidth + 1
    && e.clientWidth).map(e => e.textContent)
"""
BLANK = """
[...document.querySelectorAll("svg")]
  .filter(e => ![...e.querySelectorAll("path[stroke]")].some(line => /[Lh]/.test(line.getAttribute("d"))))
  .map(e => e.id)
"""
WINDOWS = [(width, height, scheme) for width, height in ((1200, 900), (390, 844)) for scheme in ("light", "dark")]
# Of the text and its ground, 0 to 255
SHADES = """
[document.body, document.querySelector(".card")].map(e => getComputedStyle(e)).map(style =>
  [style.color, style.backgroundColor].map(colour =>
    colour.match(/[0-9]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3))
"""


def shown(page: Page, selector: str) -> list[str]:
    """The texts of all such elements."""
    texts = page.ask(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")
    assert isinstance(texts, list)
    return texts


@contextmanager
def monitored(start: Starter) -> Iterator[tuple[Server, str, Page]]:
    server = start("plain:app", "--workers", "2", "--name", "shop", "--monitor", "127.0.0.1:0")
    url = server.wait_log(r"Monitor on (http://127\.0\.0\.1:\d+)")[1] + "/"
    with browser() as page:
        page.open(url)
        yield server, url, page


def test_the_page_shows_what_happens_and_leads_to_the_rest(start: Starter) -> None:
    with monitored(start) as (server, url, page):
        wait_until(lambda: shown(page, "#badge") == ["ready"], "it is ready")
        assert shown(page, "h1") == ["shop"]
        assert shown(page, "#errors li") == ["none"]
        _, pid = server.begin("/hold?order=7")
        assert server.get("/fail").status == 500
        wait_until(lambda: any("GET /fail" in text for text in shown(page, "#errors li")), "the error is shown")
        wait_until(lambda: "busy" in shown(page, ".lane .state"), "somebody is busy")
        (lane,) = (text for text in shown(page, ".lane") if "busy" in text)
        assert f"in GET /hold?order=7 for 127.0.0.1{pid} " in lane
        wait_until(lambda: not page.ask(BLANK), "all charts are drawn")
        for name, content in (("metrics", "# TYPE minicorn_"), ("status", '"ready": true'), ("ready", "ready")):
            page.click(f"footer a[href={name}]")
            wait_until(lambda name=name: page.ask("location.href") == url + name, f"the browser is at {name}")
            wait_until(lambda content=content: content in str(page.ask("document.body.innerText")), f"{name} is read")
            page.open(url)
        server.release()
        server.signal(SIGTERM)
        wait_until(lambda: server.process.poll() is not None or shown(page, "#badge") == ["no answer"], "it ends")
        wait_until(lambda: shown(page, "#badge") == ["no answer"], "the page tells that nobody answers")


def test_the_page_is_whole_under_load_for_every_eye(start: Starter) -> None:
    pictures = os.environ.get("PICTURES")  # a folder, for who wants to see for himself
    with monitored(start) as (server, _, page), Load(server.port, 2, pause=0.01):
        for _ in range(3):
            server.get("/fail")
        wait_until(lambda: any(re.match("[1-9]", text) for text in shown(page, "#figures b")[:1]), "requests are shown")
        for width, height, scheme in WINDOWS:
            page.dress(width, height, scheme)
            wait_until(lambda width=width: page.ask("document.documentElement.clientWidth") == width, "it is dressed")
            wait_until(lambda: not page.ask(BLANK), "all charts are drawn")
            assert page.ask("document.documentElement.scrollWidth") == width
            assert page.ask(CROWDED) == []
            shades = page.ask(SHADES)
            assert isinstance(shades, list)
            assert all((ink > ground) == (scheme == "dark") and abs(ink - ground) > 150 for ink, ground in shades)
            if pictures:
                page.picture(Path(pictures) / f"{width}-{scheme}.png")
        assert page.messages == []
