"""An application to try minicorn with: it tells which worker has answered."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The worker's slot, pid and generation, and how many requests it has served."""
    worker = environ["minicorn.worker"]
    text = (
        f"Hello from minicorn.\n\nworker      {worker.slot}\npid         {worker.pid}\n"
        f"generation  {worker.generation}\nserved      {worker.requests + 1} requests\n"
    )
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
