"""Chromium without a head, driven over a pipe by its DevTools protocol: pages looked at, clicked and pictured."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
# What is asked of a page that is being left has no answer
_ELSEWHERE = "navigated or closed"


class Page:
    """One page; `messages` are what its console and its errors have said."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.messages: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: object) -> dict:
        """Do `method`, and give its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.messages.append(json.dumps(answer["params"]))
            if answer.get("id") == self._number:
                if _ELSEWHERE in answer.get("error", {}).get("message", ""):
                    return {"result": {}}
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._answers, 65536)
            assert data, "the browser has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def open(self, url: str) -> None:
        """Go there, and wait until its document is loaded."""
        self.send("Page.navigate", url=url)
        wait_until(
            lambda: self.ask("document.readyState === 'complete' && location.href") == url, f"{url} is loaded", 60
        )

    def ask(self, expression: str) -> object:
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def dress(self, width: int, height: int, scheme: str = "light") -> None:
        """A window of this size, for somebody who prefers this colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def click(self, selector: str) -> None:
        """Click on the element, which must be where its middle is; in one step, for a living page moves."""
        hit = self.ask(f"""(e => {{
            e.scrollIntoView();
            const place = e.getBoundingClientRect();
            if (document.elementFromPoint(place.x + place.width / 2, place.y + place.height / 2) !== e) return false;
            e.click();
            return true;
        }})(document.querySelector({json.dumps(selector)}))""")
        assert hit, f"something lies over {selector}"

    def picture(self, file: Path) -> None:
        """All of the page as a PNG."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A browser with one page."""
    (read, commands), (answers, write) = os.pipe(), os.pipe()
    # It reads descriptor 3 and writes 4
    steps = f'exec 3<&{read} 4>&{write} && exec "$@"'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["bash", "-c", steps, "bash", str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        try:
            yield Page(commands, answers)
        finally:
            process.terminate()
            process.wait()
            os.close(commands)
            os.close(answers)
