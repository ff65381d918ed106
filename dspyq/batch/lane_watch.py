"""A batch's view of its lane: rows that sleep, shipments, and the hour by which the batch must have left it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import orjson

from dspyq.batch.entry import Entry
from dspyq.batch.finish_by import LaneStage, Timetable, finish_at, timetable
from dspyq.batch.journal import Journal
from dspyq.batch.options import BatchOptions
from dspyq.batch.quotes.live_time import live_seconds
from dspyq.config.programs import Program
from dspyq.delivery.records import Records
from dspyq.lane.administration import LaneAdmin
from dspyq.lane.journal import LaneJournal
from dspyq.lane.shipment import Shipment
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.keys import job_key
from dspyq.store.spines import by_spine, each_spine

#: Rows whose jobs are looked at in one round trip.
_ROWS_AT_ONCE = 1000
#: A look at so many rows each second at most, on average.
_ROWS_PER_SECOND = 2000
_LEAST_LOOK_SECONDS = 1.0
#: Time between two estimates of what the rows left would take live; shorter where the hour is near.
_ESTIMATE_SECONDS = 30.0
_MOST_SHIPMENTS_KEPT = 500
#: The lane that an account states at each stage, where the flex tier costs no less.
_LANES: dict[LaneStage, str] = {
    "lane": "provider",
    "closing": "provider,live",
    "flex": "provider,flex",
    "live": "provider,live",
}


class LaneWatch:
    """Watches the lane of one batch in its run. Not thread-safe.

    Args:
        options: The batch's options.
        program: Its program.
        journal: Its journal, which keeps its shipments for its report.

    Attributes:
        stage: Its stage.
        woken: Rows that were woken to go on live.
    """

    def __init__(self, options: BatchOptions, program: Program, journal: Journal) -> None:
        self._options = options
        self._journal = journal
        self._variants = [variant for variant in program.variants.values() if options.variant in (None, variant.name)]
        self._program = program
        models = {variant.model.name: variant.model for variant in self._variants}
        self._has_flex = all(one.service_tier_price_factors.get("flex", 1.0) < 1.0 for one in models.values())
        self._models = [name for name, one in models.items() if one.batch_protocol is not None]
        now = time.time()
        self._began_at = now
        self._finish_at = finish_at(journal, options.finish_by, now) if options.lane else None
        self._timetable: Timetable | None = None
        self._estimate_at = self._look_at = 0.0
        self._shipments: dict[str, dict[str, Any]] = orjson.loads(journal.meta("shipments") or "{}")
        self._asleep = self._rounds = self._out = 0
        self._oldest_seconds = 0.0
        self.stage: LaneStage = "lane"
        self.woken = 0

    @property
    def account_lane(self) -> str:
        """The lane that the batch's account states now."""
        if self._options.lane == "provider":
            if self.stage == "closing" and self._has_flex:
                return "provider,flex"
            lane = _LANES[self.stage]
            return lane if self.stage != "lane" or self._options.rest_goes_live else "provider,stop"
        return "" if self.stage == "live" else self._options.lane

    def advance(self, rows_left: float) -> bool:
        """Find the stage at this time; return True if it has changed.

        Raises:
            redis.RedisError: If Redis does not answer.
            RedisUnavailable: Likewise.
        """
        before = self.stage
        self._find_stage(rows_left)
        if self.stage != before:
            self._look_at = 0.0
        return self.stage != before

    def cancel(self, batch_id: str) -> None:
        """Have the shipments cancelled in which this batch alone has lines."""
        if self._options.lane == "provider":
            for _ in each_spine():
                LaneAdmin(jobs_client()).cancel_batch(batch_id)

    def look(self, in_flight: Mapping[str, Entry]) -> None:
        """Count the rows that sleep, and note shipments, as often as their number allows, and at the batch's end."""
        now = time.monotonic()
        if self._options.lane != "provider" or (in_flight and now < self._look_at):
            return
        tasks = list(in_flight)
        self._look_at = now + max(_LEAST_LOOK_SECONDS, len(tasks) / _ROWS_PER_SECOND)
        self._count_sleepers(tasks)
        self._note_shipments()
        if self.stage in {"flex", "live"}:
            for _, own in by_spine(tasks, tasks):
                self.woken += sum(Records(jobs_client()).wake(list(chunk)) for chunk in _chunks(own))

    @property
    def text(self) -> str:
        """The state of its rows in the provider's lane, for people; empty if none sleeps."""
        if not self._asleep:
            return ""
        asleep = f"round {self._rounds}, {self._asleep:,} asleep"
        if not self._out:
            return asleep
        shipments = "shipment" if self._out == 1 else "shipments"
        return f"{asleep} in {self._out} {shipments}, oldest {_duration(self._oldest_seconds)}"

    def facts(self) -> dict[str, str | int | float]:
        """Return what lists of batches show of it."""
        facts: dict[str, str | int | float] = {"lane": self._options.lane}
        if self._options.lane == "provider":
            facts |= {
                "round": self._rounds,
                "asleep": self._asleep,
                "shipments": self._out,
                "oldest_shipment_seconds": round(self._oldest_seconds),
                "woken": self.woken,
            }
        if self._finish_at is not None:
            facts |= {"finish_at": self._finish_at, "lane_stage": self.stage}
        return facts

    def _find_stage(self, rows_left: float) -> None:
        if self._finish_at is None or self.stage == "live":
            return
        now = time.time()
        if now >= self._estimate_at:
            seconds = live_seconds(self._program, self._variants, rows_left)
            self._timetable = timetable(self._began_at, self._finish_at, seconds, has_flex=self._has_flex)
            self._estimate_at = now + min(_ESTIMATE_SECONDS, max(1.0, (self._timetable.cancel_at - now) / 4))
        if self._timetable is not None:
            self.stage = max(self.stage, self._timetable.stage(now), key=list(_LANES).index)

    def _count_sleepers(self, tasks: Sequence[str]) -> None:
        asleep = rounds = 0
        for is_asleep, round_count in _sleepers(tasks):
            asleep += is_asleep is not None
            rounds = max(rounds, int(round_count or 0))
        self._asleep, self._rounds = asleep, max(self._rounds, rounds)

    def _note_shipments(self) -> None:
        """Note the shipments of the batch's models; several batches may share one."""
        seconds, _ = money_client().time()
        known = orjson.dumps(self._shipments)
        out = 0
        oldest = float(seconds)
        for lane in self._lanes():
            for shipment in lane.shipments():
                self._note(lane.model, shipment)
                out += shipment.state not in {"filling", "closing"}
                oldest = min(oldest, shipment.filled_at or oldest)
            for shipment in lane.past():
                if shipment.name in self._shipments or shipment.filled_at >= self._began_at:
                    self._note(lane.model, shipment)
        self._out, self._oldest_seconds = out, seconds - oldest
        for name in list(self._shipments)[:-_MOST_SHIPMENTS_KEPT]:
            del self._shipments[name]
        if (noted := orjson.dumps(self._shipments)) != known:
            self._journal.set_meta(shipments=noted.decode())

    def _lanes(self) -> Iterator[LaneJournal]:
        """Yield each lane of its models, on the spine that has it."""
        for _ in each_spine():
            for name in self._models:
                yield LaneJournal(jobs_client(), name)

    def _note(self, model: str, shipment: Shipment) -> None:
        if shipment.filled_at:
            figures = ("lines", "filled_at", "submitted_at", "ended_at", "answered", "failed", "unanswered")
            self._shipments[shipment.name] = {
                "model": model, "state": shipment.remote_state or shipment.state,
                **{name: getattr(shipment, name) for name in figures},
            }  # fmt: skip


def _sleepers(tasks: Sequence[str]) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield of each task's job whether it sleeps, and how often it fell asleep."""
    for _, own in by_spine(tasks, tasks):
        for chunk in _chunks(own):
            pipeline = jobs_client().pipeline(transaction=False)
            for task_id in chunk:
                pipeline.hmget(job_key(task_id), "asleep", "rounds")
            yield from cast("list[tuple[bytes | None, bytes | None]]", pipeline.execute())


def _chunks(tasks: Sequence[str]) -> Iterable[Sequence[str]]:
    return (tasks[start : start + _ROWS_AT_ONCE] for start in range(0, len(tasks), _ROWS_AT_ONCE))


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - an hour
