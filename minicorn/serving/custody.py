"""What becomes of all connections of a process at once, as it changes its stance to its clients.

The loop moves one connection after the other, as its stance has it; here is what those need that have
not moved: who rests is woken, who is between two requests is closed, given away or left unread. The
thread that serves calls this, or the helper while that is in the application: whoever has the loop.
"""

from __future__ import annotations

import time

from minicorn.config.settings import Settings
from minicorn.errors import ClientGone
from minicorn.serving.connection import Connection
from minicorn.serving.loop import Loop
from minicorn.serving.stance import CLOSING, HOLDING, LEAVING, MOVES, SERVING, Stance
from minicorn.serving.state import APP, HEAD, IDLE, KEPT


class Custody:
    """The custody of one loop's connections."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        self._loop = loop
        self._settings = settings

    # Stances; each tells whether it was taken

    def hold(self) -> bool:
        """Take nothing new, and read nothing more of those between requests."""
        if not self._enter(HOLDING):
            return False
        self._loop.intake.stop()
        self.end_idle()
        for connection in self._loop.connections.values():
            if connection.state in (HEAD, IDLE):
                self._loop.rest(connection)
        return True

    def go_on(self) -> bool:
        """End the hold, and answer what was kept after all."""
        if not self._enter(SERVING):
            return False
        self._loop.intake.start()
        return True

    def leave(self) -> bool:
        """Let siblings have the connections, as soon as each can go."""
        return self._enter(LEAVING)

    def seal(self) -> bool:
        """Give nothing away any more, and keep nobody behind a reply, as the whole server ends."""
        return self._enter(CLOSING)

    def _enter(self, stance: Stance) -> bool:
        if stance not in MOVES[self._loop.stance]:
            return False
        self._loop.stance = stance
        if stance is not HOLDING:
            self._wake()
        return True

    # Left alone, for a while

    def keep(self, connection: Connection) -> None:
        """Leave its request unanswered, until the next stance or until somebody else has it; a dispatch."""
        self._loop.rest(connection)

    def dismiss_gone(self) -> None:
        """Let go of those whose request is kept and who do not wait any more."""
        for connection in list(self._loop.connections.values()):
            if connection.state is KEPT and connection.is_gone:
                self._loop.lose(connection, ClientGone("it did not wait"))

    def _wake(self) -> None:
        now = time.monotonic()
        for connection in self._loop.connections.values():
            if not (connection.interest or connection.state is APP):  # which is in the middle of a reply
                if connection.wake(now):
                    self._loop.turns.append(connection)
                self._loop.poll_for(connection)

    # Let go

    def give_held(self) -> None:
        """Give away all that are held, as there is somebody to have them; even if the application is busy here."""
        if self._loop.stance is HOLDING:
            self.give_all()

    def give_all(self) -> None:
        """Give away what can be given; the rest stays with us and is served."""
        for connection in list(self._loop.connections.values()):
            self._loop.give(connection)

    def close_idle(self) -> None:
        """Close the connections between requests."""
        for connection in list(self._loop.connections.values()):
            if connection.state is IDLE:
                self._loop.drop(connection)

    def end_idle(self, fresh: float = 0.0) -> None:
        """Close the connections between requests that nobody else can have; but who was answered less
        than `fresh` seconds ago has as long to ask again, for that may be on its way."""
        now = time.monotonic()
        for connection in list(self._loop.connections.values()):
            if connection.state is IDLE and not connection.travels and not connection.has_unread():
                answered = connection.deadline - self._settings.keep_alive
                connection.deadline = min(connection.deadline, answered + fresh)
                if connection.deadline <= now:
                    self._loop.drop(connection)
                else:
                    self._loop.deadlines.note(connection)

    def hasten_silent(self, deadline: float) -> None:
        """Do not wait beyond `deadline` for those that have not said a word."""
        for connection in self._loop.connections.values():
            if connection.is_silent:
                connection.deadline = min(connection.deadline, deadline)
                self._loop.deadlines.note(connection)
