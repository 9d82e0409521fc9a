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
from minicorn.logs.explanation import explain
from minicorn.pool.life import PLACEHOLDER
from minicorn.reload import page
from minicorn.reload.failure import from_exception
from minicorn.reload.imports import distrust_fresh_bytecode, mind_debuggers
from minicorn.reload.page import Failure
from minicorn.reload.showing import FailurePage, Front, WaitingPage, is_local, name_code
from minicorn.serving.connection import Connection
from minicorn.serving.custody import Custody
from minicorn.serving.loader import load_app
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
        custody: Custody,
        answer: Callable[[Connection], None],
    ) -> None:
        """`answer` gives a request to `self.app`: `app` behind what --reload puts in front."""
        self.app = Front(app)
        self.on_imports: Callable[[], None] = lambda: None  # called when a request has imported more
        self._settings = settings
        self._generation = generation
        self._custody = custody
        self._give = answer
        self._modules = 0
        self._stage: Callable[[Connection], None]
        self._stage = self._excuse_or_keep if generation == PLACEHOLDER else self._answer_or_keep

    def dispatch(self, connection: Connection) -> None:
        """A complete request: answer it or keep it."""
        self._stage(connection)

    def hold(self) -> None:
        """Answer nothing more, and keep who asks, as the code is out of date."""
        if self._custody.hold():
            self._stage = self._custody.keep

    def excuse(self) -> None:
        """Tell browsers, after `hold`, that the new code takes long; others are kept on."""
        if self._custody.go_on():
            self.app.app = WaitingPage(self._generation)
            self._stage = self._excuse_or_keep

    def give_held(self) -> None:
        """Give away those who are kept, as there is somebody to have them; even if the application is busy here."""
        self._custody.give_held()

    def part(self) -> None:
        """Keep, as the server retires, whom its successor can have."""
        self._stage = self._answer_who_stays

    def finish(self) -> None:
        """Answer everybody, as the whole server ends and nobody comes after it."""
        self._stage = self._answer

    @property
    def gives_all(self) -> bool:
        """Whether a connection that is taken now would come to the new code: under TLS it would have to stay."""
        return not self._settings.certfile

    def explain(self, error: BaseException, request: Request) -> tuple[str, str]:
        """The media type and the page that shows what the application has raised, to a client that may see it."""
        if not self.app.sees or not self._settings.debug_page:
            return "text/plain", ""
        shown = from_exception(f"{request.method} {request.target}", error)
        return page.render(shown, request.meta.get("HTTP_ACCEPT", ""), name_code(self._generation))

    def _answer_or_keep(self, connection: Connection) -> None:
        """Answer, but keep whoever asks for newer code than ours, until our successor has the connection."""
        request = connection.request
        assert request is not None
        if request.target == page.NEWER + name_code(self._generation):
            self._custody.dismiss_gone()  # pages that were left, or loaded again by hand
            self._custody.keep(connection)
            return
        self._answer(connection)
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self.on_imports()

    def _answer_who_stays(self, connection: Connection) -> None:
        """Answer, by the code that is out of date, those whom our successor cannot have."""
        if connection.parcel() is not None:
            self._custody.keep(connection)
        else:
            self._answer(connection)

    def _excuse_or_keep(self, connection: Connection) -> None:
        request = connection.request
        assert request is not None
        if request.method == "GET" and "text/html" in request.meta.get("HTTP_ACCEPT", ""):
            self._answer(connection)
        else:
            self._custody.keep(connection)

    def _answer(self, connection: Connection) -> None:
        request = connection.request
        assert request is not None
        told = is_local(connection.peer, request.aside, request.meta.get("HTTP_HOST", ""))
        self.app.sees = self._settings.debug_page_remote or told
        self._give(connection)
