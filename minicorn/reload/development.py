"""--reload in a worker: the application as it can be had, and who is answered by which code.

    answering   by our code, the error page where it raises; whoever asks for newer code waits
    holding     the code is out of date: nobody is answered, all are kept for the new workers
    excusing    the new code takes long: browsers are told so, others are kept
    parting     we retire: who can travel is kept for a new worker, others are answered by the old code

Production runs none of this: where --reload is on, `Development` stands between loop and server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from minicorn.config.settings import Settings
from minicorn.http.request import Request
from minicorn.pool.life import PLACEHOLDER
from minicorn.reload import page
from minicorn.reload.failure import from_exception
from minicorn.reload.imports import distrust_fresh_bytecode, mind_debuggers
from minicorn.reload.page import Failure
from minicorn.reload.showing import FailurePage, Front, WaitingPage, is_local
from minicorn.serving.connection import Connection
from minicorn.serving.loader import explain, load_app
from minicorn.serving.loop import Loop
from minicorn.serving.post import Post
from minicorn.system import channel
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def load(settings: Settings, post: Post) -> WSGIApplication:
    """The application, or one that shows why it cannot be loaded."""
    doing = f"importing {settings.app}"
    distrust_fresh_bytecode()
    mind_debuggers(lambda: post.channel.send(channel.DEBUGGING))
    if post.failure:
        headline, _, stack = post.failure.partition("\n")
        return FailurePage(Failure(doing, headline, stack or headline), post.generation)
    try:
        return load_app(settings.app)
    except BaseException as error:  # SystemExit too
        post.channel.send(channel.FAILED, explain(error))
        return FailurePage(from_exception(doing, error), post.generation)


class Development:
    """Stands between the loop of one server and its answers."""

    def __init__(
        self,
        app: WSGIApplication,
        settings: Settings,
        generation: int,
        loop: Loop,
        answer: Callable[[Connection], None],
    ) -> None:
        """`answer` gives a request to `self.app`: `app` behind what --reload puts in front."""
        self.app = Front(app)
        self.on_imports: Callable[[], None] = lambda: None  # called when a request has imported more
        self._settings = settings
        self._generation = generation
        self._loop = loop
        self._give = answer
        self._modules = 0
        self._stage: Callable[[Connection], None]
        self._stage = self._excuse_or_keep if generation == PLACEHOLDER else self._answer_or_keep

    def dispatch(self, connection: Connection) -> None:
        """A complete request: answer it or keep it."""
        self._stage(connection)

    def hold(self) -> None:
        """Answer nothing more, and keep who asks, as the code is out of date."""
        self._stage = self._loop.keep
        self._loop.hold()

    def excuse(self) -> None:
        """Tell browsers, after `hold`, that the new code takes long; others are kept on."""
        self.app.app = WaitingPage(self._generation)
        self._enter(self._excuse_or_keep)

    def give_held(self) -> None:
        """Give away those who are kept, as there is somebody to have them; even if the application is busy here."""
        if self._loop.holding:
            self._loop.give_all()

    def part(self, closing: bool) -> None:
        """Retire; `closing`: nobody comes after this server to answer those who are kept."""
        self._enter(self._answer if closing else self._answer_who_stays)

    @property
    def gives_all(self) -> bool:
        """Whether a connection that is taken now would come to the new code: under TLS it would have to stay."""
        return not self._settings.certfile

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        """The media type and the page that shows what the application has raised, to a client that may see it."""
        if not self.app.sees or not self._settings.debug_page:
            return "text/plain", ""
        shown = from_exception(f"{request.method} {request.target}", error)
        return page.render(shown, request.meta.get("HTTP_ACCEPT", ""), self._generation)

    def _enter(self, stage: Callable[[Connection], None]) -> None:
        self._stage = stage
        self._loop.go_on()

    def _answer_or_keep(self, connection: Connection) -> None:
        """Answer, but keep whoever asks for newer code than ours, until our successor has the connection."""
        request = connection.request
        assert request is not None
        if request.target == f"{page.NEWER}{self._generation}" and not self._loop.closing:
            self._loop.dismiss_gone()  # pages that were left, or loaded again by hand
            self._loop.keep(connection)
            return
        self._answer(connection)
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self.on_imports()

    def _answer_who_stays(self, connection: Connection) -> None:
        """Answer, by the code that is out of date, those whom our successor cannot have."""
        if connection.parcel() is not None:
            self._loop.keep(connection)
        else:
            self._answer(connection)

    def _excuse_or_keep(self, connection: Connection) -> None:
        request = connection.request
        assert request is not None
        if request.method == "GET" and "text/html" in request.meta.get("HTTP_ACCEPT", ""):
            self._answer(connection)
        else:
            self._loop.keep(connection)

    def _answer(self, connection: Connection) -> None:
        request = connection.request
        assert request is not None
        told = is_local(connection.peer, request.aside, request.meta.get("HTTP_HOST", ""))
        self.app.sees = self._settings.debug_page_remote or told
        self._give(connection)
