"""An entry of the access log: one request, and the time of its line, whatever format that has."""

from __future__ import annotations

import time
from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from minicorn.memo import Memo
from minicorn.record import Record, Value, replace


class Origin(Value):
    """The worker that a request was given to."""

    slot: int
    generation: int
    pid: int


class Entry(Record, quick=True):
    """One request that was given to the application. Durations are seconds."""

    environ: WSGIEnvironment
    status: str  # "200 OK"; "" where it was never answered
    headers: list[tuple[str, str]]
    sent: int  # bytes of body
    seconds: float  # in the application and in handing its reply over
    origin: Origin
    request_id: str = "-"
    reading: float = 0.0  # from its first byte to its last
    queued: float = 0.0  # from then, or since a trusted proxy took it on, until the application was called
    inside: float = 0.0  # in the application
    cause: str = ""  # of its worker's end (a `life.Cause`), where nobody has answered it

    @property
    def user(self) -> str:
        """The name in Basic credentials, checked by nobody here; "" where there is none."""
        import base64  # for those who send some

        scheme, _, credentials = str(self.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            name, _, _ = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
        except ValueError:
            return ""
        return name

    def as_texts(self, error: Exception) -> Entry:
        """This entry with all values as texts: no line came of it, as the application may put anything into environ
        and headers, which are its own. Raises `error`, what went wrong, where they are texts already."""
        if isinstance(self.environ, _Texts):
            raise error
        # Copies first, each made in one step: a thread of the application may still be at it
        environ = _Texts((key, value) for key, value in list(self.environ.items()) if type(key) is str)
        pairs = [pair for pair in list(self.headers) if type(pair) in (tuple, list) and len(pair) == 2]
        headers = [(_text(name), _text(value)) for name, value in pairs]
        return replace(self, environ=environ, headers=headers)


def each_second(format: str, convert: Callable[[int], time.struct_time]) -> Memo[int, str]:
    """The text of a time for each second since the epoch: many requests share one."""
    return Memo(lambda second: time.strftime(format, convert(second)), most=1, measure=lambda second: 0)


class _Texts(dict[str, object]):
    """An environ that has been the application's, of which each value that is asked for is a text."""

    def get(self, key: str, default: object = None) -> object:
        value = super().get(key, default)
        return value if value is default else _text(value)


def _text(value: object) -> str:
    try:
        return str.__str__(str(value))  # a plain one, where it gives a str of its own kind
    except Exception:
        return f"<{type(value).__name__}>"
