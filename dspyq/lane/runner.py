"""The runner of a model's lane: it brings whatever is due one step on. One worker runs a lane at a time.

Each step is saved before it is taken, so that another worker can go on from there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from dspyq.lane import metrics
from dspyq.lane.creation import BYTES_PER_TOKEN, LONGEST_POLL_SECONDS, Creation
from dspyq.lane.deferral import LEASE_SECONDS
from dspyq.lane.journal import OpenLines
from dspyq.lane.line_holds import LineHolds
from dspyq.lane.parts import LaneParts
from dspyq.lane.providers.errors import BatchInterfaceError, RemoteMissing
from dspyq.lane.providers.protocol import BatchState, RemoteBatch
from dspyq.lane.shipment import Shipment
from dspyq.store.content import UnknownKey, UnreadableContent
from dspyq.store.scripts import run_together
from dspyq.store.spines import number_of_spines

#: A steady trickle of lines does not put a shipment off for longer than this many times ``batch_linger_seconds``.
_MOST_LINGERS = 10
#: A step that failed is taken again after so long, twice as long each further time.
_RETRY_SECONDS = (2.0, 600.0)
#: Between two looks at a batch passes this part of its age.
_POLL_PART = 0.05
#: A batch that its provider does not find any more is gone after so long.
_MISSING_SECONDS = 3600.0
#: Results that it does not find are gone after so long, and those that it does not give for another reason.
_RESULTS_MISSING_SECONDS, _RESULTS_LATE_SECONDS = 24 * 3600.0, 29 * 24 * 3600.0
_RENEWALS_PER_LEASE = 8
#: A second batch of a shipment is looked for once more when the listing must show it, this many settle_seconds later.
_SETTLES_UNTIL_CERTAIN = 5


class LaneRunner:
    """The runner of one lane in this worker.

    Args:
        parts: The lane's parts.
    """

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts
        self._creation = Creation(parts)
        self._model = parts.model
        self._journal = parts.journal
        self._provider = parts.provider
        self._collecting = parts.collecting
        self._holds = LineHolds(parts.journal, parts.budget, parts.collecting.landing)
        self._scarcity = parts.scarcity
        self._renew_at = 0.0
        self._looked_at = 0
        self._cancelled: frozenset[str] = frozenset()
        self._steps: dict[str, Callable[[Shipment], Shipment | None]] = {
            "filling": self._fill,
            "filled": self._upload,
            "uploaded": self._creation.create,
            "submitting": self._creation.look_for_batch,
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
        self._parts.now = opened.now
        shipments = self._journal.shipments()
        self._cancelled = self._journal.cancelled() if shipments else frozenset()
        self._scarcity.wake(opened)
        if opened.number and not any(one.state == "filling" for one in shipments) and self._is_due(opened, shipments):
            shipments.append(Shipment(f"dspyq-{uuid.uuid4().hex[:20]}"))
        for shipment in shipments:
            if shipment.not_before <= self._parts.now or shipment.name in self._cancelled:
                self._advance(replace(shipment, not_before=0.0, failures=0), shipment.failures)
        if opened.number:
            self._drop_gone()
        if opened.all_lines and self._parts.now >= self._renew_at:
            self._renew_holds()
        if not opened.all_lines and not opened.unpaid_rows and not shipments:
            self._journal.close()
            return False
        return True

    def _is_due(self, opened: OpenLines, shipments: list[Shipment]) -> bool:
        linger = self._model.batch_linger_seconds
        is_full = opened.number >= self._most_lines
        oldest, latest = self._scarcity.quiet_seconds(opened)
        has_waited = latest >= linger or oldest >= _MOST_LINGERS * linger
        is_flushed = self._journal.is_flushed()
        if not (is_full or has_waited or is_flushed) or (not is_flushed and self._are_put_off(opened, shipments)):
            return False
        return self._room_tokens(shipments) is None or self._room_bytes(shipments) > 0

    def _are_put_off(self, opened: OpenLines, shipments: list[Shipment]) -> bool:
        """Return True for open lines that wait for money to come free; take back those that leave the lane."""
        leaving = self._scarcity.puts_off(opened, shipments, self._model.batch_linger_seconds)
        for custom_id, line in self._journal.lines(leaving or ()).items():
            if self._journal.take_back(custom_id):
                run_together(
                    self._parts.budget.client, [self._parts.budget.take_back(line.billed(self._model.name, custom_id))]
                )
        if leaving:
            self._parts.log("lane_rest_leaves", "", lines=len(leaving))
        return leaving is not None

    def _advance(self, shipment: Shipment, failures: int) -> None:
        """Take steps of a shipment, the first of which has failed so often before, until one has to wait."""
        current: Shipment | None = shipment
        try:
            while current is not None and current.not_before <= self._parts.now:
                state = current.state
                current = self._steps[state](current)
                failures = 0
                if current is not None and current.state == state:
                    break
        except (BatchInterfaceError, OSError, UnknownKey) as error:
            self._put_off(shipment.name, error, failures + 1)
        except UnreadableContent:
            self._creation.without_unreadable(shipment.name)

    def _put_off(self, name: str, error: Exception, failures: int) -> None:
        """Have a step that failed so often in a row taken again later; what was saved of it stays."""
        first, longest = _RETRY_SECONDS
        seconds = min(longest, first * 2.0 ** min(failures - 1, 10))
        if isinstance(error, BatchInterfaceError) and error.retry_after_seconds:
            seconds = max(seconds, min(error.retry_after_seconds, longest))
        metrics.FAILURES.labels(self._model.name, type(error).__name__).inc()
        text = str(error) if isinstance(error, BatchInterfaceError) else type(error).__name__
        self._parts.log("lane_step_failed", name, logging.WARNING, error=text, again_seconds=round(seconds, 1))
        current = next((one for one in self._journal.shipments() if one.name == name), None)
        if current is not None:
            self._journal.save(replace(current, not_before=self._parts.now + seconds, failures=failures))

    def _fill(self, shipment: Shipment) -> Shipment | None:
        """Move open lines into the shipment until it is full."""
        limits = self._provider.limits
        most_bytes = min(self._model.batch_max_bytes, limits.size_bytes)
        if (room := self._room_bytes(self._journal.shipments())) > 0:
            most_bytes = min(most_bytes, room)
        while True:
            moved = self._journal.fill(shipment.name, self._most_lines, most_bytes, limits.line_overhead_bytes)
            if moved.gone:
                self._collecting.landing.drop(moved.gone)
            if moved.is_done:
                break
        if not moved.lines:
            return None
        self._journal.clear_flush()
        stored = next((one for one in self._journal.shipments() if one.name == shipment.name), shipment)
        filled = replace(stored, lines=moved.lines, size_bytes=moved.size_bytes)
        return self._parts.save(filled.at("filled", filled_at=self._parts.now), "lane_filled")

    @property
    def _most_lines(self) -> int:
        return min(self._model.batch_max_lines, self._provider.limits.lines)

    def _room_tokens(self, shipments: list[Shipment]) -> float | None:
        """Return how many more prompt tokens may wait; None for any number. Lanes of spines have equal parts."""
        most = self._model.batch_enqueued_tokens or self._journal.quota_tokens
        if most is None:
            return None
        waiting = [one for one in shipments if one.state not in {"filling", "collecting", "closing"}]
        return most / number_of_spines() - sum(one.size_bytes for one in waiting) / BYTES_PER_TOKEN

    def _room_bytes(self, shipments: list[Shipment]) -> int:
        room = self._room_tokens(shipments)
        return 0 if room is None else max(0, int(room * BYTES_PER_TOKEN))

    def _upload(self, shipment: Shipment) -> Shipment | None:
        has_files = self._provider.has_files
        may_have_file = has_files and (shipment.uploads or shipment.refusals or shipment.depth)
        for orphan in self._provider.orphan_files(shipment.name) if may_have_file else ():
            self._provider.delete_file(orphan.id)
        shipment = self._journal.save_for_certain(replace(shipment, uploads=shipment.uploads + has_files))
        lines = self._holds.secure(shipment.name, LEASE_SECONDS)
        if not lines:  # a Redis that restarted has lost that they were in it, or they have no money any more
            self._journal.close(shipment.name)
            return None
        shipment = replace(shipment, lines=lines)
        if not has_files:
            return self._parts.save(shipment.at("uploaded"))
        file_id = self._provider.upload(shipment.name, self._journal.bodies(shipment.name))
        return self._parts.save(shipment.at("uploaded", file_id=file_id), "lane_uploaded")

    def _poll(self, shipment: Shipment) -> Shipment | None:
        if shipment.name in self._cancelled:
            self._provider.cancel(shipment.batch_id)
            self._journal.drop_cancelled(shipment.name)
            self._parts.log("lane_cancelled", shipment.name)
        try:
            batch = self._provider.poll(shipment.batch_id)
        except RemoteMissing:
            if self._parts.now - shipment.submitted_at < _MISSING_SECONDS or self._creation.batches_of(
                replace(shipment, batch_id="")
            ):
                raise
            self._parts.log("lane_batch_gone", shipment.name, logging.ERROR, batch=shipment.batch_id)
            self._collecting.charge_unknown(shipment)
            return self._parts.save(
                shipment.at("closing", ended_at=self._parts.now, remote_state="gone"), "lane_landed"
            )
        if batch.is_over_quota:
            limits = [fault.limit_tokens for fault in batch.faults if fault.limit_tokens]
            return self._creation.wait_for_quota(shipment, min(limits, default=None))
        if batch.state is BatchState.FAILED and not batch.succeeded_lines:
            return self._creation.refused(shipment, batch.faults[0].code if batch.faults else "failed", batch)
        if batch.state is BatchState.RUNNING and not shipment.is_accepted:
            self._journal.drop_bodies(shipment.name)
            shipment = replace(shipment, is_accepted=True)
        if not batch.state.is_final:
            age = self._parts.now - shipment.submitted_at
            seconds = min(LONGEST_POLL_SECONDS, max(self._parts.times.first_poll_seconds, age * _POLL_PART))
            return self._parts.save(replace(shipment, not_before=self._parts.now + seconds))
        metrics.SECONDS.labels(self._model.name).observe(self._parts.now - shipment.submitted_at)
        ended = shipment.at("collecting", ended_at=self._parts.now, remote_state=batch.state.value)
        return self._parts.save(ended, "lane_ended")

    def _collect(self, shipment: Shipment) -> Shipment | None:
        if shipment.was_uncertain:
            self._journal.keep_copies(shipment.name)
        try:
            landed = self._collecting.collect(shipment, self._provider.poll(shipment.batch_id))
        except BatchInterfaceError as error:
            is_missing = isinstance(error, RemoteMissing)
            patience = _RESULTS_MISSING_SECONDS if is_missing else _RESULTS_LATE_SECONDS
            if self._parts.now - shipment.ended_at < patience:
                raise
            self._parts.log("lane_results_gone", shipment.name, logging.ERROR, batch=shipment.batch_id)
            landed = self._collecting.charge_unknown(shipment)
        self._scarcity.landed(shipment.lines, self._parts.now)
        counted = replace(shipment, answered=landed.answered, failed=landed.failed, unanswered=landed.unanswered)
        return self._parts.save(counted.at("closing"), "lane_landed")

    def _look_for_doubles(self, shipment: Shipment) -> Shipment | None:
        """Find batches that were created twice after all; end them, and put what they cost into the books."""
        if shipment.was_uncertain:
            look_at = shipment.tried_at + _SETTLES_UNTIL_CERTAIN * self._parts.times.settle_seconds
            if self._parts.now < look_at:
                return self._parts.save(replace(shipment, not_before=look_at))
        for double in self._creation.batches_of(shipment) if shipment.was_uncertain else ():
            if not double.state.is_final:
                self._provider.cancel(double.id)
                return self._parts.save(
                    replace(shipment, not_before=self._parts.now + self._parts.times.first_poll_seconds)
                )
            lines = self._charge_double(shipment, double)
            metrics.DOUBLES.labels(self._model.name).inc()
            self._parts.log("lane_double_charged", shipment.name, logging.ERROR, batch=double.id, lines=lines)
            self._provider.delete_files(double)
            shipment = self._parts.save(replace(shipment, dead_batches=(*shipment.dead_batches, double.id)))
        if self._journal.has_lines_left(shipment.name):  # a Redis that restarted has lost their landing
            return self._land_again(shipment)
        with suppress(RemoteMissing):  # and so have its files
            if not shipment.batch_id and shipment.file_id:
                self._provider.delete_file(shipment.file_id)
            elif shipment.batch_id and shipment.remote_state != "gone":
                self._provider.delete_files(self._provider.poll(shipment.batch_id))
        self._journal.close(shipment.name)
        self._parts.log("lane_closed", shipment.name)
        return None

    def _land_again(self, shipment: Shipment) -> Shipment:
        if shipment.batch_id and shipment.remote_state != "gone":
            return self._parts.save(shipment.at("collecting"))
        if shipment.batch_id:
            self._collecting.charge_unknown(shipment)
        else:
            self._collecting.give_up(shipment.name, shipment.remote_state, is_lasting=shipment.lines == 1)
        return self._parts.save(shipment)

    def _charge_double(self, shipment: Shipment, double: RemoteBatch) -> int:
        """Charge a second batch for certain, before its files are deleted; return how many lines it answered."""
        lines = self._collecting.charge_double(shipment, double)
        for batch in shipment.batches[:1]:
            self._collecting.landing.wait_for_disk(batch)
            self._collecting.charge_double(shipment, double)  # once more: a Redis that restarted may have lost it
        return lines

    def _drop_gone(self) -> None:
        """Drop open lines whose job was ended, as by the cancellation of its batch, some hundred at a time."""
        looked_at, gone = self._journal.gone_lines(self._looked_at)
        self._looked_at = self._looked_at + looked_at - len(gone) if looked_at else 0
        if gone:
            self._collecting.landing.drop(gone)
            self._parts.log("lane_lines_dropped", "", lines=len(gone))

    def _renew_holds(self) -> None:
        self._holds.renew(LEASE_SECONDS)
        self._renew_at = self._parts.now + LEASE_SECONDS / _RENEWALS_PER_LEASE
