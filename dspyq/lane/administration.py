"""Administration of lanes: what they hold, and what operators and batches ask of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import redis

from dspyq.lane.journal import LaneJournal
from dspyq.lane.shipment import Shipment
from dspyq.store.keys import job_key, lanes_key


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """State of a model's lane.

    Attributes:
        model: The model's table.
        open_lines: Lines in no shipment.
        shipped_lines: Lines in shipments that have not landed.
        unpaid_rows: Rows that wait for money.
        oldest_open_seconds: Seconds since the oldest open line came; 0 without one.
        held_nano_usd: The most that all lines may cost, which the budget holds.
        now: The time by Redis's clock, to which the shipments' times belong.
        shipments: Its shipments, the oldest first.
    """

    model: str
    open_lines: int
    shipped_lines: int
    unpaid_rows: int
    oldest_open_seconds: float
    held_nano_usd: int
    now: float
    shipments: tuple[Shipment, ...]


@dataclass(frozen=True, slots=True)
class BatchInLanes:
    """A batch's share of the lanes.

    Attributes:
        asleep_rows: Rows whose jobs sleep.
        lines: Lines that have not landed.
        shipments: Shipments that hold any of them.
        oldest_seconds: Seconds since the oldest of these lines came; 0 without one.
        rounds: The highest number of times that one of its rows fell asleep.
    """

    asleep_rows: int = 0
    lines: int = 0
    shipments: int = 0
    oldest_seconds: float = 0.0
    rounds: int = 0


class LaneAdmin:
    """Administration of the lanes of one Redis.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def models(self) -> list[str]:
        """Return the models whose lanes hold anything."""
        return sorted(name.decode() for name in cast("set[bytes]", self._client.smembers(lanes_key())))

    def show(self, model: str) -> LaneStatus:
        """Return the state of a lane; of an empty one too."""
        journal = self.journal(model)
        opened = journal.open_lines()
        held = sum(line.bound for lines in journal.every_line() for line in lines.values())
        return LaneStatus(
            model=model,
            open_lines=opened.number,
            shipped_lines=max(0, opened.all_lines - opened.number),
            unpaid_rows=opened.unpaid_rows,
            oldest_open_seconds=opened.oldest_seconds if opened.number else 0.0,
            held_nano_usd=held,
            now=opened.now,
            shipments=tuple(journal.shipments()),
        )

    def of_batch(self, batch_id: str) -> BatchInLanes:
        """Return a batch's share of all lanes. It reads every line: call it for people, not in a loop."""
        tasks: set[str] = set()
        lines, oldest_at, now, shipments = 0, float("inf"), 0.0, 0
        for model in self.models():
            journal = self.journal(model)
            own: set[str] = set()
            for page in journal.every_line():
                for custom_id, line in page.items():
                    if line.batch == batch_id:
                        own.add(custom_id)
                        tasks.add(line.task)
                        oldest_at = min(oldest_at, line.at)
            lines += len(own)
            now = max(now, journal.open_lines().now)
            shipments += sum(bool(own & ids) for ids in self._shipped(journal).values())
        jobs = self._jobs(sorted(tasks))
        asleep = sum(is_asleep for is_asleep, _ in jobs)
        return BatchInLanes(
            asleep,
            lines,
            shipments,
            max(0.0, now - oldest_at) if lines else 0.0,
            max((of for _, of in jobs), default=0),
        )

    def cancel_batch(self, batch_id: str) -> int:
        """Have the shipments cancelled in which only this batch has lines; return their number.

        Lines in no shipment are dropped once the batch has withdrawn their jobs. What the provider has answered by then
        is paid; it lands in the batch's account.
        """
        cancelled = 0
        for model in self.models():
            journal = self.journal(model)
            owners: Counter[str] = Counter()
            names = {custom_id: line.batch for page in journal.every_line() for custom_id, line in page.items()}
            for name, ids in self._shipped(journal).items():
                owners = Counter(names[custom_id] for custom_id in ids if custom_id in names)
                if owners.keys() == {batch_id}:
                    cancelled += journal.cancel(name)
        return cancelled

    def find_shipment(self, name: str) -> LaneJournal | None:
        """Return the lane that has a shipment of this name; None if there is none."""
        journals = map(self.journal, self.models())
        return next((one for one in journals if any(each.name == name for each in one.shipments())), None)

    def journal(self, model: str) -> LaneJournal:
        """Return the journal of a lane."""
        return LaneJournal(self._client, model)

    def _shipped(self, journal: LaneJournal) -> dict[str, set[str]]:
        return {
            shipment.name: {custom_id for ids in journal.all_ids_of(shipment.name) for custom_id in ids}
            for shipment in journal.shipments()
        }

    def _jobs(self, tasks: Iterable[str]) -> list[tuple[bool, int]]:
        """Return of each job whether it sleeps, and how often it fell asleep."""
        pipeline = self._client.pipeline(transaction=False)
        for task in tasks:
            pipeline.hmget(job_key(task), "asleep", "rounds")
        return [(bool(asleep), int(rounds or 0)) for asleep, rounds in pipeline.execute()]
