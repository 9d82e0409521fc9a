"""Exceptions as text: as Python prints them, and with less where that raises."""

import traceback

import pytest

from minicorn.logs.tracebacks import format_headline, format_traceback


class Unprintable(ValueError):
    """`traceback` asks each exception for its cause."""

    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise AttributeError("no cause")


class Mute(Unprintable):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_it_is_what_python_prints() -> None:
    error = raised(ValueError("two\nlines"))
    assert format_traceback(error) == "".join(traceback.format_exception(error)).rstrip()
    assert format_headline(error) == "ValueError: two lines"
    assert format_headline(raised(KeyError("a"))) == "KeyError: 'a'"


@pytest.mark.parametrize(("error", "headline"), [(Unprintable("bad"), "Unprintable: bad"), (Mute("bad"), "Mute")])
def test_what_python_cannot_print_is_told_by_its_frames_and_its_name(error: BaseException, headline: str) -> None:
    error = raised(error)
    with pytest.raises(AttributeError):
        traceback.format_exception(error)
    text = format_traceback(error)
    assert text.splitlines()[-1] == format_headline(error) == headline
    assert "in raised" in text
