"""What the arbiter's children do: serve the application, or import for those who will.

Each of these runs in the child, from its fork to its end, with the settings that held at the fork.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from minicorn.config.settings import Settings
from minicorn.errors import AppLoadError
from minicorn.logs.logger import LOGGER
from minicorn.logs.logs import Logs
from minicorn.pool.life import PLACEHOLDER
from minicorn.server import Server
from minicorn.serving.loader import load_app, mount
from minicorn.serving.post import Post
from minicorn.serving.seat import Seat
from minicorn.serving.worker import Worker
from minicorn.system import channel, spawn
from minicorn.system.surroundings import provide
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # of templates: imported where there are any
    from minicorn.reload.groundwork import Groundwork
    from minicorn.serving.template import Boot


class Offspring:
    """The children of one arbiter."""

    def __init__(self, logs: Logs, called_in: str) -> None:
        """`called_in`: the directory in which the server was called, symlinks in it kept."""
        self._logs = logs
        self._called_in = called_in
        # The real path, as `python -m` puts it into sys.path: it may be that of a release that has gone by now
        self._began_in = os.getcwd()

    def worker(self, post: Post, settings: Settings) -> int:
        """A worker that imports the application itself; a placeholder has just its page."""
        app = None
        if post.generation == PLACEHOLDER:
            from minicorn.reload.showing import WaitingPage

            app = WaitingPage(PLACEHOLDER)
        return Worker(post, settings, self._logs, partial(self._enter, settings), app).run()

    def template(self, ground: Groundwork | None, post: Post, settings: Settings) -> int:
        """A template: of the application, or with --reload of what is not the project's."""
        from minicorn.serving.template import Template

        def prepare() -> Boot:
            return self._lay(ground, post, settings) if ground else self._preload(post, settings)

        code = Template(post, prepare, self._logs, settings.title).run()
        if not settings.refork_after:  # else those that are forked of its workers go on using them
            spawn.end_processes()
        return code

    def _preload(self, post: Post, settings: Settings) -> Boot:
        """Import the application and make the warm-up requests (--preload); gives what the template's workers run."""
        from minicorn.serving.forksafety import Watch

        enter = partial(self._enter, settings)
        enter()
        watch = Watch()
        with watch.watching():
            app = load_app(settings.app)
            post.take_stack()
            server = Server(mount(app), settings=settings, bound=post.listeners, seat=Seat(page=post.page))
            server.warm_up()
            server.shutdown()
        findings = watch.findings()
        for finding in findings:
            LOGGER.warning("--preload: %s", finding)
        if findings and settings.preload_strict:
            raise AppLoadError(f"--preload-strict: {len(findings)} found that a fork breaks or shares, told above")

        def boot(post: Post) -> int:
            return Worker(post, settings, self._logs, enter, app, promote if settings.refork_after else None).run()

        def promote(post: Post) -> int:
            from minicorn.serving.template import Template

            return Template(post, lambda: boot, self._logs, settings.title).run()

        return boot

    def _lay(self, ground: Groundwork, post: Post, settings: Settings) -> Boot:
        """Import what is not the project's (--reload); gives what the template's workers run."""
        self._leave()
        post.channel.send(channel.REFUSED, ground.lay())
        return lambda post: self.worker(post, settings)

    def _enter(self, settings: Settings) -> None:
        """Make this process's surroundings those of the application that is about to be imported; each
        does so anew, so that a release behind a symlink is seen."""
        self._leave()
        # What the arbiter has seen of directories and zip files, when it imported from beside the application.
        # importlib.invalidate_caches() would do so as well, but imports importlib.metadata, which is dear
        for finder in sys.path_importer_cache.values():
            if finder is not None and hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()
        directory = settings.directory(self._called_in)
        provide(settings, directory)
        os.chdir(directory)

    def _leave(self) -> None:
        """Import nothing any more from where the arbiter began."""
        sys.path[:] = [entry for entry in sys.path if entry not in ("", self._began_in)]
