"""The monitor: a child that serves figures of the server, with minicorn's own server, and sends statsd.

It reads the same mapped files as `minicornctl`; no worker and no request notices. It ends with
its channel; when it dies it is started again, and nobody else is concerned.

Where only this machine reaches it, it answers only who asks for this machine: a browser here may
have a page of somebody else's, whose name leads here (DNS rebinding), and must not read for it.
"""

from __future__ import annotations

import json
import pkgutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from minicorn.config.address import Tcp
from minicorn.config.settings import Settings
from minicorn.errors import ExitCode
from minicorn.figures import metrics, statsd, survey
from minicorn.figures.document import document, sample
from minicorn.figures.snapshot import Snapshot
from minicorn.figures.usage import with_usage
from minicorn.http.peers import is_ours, parse_ip
from minicorn.logs.logger import LOGGER
from minicorn.record import replace
from minicorn.server import Server
from minicorn.system.channel import Channel
from minicorn.system.listeners import Listener
from minicorn.system.title import set_title

# Seconds between two samples, and how many of them the page is given
EVERY, HISTORY = 1.0, 300
_JSON, _HTML, _TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
# The page may load nothing but what it holds itself
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"

Reply = tuple[str, str, str]  # status, type, content


class Monitor:
    """One monitor, from its fork to its end."""

    def __init__(self, settings: Settings, listener: Listener | None, directory: str, line: Channel) -> None:
        """Without a `listener` it sends statsd only. `directory` is the server's."""
        self._settings = settings
        self._directory = Path(directory)
        self._line = line
        self._history: deque[dict[str, object]] = deque(maxlen=HISTORY)
        self._cpu = 0.0
        self._guards = listener is not None and listener.port > 0 and not settings.monitor_allow
        bound = [listener] if listener is not None else []
        # What the operator has chosen for the application's clients is not meant for the monitor's
        self._server = Server(self._answer, settings=Settings(handoff_after=0, max_body_size=1), bound=bound)
        self._pages: dict[str, Callable[[], Reply]] = {
            "/": self._page,
            "/metrics": lambda: ("200 OK", metrics.CONTENT_TYPE, metrics.render(self._look(), time.time())),
            "/status": lambda: ("200 OK", _JSON, json.dumps(document(self._look()))),
            "/ready": self._ready,
            "/live": self._live,
        }

    def run(self) -> int:
        """The whole life; the exit code."""
        set_title(f"minicorn: monitor [{self._settings.title}]")
        self._server.watch(self._line.fd, self._listen)
        threading.Thread(target=self._sample, daemon=True).start()
        self._server.serve()
        return ExitCode.OK

    def _listen(self) -> None:
        if not self._line.receive()[1]:
            self._server.unwatch(self._line.fd)
            self._server.signal_exit()

    def _look(self) -> Snapshot:
        snapshot = with_usage(survey.look(self._directory))
        # A worker that is reaped between the readings of both is in neither sum: the total must not go back for it
        self._cpu = max(self._cpu, snapshot.cpu)
        return replace(snapshot, cpu_at_least=self._cpu)

    # Serving

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._guards and not self._is_meant(environ.get("HTTP_HOST", "")):
            status, kind, content = "421 Misdirected Request", _TEXT, "ask by an address, or add --monitor-allow\n"
        else:
            status, kind, content = self._find(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        data = content.encode()
        headers = [("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store")]
        if kind == _HTML:
            headers.append(("Content-Security-Policy", _POLICY))
        start_response(status, headers)
        return [data]

    def _is_meant(self, host: str) -> bool:
        """Whether a Host field asks for this machine: by any address of its, or a name that nobody can register."""
        name = host.partition(":")[0]
        bound = self._settings.monitor
        return is_ours(host) or parse_ip(name) is not None or (isinstance(bound, Tcp) and name == bound.host)

    def _find(self, method: str, path: str) -> Reply:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", _TEXT, "GET or HEAD\n"
        if path not in self._pages:
            return "404 Not Found", _TEXT, f"there are {' '.join(self._pages)}\n"
        try:
            return self._pages[path]()
        except (OSError, ValueError) as error:  # the server ends at this moment
            return "503 Service Unavailable", _TEXT, f"nothing to be seen: {error}\n"

    def _ready(self) -> Reply:
        reason = survey.look(self._directory).unready
        return ("503 Service Unavailable", _TEXT, f"{reason}\n") if reason else ("200 OK", _TEXT, "ready\n")

    def _live(self) -> Reply:
        silence = survey.look(self._directory).silence
        text = f"the arbiter has not been heard for {silence:.0f} s\n" if silence else "alive\n"
        return "503 Service Unavailable" if silence else "200 OK", _TEXT, text

    def _page(self) -> Reply:
        html = (pkgutil.get_data(__name__, "monitor.html") or b"").decode()  # minicorn may be in a zip file
        # Escaped, so that nothing in it ends the script element around it
        history = json.dumps(list(self._history)).replace("<", "\\u003c")
        return "200 OK", _HTML, html.replace("/*HISTORY*/[]", history)

    # Sampling

    def _sample(self) -> None:
        """Take a sample each second, for the page and for statsd; runs in a thread of its own."""
        before: Snapshot | None = None
        lost = ""
        while True:
            try:
                now = survey.look(self._directory)
            except (OSError, ValueError) as error:  # the server ends at this moment
                LOGGER.debug("monitor: %s", error)
            else:
                self._history.append(sample(now, time.time()))
                if before is not None and self._settings.statsd_host is not None:
                    lost = self._send(before, now, lost)
                before = now
            time.sleep(EVERY)

    def _send(self, before: Snapshot, now: Snapshot, lost: str) -> str:
        """Send what has changed; gives why that fails, or "". It is told where it is not as before, `lost`."""
        place = str(self._settings.statsd_host)
        host, _, port = place.rpartition(":")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as out:
                for data in statsd.datagrams(before, now, self._settings.statsd_prefix, self._settings.dogstatsd_tags):
                    out.sendto(data, address)
        except (OSError, ValueError) as error:  # nobody has that name, or there is no way
            if str(error) != lost:
                LOGGER.warning("cannot send to statsd at %s: %s", place, error)
            return str(error)
        return ""
