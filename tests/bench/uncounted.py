"""`hello` in a worker whose page is left unwritten: no heartbeat, no counters. It lives until its boot deadline."""

from hello import app

from minicorn.figures.heartbeat import Page

__all__ = ["app"]


def _nothing(*ignored):
    pass


for name in ("promise", "begin", "end", "idle", "holds", "accepted"):
    setattr(Page, name, _nothing)
