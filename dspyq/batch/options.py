"""Options of a batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from dspyq.core.window import Window

#: The most entries on their way: of live rows enough for all workers, of rows that wait for a day as many as fit.
_IN_FLIGHT_ROWS = {"provider": 50_000}
_LIVE_IN_FLIGHT_ROWS = 2000


def in_flight_rows(lane: str) -> int:
    """Return the most entries of a batch that are on their way at once, by default."""
    return _IN_FLIGHT_ROWS.get(lane, _LIVE_IN_FLIGHT_ROWS)


@dataclass(frozen=True)
class BatchOptions:
    """Options of a batch.

    Attributes:
        input: IN; None for standard input.
        output: OUT.
        program: The program; optional if only one is configured.
        variant: The variant that answers all rows; else each row's own.
        tenant: The tenant of its calls; None for none.
        is_ordered: True to write OUT in the order of IN.
        is_paired: True to run every row with every variant.
        cluster: The field of a row that names its cluster, for comparisons; None for the question itself.
        is_scored: True to have the program's scorers score every answer.
        in_flight_rows: The most entries that are sent and not answered yet.
        max_usd: The most the batch may cost, over all its runs.
        budget_share: The most it may take of what the day's budget has left, from 0 to 1.
        rate_share: The most it may take of each model's rate limit, from 0 to 1.
        window: The hours in which it sends rows.
        priority: Its priority, 0 (most urgent) to 9.
        name: Its name, for people.
        format: The form of IN, if its file name does not show it.
        lane: How its model calls are made: ``provider``, ``flex``, or empty for live.
        rest_goes_live: Whether what is left for its money is made live, once that buys too little at once for the
            provider's lane; else the batch ends there.
        finish_by: The hour by which every row is to be there, as in ``07:00``, and its time zone; None for no hour.
    """

    input: Path | None
    output: Path
    program: str | None = None
    variant: str | None = None
    tenant: str | None = None
    is_ordered: bool = False
    is_paired: bool = False
    cluster: str | None = None
    is_scored: bool = False
    in_flight_rows: int = _LIVE_IN_FLIGHT_ROWS
    max_usd: float | None = None
    budget_share: float | None = None
    rate_share: float | None = None
    window: Window | None = None
    priority: int = 9
    name: str = ""
    format: str | None = None
    lane: str = ""
    rest_goes_live: bool = True
    finish_by: tuple[str, str] | None = None

    def to_json(self) -> str:
        """Return the options as JSON for the journal, for retries: paths are absolute, streamed input is null."""
        window = self.window
        kept = asdict(replace(self, window=None)) | {
            "input": str(self.input.absolute()) if self.input is not None and self.input.is_file() else None,
            "output": str(self.output.absolute()),
            "window": window and [window.text, window.zone.key],
        }
        return orjson.dumps(kept).decode()

    @classmethod
    def from_json(cls, text: str) -> BatchOptions:
        """Return what ``to_json`` kept."""
        kept: dict[str, Any] = orjson.loads(text)
        path, window = kept["input"], kept["window"]
        return cls(
            **kept
            | {
                "input": None if path is None else Path(path),
                "output": Path(kept["output"]),
                "window": window and Window.parse(*window),
                "finish_by": (hour := kept.get("finish_by")) and tuple(hour),
            }
        )
