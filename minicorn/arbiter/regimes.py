"""Regimes: the settings that each generation lives by, its workers and the arbiter alike.

New settings are as little trusted as new code. HUP proposes them, on_reload may object, the next
roll tries them; the arbiter itself goes by them once a worker serves by them. So they have been
judged by a whole boot, and of a roll that is off nothing stays behind: whoever dies of the old
generation is replaced by its like.
"""

from __future__ import annotations

from minicorn.config.settings import Settings
from minicorn.pool.rolls import Roll, Rolls


class Regimes:
    """The settings of the generation that serves, and of the one that is to come."""

    def __init__(self, serving: Settings, wished: Settings, rolls: Rolls) -> None:
        """`wished`: those of the next roll, which an upgrade begins; else the same."""
        self._rolls = rolls
        self.serving = serving
        self._wished = wished
        self._proposed: Settings | None = None  # on_reload is asked about them
        self._roll: Roll | None = None  # the last that has begun
        self._coming = wished  # its settings

    @property
    def newest(self) -> Settings:
        """The settings that were last proposed and have not failed."""
        return self._proposed or self._wished

    def of(self, generation: int) -> Settings:
        """The settings that a worker of `generation` boots with."""
        return self._coming if self._roll and generation == self._roll.generation else self.serving

    def propose(self, new: Settings) -> None:
        """Put forward what HUP has read."""
        self._proposed = new

    def answered(self, new: Settings, well: bool) -> bool:
        """Note how on_reload has judged `new`; whether the next roll goes to it. Only what was proposed last counts."""
        if new is not self._proposed:
            return False
        self._proposed = None
        if well:
            self._wished = new
        return well

    def follow(self) -> bool:
        """Follow the rolls; whether what serves lives by other settings now."""
        before, roll = self.serving, self._rolls.current
        if self._roll and self._rolls.generation == self._roll.generation:
            self.serving = self._coming
        if roll is not None and roll is not self._roll:
            self._roll, self._coming = roll, self.serving if roll.promoted else self._wished
        elif roll is None and not self._rolls.wished:
            self._wished = self.serving
        return self.serving is not before
