"""Where the logs go when handlers of the logging package take them: --log-config, --log-syslog.

Such handlers may block, start threads or import the application's code, so none lives in the
arbiter. A worker applies them to itself; so does the logger, a child to which the arbiter relays
its records (`relay`, `arbiter.logger`).

This, and what reads configurations, is imported where it is wanted: no other start waits for it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.logs import complaints
from minicorn.logs.logger import LOGGER, own
from minicorn.logs.output import Output
from minicorn.logs.relay import Relay
from minicorn.system import spawn
from minicorn.system.surroundings import provide

ACCESS = own("minicorn.access")
# gunicorn's configurations serve as they are
_NAMES = {
    "gunicorn.error": LOGGER.name,
    "minicorn.error": LOGGER.name,
    "gunicorn.access": ACCESS.name,
}


def takes_access(settings: Settings) -> bool:
    """Whether such handlers take the access log as well."""
    return settings.log_config is not None or (settings.log_syslog and not settings.disable_redirect_access_to_syslog)


class AccessLogger:
    """The access log as records of the logger "minicorn.access", and to `output`, where there is one."""

    def __init__(self, output: Output | None) -> None:
        self._output = output

    def write(self, line: bytes) -> None:
        if self._output is not None:
            self._output.write(line)
        ACCESS.info("%s", line[:-1].decode("ascii", "replace"))

    def flush(self) -> None:
        if self._output is not None:
            self._output.flush()

    def reopen(self) -> None:
        if self._output is not None:
            self._output.reopen()

    def give(self, give: Callable[[int], None]) -> None:
        if self._output is not None:
            self._output.give(give)


def apply(settings: Settings) -> None:
    """Lead this process's logs to the handlers that the settings name, from now on; ConfigError in one line."""
    kept = complaints.handlers()
    for logger in (LOGGER, ACCESS):
        logger.handlers[:] = [handler for handler in logger.handlers if not isinstance(handler, Relay)]
    ACCESS.setLevel(logging.INFO)
    ACCESS.propagate = False
    if settings.log_config is not None:
        LOGGER.handlers.clear()
        LOGGER.propagate = True
        _configure(settings.log_config)
    if settings.log_syslog:
        from minicorn.logs.syslog import Syslog

        LOGGER.addHandler(Syslog(settings, "error"))
        if takes_access(settings):
            ACCESS.addHandler(Syslog(settings, "access"))
    for handler in kept:
        LOGGER.addHandler(handler)


def _configure(path: str) -> None:
    try:
        if path.startswith("{"):  # gunicorn's logconfig_dict
            _configure_by(json.loads(path))
        elif path.endswith(".json"):
            _configure_by(json.loads(Path(path).read_bytes()))
        elif path.endswith(".toml"):
            import tomllib

            _configure_by(tomllib.loads(Path(path).read_text("utf-8")))
        else:
            _configure_by_ini(path)
    except OSError as error:
        raise ConfigError(f"--log-config: cannot read {path}: {error.strerror}") from error
    except Exception as error:  # whatever a handler's constructor raises, and the logging package makes of it
        cause = error.__cause__ or error
        named = "logconfig_dict" if path.startswith("{") else path
        raise ConfigError(f"--log-config: {named}: {error}" + (f": {cause}" if cause is not error else "")) from error


def _configure_by(config: dict[str, Any]) -> None:
    import logging.config

    loggers = config.get("loggers", {})
    config["loggers"] = {_NAMES.get(name, name): logger for name, logger in loggers.items()}
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | config)


def _configure_by_ini(path: str) -> None:
    import configparser
    import logging.config

    parser = configparser.RawConfigParser({"__file__": path, "here": os.path.dirname(path)})
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    for section in parser.sections():
        name = parser.get(section, "qualname", fallback="")
        if name in _NAMES:
            parser.set(section, "qualname", _NAMES[name])
    logging.config.fileConfig(parser, disable_existing_loggers=False)


def check(settings: Settings) -> None:
    """Try in a child whether the settings can be applied, in the application's directory; ConfigError in one line."""
    told, tell = os.pipe()
    try:
        pid = spawn.fork(lambda: _try(settings, tell))
    finally:
        os.close(tell)
    with os.fdopen(told, "rb") as file:
        text = file.read().decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    if text or status:
        raise ConfigError(text or "--log-config, --log-syslog: what they name ends the process that tries it")


def _try(settings: Settings, tell: int) -> int:
    try:
        provide(settings, os.getcwd())
        apply(settings)
        if settings.log_syslog:
            from minicorn.logs.syslog import Syslog

            Syslog(settings, "error").reach()
    except BaseException as error:  # SystemExit too, which is no end of the server
        said = str(error) if isinstance(error, ConfigError) else f"--log-config: {type(error).__name__} {error}"
        os.write(tell, " ".join(said.split()).encode("utf-8", "backslashreplace")[:4096])
    return 0
