"""What clients make a worker hold in memory: who holds how much, and who goes first when it is too much.

A request that comes in one piece and whose reply leaves in one is never here, so it costs
nothing. Here is who sends or takes slowly, or waits with a body: in the order of their last
step forward, so that the slowest is the first.
"""

from __future__ import annotations

from minicorn.typed import Generic, TypeVar

T = TypeVar("T")


class Holdings(Generic[T]):
    """The bytes of each holder, in the order of their last step forward."""

    def __init__(self) -> None:
        self._sizes: dict[T, int] = {}
        self.total = 0

    def note(self, holder: T, size: int) -> None:
        """Note that `holder` has made a step, and holds `size` bytes now."""
        self.forget(holder)
        if size:
            self._sizes[holder] = size
            self.total += size

    def forget(self, holder: T) -> None:
        """Forget `holder`, which has ended, or holds nothing on its client's account any more."""
        self.total -= self._sizes.pop(holder, 0)

    def slowest(self) -> T:
        """The holder whose last step forward is the longest ago; there must be one."""
        return next(iter(self._sizes))
