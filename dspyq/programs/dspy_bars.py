"""A registry of tqdm's bars that threads may share.

``dspy.Parallel`` and ``dspy.Evaluate`` make a bar for each run, a disabled one too, and first clear the registry of all
bars without its lock. A bar of another thread that is just being made then fails with ``KeyError``, and with it a
prediction whose calls were paid for.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from tqdm import tqdm


class _SharedBars(WeakSet[Any]):
    """Bars that one thread may remove while another clears them all."""

    def clear(self) -> None:
        """Remove all bars, while no other thread walks through them."""
        with tqdm.get_lock():
            super().clear()

    def remove(self, item: Any) -> None:
        """Remove a bar, if no other thread has removed it."""
        self.discard(item)


def share_bars() -> None:
    """Let threads of this process make bars beside each other."""
    if not isinstance(tqdm._instances, _SharedBars):  # noqa: SLF001 - tqdm has no public way
        tqdm._instances = _SharedBars(tqdm._instances)  # noqa: SLF001 - as above
