"""The logs of one server: what goes wrong and what is done, and each request where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minicorn.config.settings import DEFAULTS, Settings
from minicorn.logs import errorlog
from minicorn.logs.output import Output, Sink
from minicorn.record import Value


class Logs(Value):
    """The error log, and the access log where one is wanted; the same in the arbiter and in each child."""

    error: Output
    access: Sink | None = None

    def flush(self) -> None:
        """Write the lines that have had to wait."""
        for sink in self._sinks():
            sink.flush()

    def reopen(self) -> None:
        """Open the files again by their names, after a rotation."""
        for sink in self._sinks():
            sink.reopen()

    def give(self, give: Callable[[int], None]) -> None:
        """Let the files be somebody else's from now on; `give` makes the file of a descriptor so."""
        for sink in self._sinks():
            sink.give(give)

    def _sinks(self) -> Iterator[Sink]:
        yield self.error
        if self.access is not None:
            yield self.access


def open_logs(settings: Settings) -> Logs:
    """Open the error log, and the access log where one is wanted; ConfigError for a file or a format that is wrong."""
    error = errorlog.set_up(settings.error_logfile, settings.log_level, settings.log_format)
    file = None
    if settings.access_logfile is not None or settings.access_logformat != DEFAULTS.access_logformat:
        from minicorn.logs import accesslog

        accesslog.compile_format(settings.access_logformat)
    if settings.access_logfile is not None:
        file = Output(settings.access_logfile, 1, json=accesslog.is_json(settings.access_logformat))
    if settings.has_log_handlers:
        from minicorn.logs import logconfig

        if logconfig.takes_access(settings):
            return Logs(error, logconfig.AccessLogger(file))
    return Logs(error, file)
