"""Memory of what was made of texts that come again and again; bounded, since clients choose the texts."""

from __future__ import annotations

from collections.abc import Callable

from minicorn.typed import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from typing import Any

K = TypeVar("K")
V = TypeVar("V")

MOST = 1024
LONGEST = 256


class Memo(dict[K, V]):
    """`memo[key]` is `make(key)`, remembered for up to `most` keys. A key of which `measure` says more than
    LONGEST is not remembered: it costs memory, and hardly comes again."""

    def __init__(self, make: Callable[[K], V], most: int = MOST, measure: Callable[[Any], int] = len) -> None:
        self._make, self._most, self._measure = make, most, measure

    def __missing__(self, key: K) -> V:
        made = self._make(key)
        if self._measure(key) <= LONGEST:
            if len(self) >= self._most:
                self.clear()  # what is in use comes back at once
            self[key] = made
        return made
