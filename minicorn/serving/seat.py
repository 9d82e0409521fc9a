"""A seat: a server's place among its siblings, and what the application is told of it."""

from __future__ import annotations

import os

from minicorn.figures.heartbeat import Page, private_page
from minicorn.figures.idlemap import IdleMap, private_idle_map
from minicorn.record import Value, fresh
from minicorn.serving.handoff import Handoff


class Seat(Value):
    """A server's place among its siblings; by default it has none."""

    slot: int = 1
    generation: int = 1
    page: Page = fresh(private_page)
    idle_map: IdleMap = fresh(private_idle_map)
    handoff: Handoff | None = None


class Identity:
    """`environ["minicorn.worker"]`: which worker answers."""

    def __init__(self, seat: Seat) -> None:
        self.slot = seat.slot
        self.generation = seat.generation
        self.pid = os.getpid()
        self._page = seat.page

    @property
    def requests(self) -> int:
        """Requests answered before this one."""
        return self._page.requests

    def __repr__(self) -> str:
        return f"<worker {self.slot} gen {self.generation} pid {self.pid}>"
