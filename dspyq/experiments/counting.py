"""Settings of an experiment's counts, for the scripts that count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counting_settings(epoch: str, table: Mapping[str, Any]) -> str:
    """Return the settings of the counts for scripts: epoch, two thresholds in ms, flags, and rows that are kept.

    A hyphen stands for none.
    """
    seconds = {guard["metric"]: guard["seconds"] for guard in table["guards"] if guard["seconds"] is not None}
    thresholds = [seconds.get(metric) for metric in ("answer.slow", "call.slow_wait")]
    flags = "-" + ("s" if table["scores"] else "") + ("f" if table["feedback"] else "")
    return " ".join(
        [
            epoch,
            *("-" if each is None else f"{each * 1000:.0f}" for each in thresholds),
            flags,
            str(table.get("keep_rows", 0)),
        ]
    )
