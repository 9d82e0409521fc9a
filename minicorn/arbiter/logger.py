"""The logger: the child that has the handlers of --log-config and --log-syslog for the arbiter's records.

Such handlers may block, start threads or run the application's code, which nothing may in a process that
forks and supervises. Imported where there are such handlers.
"""

from __future__ import annotations

import logging
import os

from minicorn.arbiter.auxiliary import Auxiliary
from minicorn.config.settings import Settings
from minicorn.logs.errorlog import OwnHandler, reopen_handlers
from minicorn.logs.logconfig import ACCESS, apply, takes_access
from minicorn.logs.logger import LOGGER
from minicorn.logs.relay import RECORD, Relay, handle
from minicorn.system.channel import REOPEN, Channel
from minicorn.system.surroundings import provide


def make_logger(settings: Settings) -> Auxiliary:
    """Make the logger, and send it this process's records from now on. Called in the application's directory."""
    directory = os.getcwd()  # a logger that comes later may not find it any more
    auxiliary = Auxiliary("logger", lambda line: _serve(line, settings, directory), lambda message: None)
    own = [] if settings.log_syslog and settings.log_config is None else LOGGER.handlers[:]
    for handler in own:
        LOGGER.removeHandler(handler)
    LOGGER.addHandler(Relay(auxiliary, own[0] if own else None))
    if takes_access(settings):
        ACCESS.setLevel(logging.INFO)
        ACCESS.propagate = False
        ACCESS.addHandler(Relay(auxiliary, None))
    return auxiliary


def _serve(line: Channel, settings: Settings, directory: str) -> int:
    """Handle records as they come, in the logger, until its channel ends; the exit code."""
    provide(settings, directory)
    apply(settings)
    LOGGER.handlers[:] = [handler for handler in LOGGER.handlers if not isinstance(handler, OwnHandler)]
    alive = True
    while alive:
        messages, alive = line.wait()
        for message in messages:
            if message.word == RECORD:
                handle(message.value)
            elif message.word == REOPEN:
                reopen_handlers()
    logging.raiseExceptions = False  # one handler's failure keeps no other from its end
    logging.shutdown()
    return 0
