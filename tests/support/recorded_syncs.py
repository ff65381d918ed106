"""Notes when a worker begins to wait for Redis's disk, in the file that ``TEST_SYNCS`` names.

Named in ``workers.imports``. What was written before must survive Redis, for the worker goes on from there.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

from dspyq.lane.journal import LaneJournal

_sync = LaneJournal.sync


@functools.wraps(_sync)
def _recorded(self: LaneJournal) -> None:
    with Path(os.environ["TEST_SYNCS"]).open("a", encoding="utf-8") as file:
        file.write(f"{time.monotonic()}\n")
    _sync(self)


LaneJournal.sync = _recorded  # type: ignore[method-assign]
