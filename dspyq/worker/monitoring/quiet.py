"""Series without activity: shown while they are few, hidden when they are many, so that a scrape costs by activity."""

from __future__ import annotations

from collections.abc import Hashable

#: Number of variants up to which all configured series are shown, from zero on.
SHOWS_ALL_UP_TO = 50


class Shown:
    """Shown series of one kind. A series shown once stays, at zero too, as long as this process lives.

    Args:
        configured: Number of configured variants, or queues.
    """

    def __init__(self, configured: int) -> None:
        self.is_everything = configured <= SHOWS_ALL_UP_TO
        self._names: set[Hashable] = set()

    def shows(self, name: Hashable, *values: float | None) -> bool:
        """Return True if a series of these values is shown."""
        if any(values):
            self._names.add(name)
        return self.is_everything or name in self._names
