"""What --reload puts in front of the application, or in its place: the error page, and the path that waits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from minicorn.http.peers import is_loopback, is_ours
from minicorn.reload import page

HIDDEN = page.Failure("the application", "Internal Server Error", "The log has the traceback.")
# It tells pages of this server from those of one before it: the arbiter imports this, and forks the rest
RUN = f"{time.time_ns():x}"
# In environ: whether the client may see tracebacks
SEES = "minicorn.sees_tracebacks"


class Front:
    """The application, but for the path that tells of newer code: whoever asks for it has waited long enough."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app
        self.sees = False  # for the request at hand

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(page.NEWER):
            start_response("204 No Content", [("Cache-Control", "no-store")])
            return []
        environ[SEES] = self.sees
        return self.app(environ, start_response)


class FailurePage:
    """Answers in place of an application that cannot be loaded: status 500, and why, for whoever may see it."""

    def __init__(self, failure: page.Failure, generation: int) -> None:
        self._failure = failure
        self._code = name_code(generation)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        shown = self._failure if environ[SEES] else HIDDEN
        kind, text = page.render(shown, environ.get("HTTP_ACCEPT", ""), self._code)
        return _reply("500 Internal Server Error", kind, text, start_response)


class WaitingPage:
    """Tells a browser that has waited long for new code, by a page that refreshes itself."""

    def __init__(self, generation: int) -> None:
        self._text = page.render_waiting(name_code(generation))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _reply("503 Service Unavailable", "text/html", self._text, start_response)


def name_code(generation: int) -> str:
    """What a page calls the code that it shows."""
    return f"{generation}-{RUN}"


def _reply(status: str, kind: str, text: str, start_response: StartResponse) -> Iterable[bytes]:
    content = text.encode("utf-8", "backslashreplace")
    fields = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(content)))]
    start_response(status, [*fields, ("Cache-Control", "no-store")])
    return [content]


def is_local(peer: str, aside: Iterable[str], host: str) -> bool:
    """Whether the client is on this machine: neither its address nor a proxy's field lines, believed
    or not, tell of another. A browser on it that asks for a `host` of somebody else's speaks for that
    one, whose page has made it ask and whose name leads here (DNS rebinding)."""
    told, hosts = [peer], [host]
    for name, _, value in (line.partition(":") for line in aside):
        if name.lower() == "forwarded":
            return False
        if name.lower() in ("x-forwarded-for", "x-real-ip"):
            told += value.split(",")
        if name.lower() == "x-forwarded-host":
            hosts += value.split(",")
    return all(is_loopback(address.strip()) for address in told) and all(is_ours(each.strip()) for each in hosts)
