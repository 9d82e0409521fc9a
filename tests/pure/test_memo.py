"""What is remembered, for how many, and of which length."""

import pytest

from minicorn.memo import LONGEST, MOST, Memo


def test_what_was_made_is_not_made_again() -> None:
    made: list[str] = []
    memo = Memo[str, str](lambda key: made.append(key) or key.upper())
    assert [memo["a"], memo["b"], memo["a"]] == ["A", "B", "A"]
    assert made == ["a", "b"]


def test_there_is_a_bound_to_it_and_what_is_beyond_is_made_all_the_same() -> None:
    memo = Memo[int, int](lambda key: -key, most=3, measure=lambda key: 0)
    for key in range(10):
        assert memo[key] == -key
        assert key in memo
        assert len(memo) <= 3
    assert MOST > 0


def test_a_long_key_is_not_remembered() -> None:
    memo = Memo[str, int](len)
    assert memo["x" * LONGEST] == LONGEST
    assert memo["x" * (LONGEST + 1)] == LONGEST + 1
    assert list(memo) == ["x" * LONGEST]


def test_what_cannot_be_made_is_tried_again() -> None:
    memo = Memo[str, int](int)
    for _ in range(2):
        with pytest.raises(ValueError, match="none"):
            memo["none"]
    assert not memo
