"""The runner of a model's lane: it brings whatever is due one step on. One worker runs a lane at a time.

Each step is saved before it is taken, so that another worker can go on from there. The creation of a batch is the one
step that must not be repeated: while it is unknown whether it had its effect, the batch is looked for by its name.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import redis

from dspyq.config.models import Model
from dspyq.core.events import Event
from dspyq.guards.budget import Budget
from dspyq.lane import metrics
from dspyq.lane.collecting import Collecting
from dspyq.lane.deferral import LEASE_SECONDS
from dspyq.lane.journal import LaneJournal, LaneLost, OpenLines
from dspyq.lane.line import attempt_id_of
from dspyq.lane.providers.errors import (
    BatchInterfaceError,
    CreationUnknown,
    EnqueuedLimitReached,
    ProviderBusy,
    RemoteMissing,
    ShipmentRefused,
)
from dspyq.lane.providers.protocol import BatchProvider, BatchState, RemoteBatch
from dspyq.lane.shipment import Shipment
from dspyq.store.scripts import run_together

logger = logging.getLogger("dspyq.lane")

#: A steady trickle of lines does not put a shipment off for longer than this many times ``batch_linger_seconds``.
_MOST_LINGERS = 10
_BYTES_PER_TOKEN = 4
#: A step that failed is taken again after so long, twice as long each further time.
_RETRY_SECONDS = (2.0, 600.0)
_LONGEST_POLL_SECONDS = 600.0
#: Between two looks at a batch passes this part of its age.
_POLL_PART = 0.05
#: A batch that its provider does not find any more is gone after so long.
_MISSING_SECONDS = 3600.0
#: A shipment that is refused is split at most so often: one request may be at fault, or all.
_MOST_SPLITS = 6
#: Errors of a provider that have nothing to do with the lines: an account, an address.
_OF_ACCOUNT = frozenset({401, 402, 403, 404, 405})
_RENEWALS_PER_LEASE = 8


@dataclass(frozen=True)
class LaneTimes:
    """Times of a lane, in seconds.

    Attributes:
        first_poll_seconds: After its creation a batch is looked at for the first time.
        settle_seconds: A lost creation is looked for so long before another one is begun.
    """

    first_poll_seconds: float = 30.0
    settle_seconds: float = 120.0


class LaneRunner:
    """The runner of one lane in this worker.

    Args:
        model: The model's table.
        journal: The lane's journal.
        provider: The batch interface.
        collecting: Lands the outcomes of batches that have ended.
        budget: The budget, in which its lines are held.
        times: Its times.
    """

    def __init__(
        self,
        model: Model,
        journal: LaneJournal,
        provider: BatchProvider,
        collecting: Collecting,
        budget: Budget,
        times: LaneTimes,
    ) -> None:
        self._model = model
        self._journal = journal
        self._provider = provider
        self._collecting = collecting
        self._budget = budget
        self._client: redis.Redis = journal.client
        self._times = times
        self._failures: dict[str, int] = {}
        self._renew_at = 0.0
        self._now = 0.0
        self._steps: dict[str, Callable[[Shipment], Shipment | None]] = {
            "filling": self._fill,
            "sealed": self._upload,
            "uploaded": self._create,
            "submitting": self._look_for_batch,
            "submitted": self._poll,
            "collecting": self._collect,
            "closing": self._look_for_doubles,
        }

    def step(self) -> bool:
        """Bring whatever is due one step on; return False if the lane is empty.

        Raises:
            LaneLost: If another worker runs it.
            redis.RedisError: If Redis does not answer.
        """
        opened = self._journal.open_lines()
        self._now = opened.now
        shipments = self._journal.shipments()
        if opened.count and not any(one.state == "filling" for one in shipments) and self._is_due(opened, shipments):
            shipments.append(Shipment(f"dspyq-{uuid.uuid4().hex[:20]}"))
        self._publish(opened, shipments)
        for shipment in shipments:
            if shipment.not_before <= self._now:
                self._advance(shipment)
        if opened.all_lines and self._now >= self._renew_at:
            self._renew_holds()
        if not opened.all_lines and not shipments:
            self._journal.close()
            return False
        return True

    def _is_due(self, opened: OpenLines, shipments: list[Shipment]) -> bool:
        linger = self._model.batch_linger_seconds
        is_full = opened.count >= self._most_lines
        has_waited = opened.latest_seconds >= linger or opened.oldest_seconds >= _MOST_LINGERS * linger
        if not (is_full or has_waited or self._journal.is_flushed()):
            return False
        return self._room_tokens(shipments) is None or self._room_bytes(shipments) > 0

    def _advance(self, shipment: Shipment) -> None:
        """Take steps of a shipment until one has to wait."""
        current: Shipment | None = shipment
        try:
            while current is not None and current.not_before <= self._now:
                state = current.state
                current = self._steps[state](current)
                if current is not None and current.state == state:
                    break
            self._failures.pop(shipment.name, None)
        except (BatchInterfaceError, OSError) as error:
            self._put_off(shipment.name, error)

    def _put_off(self, name: str, error: Exception) -> None:
        """Have a step that failed taken again later; what was saved of it stays."""
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        first, longest = _RETRY_SECONDS
        seconds = min(longest, first * 2.0 ** min(failures - 1, 10))
        if isinstance(error, BatchInterfaceError) and error.retry_after_seconds:
            seconds = max(seconds, min(error.retry_after_seconds, longest))
        metrics.FAILURES.labels(self._model.name, type(error).__name__).inc()
        text = str(error) if isinstance(error, BatchInterfaceError) else type(error).__name__
        self._log("lane_step_failed", name, logging.WARNING, error=text, again_seconds=round(seconds, 1))
        current = next((one for one in self._journal.shipments() if one.name == name), None)
        if current is not None:
            self._journal.save(replace(current, not_before=self._now + seconds))

    def _fill(self, shipment: Shipment) -> Shipment | None:
        """Move open lines into the shipment until it is full."""
        limits = self._provider.limits
        most_bytes = min(self._model.batch_max_bytes, limits.size_bytes)
        if (room := self._room_bytes(self._journal.shipments())) > 0:
            most_bytes = min(most_bytes, room)
        while True:
            sealed = self._journal.seal(shipment.name, self._most_lines, most_bytes, limits.line_overhead_bytes)
            if sealed.gone:
                self._collecting.landing.drop(sealed.gone)
            if sealed.is_done:
                break
        if not sealed.lines:
            return None
        self._journal.clear_flush()
        filled = replace(shipment, lines=sealed.lines, size_bytes=sealed.size_bytes)
        return self._saved(filled.at("sealed", sealed_at=self._now), "lane_sealed")

    @property
    def _most_lines(self) -> int:
        return min(self._model.batch_max_requests, self._provider.limits.lines)

    def _room_tokens(self, shipments: list[Shipment]) -> float | None:
        """Return how many more prompt tokens the account may have waiting; None for any number."""
        most = self._model.batch_enqueued_tokens or self._journal.quota_tokens
        if most is None:
            return None
        waiting = [one for one in shipments if one.state not in {"filling", "collecting", "closing"}]
        return most - sum(one.size_bytes for one in waiting) / _BYTES_PER_TOKEN

    def _room_bytes(self, shipments: list[Shipment]) -> int:
        room = self._room_tokens(shipments)
        return 0 if room is None else max(0, int(room * _BYTES_PER_TOKEN))

    def _upload(self, shipment: Shipment) -> Shipment:
        if not self._provider.has_files:
            return self._saved(shipment.at("uploaded"))
        for orphan in self._provider.orphan_files(shipment.name) if shipment.refusals or shipment.depth else ():
            self._provider.delete_file(orphan.id)
        file_id = self._provider.upload(shipment.name, self._journal.bodies(shipment.name))
        return self._saved(shipment.at("uploaded", file_id=file_id), "lane_uploaded")

    def _create(self, shipment: Shipment) -> Shipment | None:
        tried = self._saved(shipment.at("submitting", tried_at=self._now, tries=shipment.tries + 1))
        self._journal.sync()
        return self._submit(tried)

    def _submit(self, shipment: Shipment) -> Shipment | None:
        lines = () if self._provider.has_files else self._journal.bodies(shipment.name)
        try:
            batch = self._provider.create(shipment.name, file_id=shipment.file_id, lines=lines)
        except CreationUnknown as error:
            self._log("lane_creation_unknown", shipment.name, logging.WARNING, error=type(error).__name__)
            return None
        except EnqueuedLimitReached as error:
            return self._wait_for_quota(shipment, error.limit_tokens)
        except ProviderBusy:
            self._saved(shipment.at("uploaded", tries=shipment.tries - 1))
            raise
        except ShipmentRefused as error:
            self._saved(shipment.at("uploaded", tries=shipment.tries - 1))
            if error.status in _OF_ACCOUNT:
                raise
            return self._refused(shipment, error.code or f"http_{error.status}")
        return self._adopt(shipment, [batch])

    def _look_for_batch(self, shipment: Shipment) -> Shipment | None:
        """Look for a batch whose creation was begun and not seen to end; begin it once more if none turns up."""
        found = self._batches_of(shipment)
        if found:
            return self._adopt(shipment, found)
        if self._now - shipment.tried_at < self._times.settle_seconds:
            return self._saved(replace(shipment, not_before=self._now + min(5.0, self._times.settle_seconds / 4)))
        self._log("lane_created_again", shipment.name, logging.WARNING, tries=shipment.tries + 1)
        tried = self._saved(replace(shipment, tried_at=self._now, tries=shipment.tries + 1))
        self._journal.sync()
        return self._submit(tried)

    def _batches_of(self, shipment: Shipment) -> list[RemoteBatch]:
        """Return the batches of this shipment that its provider lists, without those known to be refused."""
        listed = self._provider.find(shipment.name, shipment.sealed_at, shipment.lines)
        listed = [one for one in listed if one.id not in shipment.dead_batches and one.id != shipment.batch_id]
        if self._provider.has_names:
            return listed
        known = {one.batch_id for one in self._journal.shipments()}
        return [one for one in listed if one.id not in known and self._is_own(shipment, one)]

    def _is_own(self, shipment: Shipment, batch: RemoteBatch) -> bool:
        """Return True if a batch without a name holds this shipment's lines; that shows once it has ended."""
        if not batch.state.is_final:
            raise ProviderBusy("a batch of as many lines, and without a name, runs at the provider: it is looked at later")
        custom_id = self._provider.read_one_id(batch)
        return custom_id is not None and any(custom_id in ids for ids in self._journal.all_ids_of(shipment.name))

    def _adopt(self, shipment: Shipment, batches: list[RemoteBatch]) -> Shipment:
        first, *others = batches
        poll_at = self._now + self._times.first_poll_seconds
        adopted = self._saved(
            shipment.at("submitted", batch_id=first.id, submitted_at=self._now, not_before=poll_at), "lane_submitted"
        )
        for double in others:
            self._log("lane_double_cancelled", shipment.name, logging.ERROR, batch=double.id)
            metrics.DOUBLES.labels(self._model.name).inc()
            self._provider.cancel(double.id)
        return adopted

    def _poll(self, shipment: Shipment) -> Shipment | None:
        try:
            batch = self._provider.poll(shipment.batch_id)
        except RemoteMissing:
            if self._now - shipment.submitted_at < _MISSING_SECONDS or self._batches_of(replace(shipment, batch_id="")):
                raise
            self._log("lane_batch_gone", shipment.name, logging.ERROR, batch=shipment.batch_id)
            self._collecting.charge_unknown(shipment)
            return self._saved(shipment.at("closing", ended_at=self._now, remote_state="gone"), "lane_landed")
        if batch.is_over_quota:
            limits = [fault.limit_tokens for fault in batch.faults if fault.limit_tokens]
            return self._wait_for_quota(shipment, min(limits, default=None))
        if batch.state is BatchState.FAILED and not batch.succeeded_lines:
            return self._refused(shipment, batch.faults[0].code if batch.faults else "failed", batch)
        if batch.state is BatchState.RUNNING and not shipment.is_accepted:
            self._journal.drop_bodies(shipment.name)
            shipment = replace(shipment, is_accepted=True)
        if not batch.state.is_final:
            age = self._now - shipment.submitted_at
            seconds = min(_LONGEST_POLL_SECONDS, max(self._times.first_poll_seconds, age * _POLL_PART))
            return self._saved(replace(shipment, not_before=self._now + seconds))
        metrics.SECONDS.labels(self._model.name).observe(self._now - shipment.submitted_at)
        ended = shipment.at("collecting", ended_at=self._now, remote_state=batch.state.value)
        return self._saved(ended, "lane_ended")

    def _collect(self, shipment: Shipment) -> Shipment | None:
        if shipment.was_uncertain:
            self._journal.keep_copies(shipment.name)
        batch = self._provider.poll(shipment.batch_id)
        landed = self._collecting.collect(shipment, batch)
        counted = replace(shipment, answered=landed.answered, failed=landed.failed, unanswered=landed.unanswered)
        return self._saved(counted.at("closing"), "lane_landed")

    def _look_for_doubles(self, shipment: Shipment) -> Shipment | None:
        """Find batches that were created twice after all; end them, and put what they cost into the books."""
        for double in self._batches_of(shipment) if shipment.was_uncertain else ():
            if not double.state.is_final:
                self._provider.cancel(double.id)
                return self._saved(replace(shipment, not_before=self._now + self._times.first_poll_seconds))
            lines = self._collecting.charge_double(shipment, double)
            metrics.DOUBLES.labels(self._model.name).inc()
            self._log("lane_double_charged", shipment.name, logging.ERROR, batch=double.id, lines=lines)
            self._provider.delete_files(double)
            shipment = self._saved(replace(shipment, dead_batches=(*shipment.dead_batches, double.id)))
        if shipment.remote_state != "gone" and shipment.batch_id:
            self._provider.delete_files(self._provider.poll(shipment.batch_id))
        self._journal.close(shipment.name)
        self._log("lane_closed", shipment.name)
        return None

    def _wait_for_quota(self, shipment: Shipment, limit_tokens: int | None) -> Shipment | None:
        """Keep a shipment until others have ended; return its lines if it is larger than the account's whole quota."""
        metrics.REFUSALS.labels(self._model.name, "quota").inc()
        if limit_tokens is not None:
            self._journal.learn_quota(limit_tokens)
        dead = (*shipment.dead_batches, shipment.batch_id) if shipment.batch_id else shipment.dead_batches
        refused = replace(shipment, refusals=shipment.refusals + 1, dead_batches=dead, batch_id="", tries=0)
        if limit_tokens is not None and shipment.lines > 1 and shipment.size_bytes / _BYTES_PER_TOKEN > limit_tokens:
            return self._split(refused)
        wait = max(self._times.first_poll_seconds, min(_LONGEST_POLL_SECONDS, self._model.batch_linger_seconds))
        return self._saved(refused.at("uploaded", not_before=self._now + wait), "lane_waits_for_quota")

    def _refused(self, shipment: Shipment, code: str, batch: RemoteBatch | None = None) -> Shipment | None:
        """Find the line for which a shipment was refused, or land all without an outcome, if it may be another reason."""
        metrics.REFUSALS.labels(self._model.name, "lines").inc()
        self._log("lane_refused", shipment.name, logging.WARNING, code=code, lines=shipment.lines)
        dead = (*shipment.dead_batches, batch.id) if batch is not None else shipment.dead_batches
        refused = replace(shipment, refusals=shipment.refusals + 1, dead_batches=dead, batch_id="", tries=0)
        if shipment.lines > 1 and shipment.depth < _MOST_SPLITS:
            return self._split(refused)
        landed = self._collecting.give_up(shipment.name, code, is_lasting=shipment.lines == 1)
        self._saved(refused.at("closing", remote_state=code, failed=landed.failed, unanswered=landed.unanswered))
        if shipment.file_id:
            self._provider.delete_file(shipment.file_id)
        self._journal.close(shipment.name)
        return None

    def _split(self, shipment: Shipment) -> Shipment | None:
        half = shipment.lines // 2
        part = replace(
            shipment, state="sealed", file_id="", lines=half, size_bytes=shipment.size_bytes // 2, depth=shipment.depth + 1
        )
        other = replace(
            part,
            name=f"dspyq-{uuid.uuid4().hex[:20]}",
            lines=shipment.lines - half,
            size_bytes=shipment.size_bytes - part.size_bytes,
            dead_batches=(),
        )
        self._journal.split(part, other)
        if shipment.file_id:
            self._provider.delete_file(shipment.file_id)
        return None

    def _renew_holds(self) -> None:
        """Renew the leases of the money that is held for lines, open or shipped, however long their provider takes."""
        for lines in self._journal.every_line():
            ids = [f"{line.task}:{attempt_id_of(line.variant, custom_id)}" for custom_id, line in lines.items()]
            run_together(self._client, [self._budget.renew(ids, LEASE_SECONDS)])
        self._renew_at = self._now + LEASE_SECONDS / _RENEWALS_PER_LEASE

    def _saved(self, shipment: Shipment, event: str = "") -> Shipment:
        saved = self._journal.save(shipment)
        if event:
            self._log(event, shipment.name, **_figures(shipment))
        return saved

    def _log(self, event: str, shipment: str, level: int = logging.INFO, **fields: object) -> None:
        logger.log(level, Event(event, model=self._model.name, shipment=shipment, **fields))

    def _publish(self, opened: OpenLines, shipments: list[Shipment]) -> None:
        name = self._model.name
        metrics.LINES.labels(name, "open").set(opened.count)
        metrics.LINES.labels(name, "shipped").set(max(0, opened.all_lines - opened.count))
        for state in self._steps:
            metrics.SHIPMENTS.labels(name, state).set(sum(one.state == state for one in shipments))
        oldest = min((one.submitted_at for one in shipments if one.state == "submitted"), default=self._now)
        metrics.OLDEST_SECONDS.labels(name).set(self._now - oldest)


def _figures(shipment: Shipment) -> dict[str, object]:
    figures: dict[str, object] = {"lines": shipment.lines}
    if shipment.batch_id:
        figures["batch"] = shipment.batch_id
    for name in ("remote_state", "answered", "failed", "unanswered"):
        if value := getattr(shipment, name):
            figures[name] = value
    return figures


__all__ = ["LaneLost", "LaneRunner", "LaneTimes"]
