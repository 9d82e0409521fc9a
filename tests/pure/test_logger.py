"""Our loggers: what breaks in a handler, a filter or a factory reaches nobody who logs."""

import logging
from collections.abc import Iterator

import pytest

from minicorn.logs import logger
from minicorn.logs.logger import own


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("no\nway")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def refuse(*arguments: object) -> bool:
    raise RuntimeError("out of context")


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    made = own("minicorn.trial")
    made.propagate = False
    logger._told.clear()
    yield made
    logging.root.manager.loggerDict.pop("minicorn.trial")


def test_a_handler_that_raises_is_told_once_in_a_line_and_the_others_have_the_record(
    log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = Kept()
    log.handlers[:] = [Broken(), kept]
    log.error("one")
    log.error("two")
    assert kept.texts == ["one", "two"]
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("ERROR:    log handler test_logger.Broken has failed")
    assert told.endswith(": ValueError: no way\n")


def test_a_filter_or_a_record_factory_that_raises_costs_no_record(
    log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = Kept()
    log.handlers[:] = [kept]
    log.addFilter(refuse)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(refuse)  # type: ignore[arg-type]
    try:
        log.error("%s of %d", "one", 2)
    finally:
        logging.setLogRecordFactory(before)
    assert kept.texts == ["one of 2"]
    assert capfd.readouterr().err.count("RuntimeError: out of context\n") == 2


def test_a_record_that_cannot_be_made_text_raises_nothing(log: logging.Logger) -> None:
    handler = logging.StreamHandler()
    handler.emit = lambda record: print(record.getMessage())  # type: ignore[method-assign]
    log.handlers[:] = [handler]
    log.error("%d", "one")


def test_no_configuration_disables_it(log: logging.Logger) -> None:
    kept = Kept()
    log.handlers[:] = [kept]
    log.disabled = True  # as dictConfig and fileConfig do
    log.error("one")
    assert kept.texts == ["one"]
