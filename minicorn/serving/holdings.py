"""What clients make a worker hold in memory: who holds how much, and who goes first when it is too much.

A request that comes in one piece and whose reply leaves in one is never here, so it costs
nothing. Here is who sends or takes slowly, or waits with a body: in the order of their last
step forward, so that the slowest is the first.
"""

from __future__ import annotations

from minicorn.typed import Generic, TypeVar

T = TypeVar("T")


class Holdings(Generic[T]):
    """Bytes by holder."""

    def __init__(self) -> None:
        self._sizes: dict[T, int] = {}
        self.total = 0

    def note(self, holder: T, size: int) -> None:
        """`holder` has moved, and holds `size` bytes now."""
        self.forget(holder)
        if size:
            self._sizes[holder] = size
            self.total += size

    def forget(self, holder: T) -> None:
        """`holder` has ended, or what it holds is not its client's doing any more."""
        self.total -= self._sizes.pop(holder, 0)

    def slowest(self) -> T:
        """Whose last step forward is the longest ago; there must be one."""
        return next(iter(self._sizes))
