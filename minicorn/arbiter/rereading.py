"""HUP: the configuration is read again, by a child that may take its time; one that is broken changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from minicorn.arbiter.belongings import Belongings
from minicorn.config.configuration import Configuration
from minicorn.config.settings import Settings
from minicorn.errors import ConfigError


class Rereading:
    """One reading at a time; one more waits."""

    def __init__(
        self,
        config: Configuration,
        belongings: Belongings,
        take_on: Callable[[Settings], None],
        refuse: Callable[[str], None],
    ) -> None:
        """What comes of it goes to `take_on`, or to `refuse` with the reason."""
        self._config = config
        self._belongings = belongings
        self._take_on = take_on
        self._refuse = refuse
        self._again = False  # another HUP has come meanwhile

    def begin(self) -> None:
        """A HUP has come."""
        if self._belongings.reading is not None:
            self._again = True
            return
        try:
            self._belongings.reading = self._config.begin()
            if self._belongings.reading is None:
                self._take_on(self._config.settle(None, None).settings)
        except (ConfigError, OSError) as error:
            self._refuse(str(error))

    def advance(self) -> None:
        """See what has become of the reading under way, if there is one."""
        reading = self._belongings.reading
        if reading is None:
            return
        try:
            values = reading.take()
            if values is None:
                return
            self._take_on(self._config.settle(reading.place, values).settings)
        except ConfigError as error:
            self._refuse(str(error))
        self._belongings.reading = None
        if self._again:
            self._again = False
            self.begin()
