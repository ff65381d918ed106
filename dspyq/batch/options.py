"""What a batch is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from dspyq.core.window import Window


@dataclass(frozen=True)
class BatchOptions:
    """What a batch is asked to do.

    Attributes:
        input: IN; None for standard input.
        output: OUT.
        program: The program; may be left out where there is one.
        variant: The variant that answers all rows; else each row's own.
        is_ordered: Whether OUT is in the order of IN.
        is_paired: Whether every row is asked of every variant.
        in_flight_rows: The most entries that are asked and not answered.
        max_usd: The most the batch may cost, over all its runs.
        budget_share: The most it may take of what the day's budget has left, from 0 to 1.
        rate_share: The most it may take of each model's rate limit, from 0 to 1.
        window: The hours in which it asks.
        priority: Its turn, 0 (most urgent) to 9.
        name: What it is called.
        format: The form of IN, where its name does not say.
    """

    input: Path | None
    output: Path
    program: str | None = None
    variant: str | None = None
    is_ordered: bool = False
    is_paired: bool = False
    in_flight_rows: int = 2000
    max_usd: float | None = None
    budget_share: float | None = None
    rate_share: float | None = None
    window: Window | None = None
    priority: int = 9
    name: str = ""
    format: str | None = None

    def to_json(self) -> str:
        """Return them as a journal keeps them, for who retries a batch: paths absolute, no input where it streamed."""
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
            }
        )
