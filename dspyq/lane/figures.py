"""Figures of lanes for metrics: all lanes of a Redis in one step, whichever workers run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from dspyq.core.tolerated import tolerate
from dspyq.lane.shipment import Shipment
from dspyq.store.scripts import Step, load_script


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """Figures of a model's lane.

    Attributes:
        open_lines: Lines in no shipment.
        shipped_lines: Lines in shipments that have not landed.
        unpaid_rows: Rows that wait for money.
        held_nano_usd: The most that all its lines may cost, which the budget holds.
        is_unattended: True if it holds anything and no worker runs it.
        shipments: How many shipments wait for each step.
        oldest_seconds: Age of the oldest batch that runs at the provider; 0 without one.
        failures: The most times in a row that the step of a shipment has failed.
    """

    open_lines: int = 0
    shipped_lines: int = 0
    unpaid_rows: int = 0
    held_nano_usd: int = 0
    is_unattended: bool = False
    shipments: Mapping[str, int] = field(default_factory=dict)
    oldest_seconds: float = 0.0
    failures: int = 0

    def __add__(self, other: LaneFigures) -> LaneFigures:
        """Return the figures of the same model's lanes on two spines together."""
        return LaneFigures(
            self.open_lines + other.open_lines,
            self.shipped_lines + other.shipped_lines,
            self.unpaid_rows + other.unpaid_rows,
            self.held_nano_usd + other.held_nano_usd,
            self.is_unattended or other.is_unattended,
            Counter(self.shipments) + Counter(other.shipments),
            max(self.oldest_seconds, other.oldest_seconds),
            max(self.failures, other.failures),
        )


class LaneReader:
    """Reader of the lanes of one Redis.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._script = load_script(client, "dspyq.lane", "look_lanes")

    def read(self) -> Step[dict[str, LaneFigures]]:
        """Return a step that reads the lanes that hold anything, by their models."""
        return self._script.step(_read)


def add_up_lanes(parts: Iterable[Mapping[str, LaneFigures]]) -> dict[str, LaneFigures]:
    """Return the figures of all spines together, by model."""
    added: dict[str, LaneFigures] = {}
    for part in parts:
        for model, figures in part.items():
            added[model] = added.get(model, LaneFigures()) + figures
    return added


def _read(reply: list[Any]) -> dict[str, LaneFigures]:
    now, *lanes = reply
    return {model.decode(): _figures(float(now), *counts) for model, *counts in lanes}


def _figures(now: float, opened: int, every: int, unpaid: int, held: int, runners: int, *stored: bytes) -> LaneFigures:  # noqa: PLR0913, PLR0917 - as the script replies
    shipments = [one for one in map(_shipment, stored) if one is not None]
    submitted = [one.submitted_at for one in shipments if one.state == "submitted"]
    return LaneFigures(
        open_lines=opened,
        shipped_lines=max(0, every - opened),
        unpaid_rows=unpaid,
        held_nano_usd=max(0, held),
        is_unattended=not runners,
        shipments=Counter(one.state for one in shipments),
        oldest_seconds=max(0.0, now - min(submitted)) if submitted else 0.0,
        failures=max((one.failures for one in shipments), default=0),
    )


def _shipment(text: bytes) -> Shipment | None:
    """Return a stored shipment; None for bytes that are none, which the runner's log names."""
    try:
        return Shipment.from_json(text)
    except (TypeError, ValueError) as error:
        tolerate("snapshot", error)
        return None
