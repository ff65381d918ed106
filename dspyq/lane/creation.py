"""Creation of batches at a provider, and what follows if it is refused or its reply is lost.

The creation of a batch is the one step that must not be repeated: while it is unknown whether it had its effect, the
batch is looked for by its name. A second one that turns up all the same is cancelled, and charged at its end.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

from dspyq.lane import metrics
from dspyq.lane.journal import LaneLost
from dspyq.lane.parts import LaneParts
from dspyq.lane.providers.errors import (
    BatchInterfaceClosed,
    CreationUnknown,
    EnqueuedLimitReached,
    ProviderBusy,
    ShipmentRefused,
)
from dspyq.lane.providers.protocol import RemoteBatch, read_one_id
from dspyq.lane.shipment import Shipment
from dspyq.store.content import UnreadableContent

#: A provider is looked at at least so often.
LONGEST_POLL_SECONDS = 600.0
#: What a token of a prompt takes, about.
BYTES_PER_TOKEN = 4
#: A shipment that is refused is split at most so often: one request may be at fault, or all.
_MOST_SPLITS = 6


class Creation:
    """Creates the batches of one lane.

    Args:
        parts: The lane's parts.
    """

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts

    def create(self, shipment: Shipment) -> Shipment | None:
        """Create the batch of a shipment whose file is there."""
        tried = shipment.at("submitting", tried_at=self._parts.now, tries=shipment.tries + 1)
        return self._submit(self._parts.journal.save_for_certain(tried))

    def _submit(self, shipment: Shipment) -> Shipment | None:
        lines = () if self._parts.provider.has_files else self._parts.journal.bodies(shipment.name)
        try:
            batch = self._parts.provider.create(shipment.name, file_id=shipment.file_id, lines=lines)
        except CreationUnknown as error:
            self._parts.log("lane_creation_unknown", shipment.name, logging.WARNING, error=type(error).__name__)
            return None
        except EnqueuedLimitReached as error:
            return self.wait_for_quota(shipment, error.limit_tokens)
        except (ProviderBusy, BatchInterfaceClosed, UnreadableContent):  # the last before anything is sent
            self._parts.save(shipment.at("uploaded", tries=shipment.tries - 1))
            raise
        except ShipmentRefused as error:
            self._parts.save(shipment.at("uploaded", tries=shipment.tries - 1))
            return self.refused(shipment, error.code or f"http_{error.status}")
        try:
            return self._adopt(shipment, [batch])
        except LaneLost:
            self._leave(shipment, batch)
            raise

    def _leave(self, shipment: Shipment, batch: RemoteBatch) -> None:
        """Cancel a batch that this worker created too late, unless the one that has the lane now will find it."""
        current = next((one for one in self._parts.journal.shipments() if one.name == shipment.name), None)
        if current is not None and current.batch_id in {"", batch.id}:
            return
        self._cancel_double(shipment, batch)

    def _cancel_double(self, shipment: Shipment, batch: RemoteBatch) -> None:
        self._parts.log("lane_double_cancelled", shipment.name, logging.ERROR, batch=batch.id)
        metrics.DOUBLES.labels(self._parts.model.name).inc()
        self._parts.provider.cancel(batch.id)

    def look_for_batch(self, shipment: Shipment) -> Shipment | None:
        """Look for a batch whose creation was begun and not seen to end; begin it once more if none turns up."""
        times = self._parts.times
        if found := self.batches_of(shipment):
            return self._adopt(shipment, found)
        if self._parts.now - shipment.tried_at < times.settle_seconds:
            return self._parts.save(replace(shipment, not_before=self._parts.now + min(5.0, times.settle_seconds / 4)))
        self._parts.log("lane_created_again", shipment.name, logging.WARNING, tries=shipment.tries + 1)
        tried = replace(shipment, tried_at=self._parts.now, tries=shipment.tries + 1)
        return self._submit(self._parts.journal.save_for_certain(tried))

    def batches_of(self, shipment: Shipment) -> list[RemoteBatch]:
        """Return the batches of this shipment that its provider lists, without those known to be refused."""
        listed = self._parts.provider.find(shipment.name, shipment.filled_at, shipment.lines, shipment.file_id)
        listed = [one for one in listed if one.id not in shipment.dead_batches and one.id != shipment.batch_id]
        if self._parts.provider.has_names:
            return listed
        known = {one.batch_id for one in self._parts.journal.shipments()}
        return [one for one in listed if one.id not in known and self._is_own(shipment, one)]

    def _is_own(self, shipment: Shipment, batch: RemoteBatch) -> bool:
        """Return True if a batch without a name holds this shipment's lines; that shows once it has ended."""
        if not batch.state.is_final:
            raise ProviderBusy(
                "a batch of as many lines, and without a name, runs at the provider: it is looked at later"
            )
        custom_id = read_one_id(self._parts.provider, batch)
        return custom_id is not None and any(custom_id in ids for ids in self._parts.journal.all_ids_of(shipment.name))

    def _adopt(self, shipment: Shipment, batches: list[RemoteBatch]) -> Shipment:
        first, *others = batches
        poll_at = self._parts.now + self._parts.times.first_poll_seconds
        adopted = self._parts.save(
            shipment.at("submitted", batch_id=first.id, submitted_at=self._parts.now, not_before=poll_at),
            "lane_submitted",
        )
        for double in others:
            self._cancel_double(shipment, double)
        return adopted

    def wait_for_quota(self, shipment: Shipment, limit_tokens: int | None) -> Shipment | None:
        """Keep a shipment until others have ended; split it if it is larger than the account's whole quota."""
        metrics.REFUSALS.labels(self._parts.model.name, "quota").inc()
        if limit_tokens is not None:
            self._parts.journal.learn_quota(limit_tokens)
        dead = (*shipment.dead_batches, shipment.batch_id) if shipment.batch_id else shipment.dead_batches
        refused = replace(shipment, refusals=shipment.refusals + 1, dead_batches=dead, batch_id="", tries=0)
        if limit_tokens is not None and shipment.lines > 1 and shipment.size_bytes / BYTES_PER_TOKEN > limit_tokens:
            return self._split(refused)
        wait = min(LONGEST_POLL_SECONDS, self._parts.model.batch_linger_seconds)
        wait = max(self._parts.times.first_poll_seconds, wait)
        return self._parts.save(refused.at("uploaded", not_before=self._parts.now + wait), "lane_waits_for_quota")

    def refused(self, shipment: Shipment, code: str, batch: RemoteBatch | None = None) -> Shipment | None:
        """Find the lines for which a shipment was refused; land all without an outcome if that may be no line's."""
        metrics.REFUSALS.labels(self._parts.model.name, "lines").inc()
        self._parts.log("lane_refused", shipment.name, logging.WARNING, code=code, lines=shipment.lines)
        dead = (*shipment.dead_batches, batch.id) if batch is not None else shipment.dead_batches
        refused = replace(shipment, refusals=shipment.refusals + 1, dead_batches=dead, batch_id="", tries=0)
        if shipment.depth < _MOST_SPLITS:
            if named := {fault.line for fault in (batch.faults if batch else ()) if fault.line is not None}:
                return self._without(refused, named, code)
            if shipment.lines > 1:
                return self._split(refused)
        landed = self._parts.collecting.give_up(shipment.name, code, is_lasting=shipment.lines == 1)
        return self._parts.save(
            refused.at("closing", remote_state=code, failed=landed.failed, unanswered=landed.unanswered)
        )

    def _without(self, shipment: Shipment, numbers: set[int], code: str) -> Shipment | None:
        """Ship a shipment again without some of its lines, which are refused for good; they are counted from 1."""
        journal = self._parts.journal
        sent = (custom_id for ids in journal.all_ids_of(shipment.name) for custom_id in journal.lines(ids))
        refused = [custom_id for number, custom_id in enumerate(sent, start=1) if number in numbers]
        landed = self._parts.collecting.refuse(refused, code)
        left = shipment.lines - landed.failed
        changed = replace(shipment, lines=left, failed=landed.failed)
        if not left:
            return self._parts.save(changed.at("closing", remote_state=code))
        saved = self._parts.save(changed.at("filled", file_id="", depth=shipment.depth + 1))
        self._delete_file_of(shipment)
        return saved

    def without_unreadable(self, name: str) -> None:
        """Ship a shipment again without the unreadable requests; their programs make them again."""
        journal = self._parts.journal
        shipment = next(one for one in journal.shipments() if one.name == name)
        landed = self._parts.collecting.send_back(journal.unreadable_lines(name), "unreadable_request")
        self._parts.log("lane_requests_unreadable", name, logging.ERROR, lines=landed.unanswered)
        if left := shipment.lines - landed.unanswered:
            self._parts.save(shipment.at("filled", lines=left))
        else:
            self._parts.save(shipment.at("closing", lines=0))

    def _delete_file_of(self, shipment: Shipment) -> None:
        """Delete a file that is not sent again, once that is certain."""
        if shipment.file_id:
            self._parts.journal.sync()
            self._parts.provider.delete_file(shipment.file_id)

    def _split(self, shipment: Shipment) -> Shipment | None:
        half = shipment.lines // 2
        part = replace(
            shipment,
            state="filled",
            file_id="",
            lines=half,
            size_bytes=shipment.size_bytes // 2,
            depth=shipment.depth + 1,
        )
        other = replace(
            part,
            name=f"dspyq-{uuid.uuid4().hex[:20]}",
            lines=shipment.lines - half,
            size_bytes=shipment.size_bytes - part.size_bytes,
            dead_batches=(),
        )
        self._parts.journal.split(part, other)
        self._delete_file_of(shipment)
        return None
