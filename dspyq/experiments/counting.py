"""Settings of an experiment's counts, for the scripts that count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspyq.store.spines import process_spines


def counting_settings(epoch: str, table: Mapping[str, Any]) -> str:
    """Return the settings of the counts for scripts.

    They are the epoch, two thresholds in ms, ``f`` where there is feedback and ``s`` where units ask on several
    spines, the number of rows that are kept, and the scores. A hyphen stands for none.
    """
    seconds = {guard["metric"]: guard["seconds"] for guard in table["guards"] if guard["seconds"] is not None}
    thresholds = [seconds.get(metric) for metric in ("answer.slow", "call.slow_wait")]
    flags = ("f" if table["feedback"] else "") + ("" if process_spines() is None else "s")
    return " ".join(
        [
            epoch,
            *("-" if each is None else f"{each * 1000:.0f}" for each in thresholds),
            flags or "-",
            str(table.get("keep_rows", 0)),
            *table["scores"],
        ]
    )
