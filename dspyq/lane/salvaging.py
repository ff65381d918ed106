"""Salvage of replies that a provider still has, after Redis has lost its data: the same calls are not paid again."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any

from dspyq.core.events import Event
from dspyq.guards.call import LineReader
from dspyq.lane.line import call_key_of
from dspyq.lane.providers.errors import RemoteMissing
from dspyq.lane.providers.protocol import BatchProvider, LineOutcome, RemoteBatch, RemoteLine
from dspyq.store import content
from dspyq.store.clients import jobs_client
from dspyq.store.keys import lane_key
from dspyq.store.spines import each_spine

logger = logging.getLogger("dspyq.lane")

#: Names of our shipments.
NAME_START = "dspyq-"
_CUSTOM_ID = re.compile(r"[0-9a-f]{32}-\d+-\d+-[A-Za-z0-9]{1,12}")
_KEPT_SECONDS = 86_400
_AT_ONCE = 200
_OK = 200


@dataclass
class SalvagedReplies:
    """Result of a salvage.

    Attributes:
        batches: Batches of ours that had ended, and were read.
        running: Batches of ours that had not; salvage again later.
        replies: Replies that were kept, by the digest of their request.
        unreadable: Lines that could not be read.
        gone: Names of batches of ours whose results the provider does not have any more, as of shipments that were
            collected; the batch's id where it has no name.
    """

    batches: int = 0
    running: int = 0
    replies: int = 0
    unreadable: int = 0
    gone: list[str] = field(default_factory=list)


class Salvage:
    """Reads the batches of a model's provider again.

    Args:
        model: The model's table.
        provider: The batch interface.
        reader: The model's engine.
    """

    def __init__(self, model: str, provider: BatchProvider, reader: LineReader) -> None:
        self._model = model
        self._provider = provider
        self._reader = reader

    def run(self, since_seconds: float) -> SalvagedReplies:
        """Keep the replies of all our batches for a day, in which the same calls take them and cost nothing.

        Their cost is in no book of this Redis: the books were lost with the rest.

        Args:
            since_seconds: Batches created before are passed over; seconds since 1970.
        """
        found = SalvagedReplies()
        for batch in self._provider.batches_named(NAME_START, since_seconds):
            if not batch.state.is_final:
                found.running += 1
                continue
            try:
                self._read_batch(batch, found)
            except RemoteMissing:  # a finished shipment has its files deleted
                found.gone.append(batch.name or batch.id)
            else:
                found.batches += 1
        counts = {"batches": found.batches, "replies": found.replies, "gone": len(found.gone)}
        logger.info(Event("lane_salvaged", model=self._model, **counts))
        return found

    def _read_batch(self, batch: RemoteBatch, found: SalvagedReplies) -> None:
        kept: dict[Any, Any] = {}
        try:
            for line in self._provider.read_lines(batch):
                if _CUSTOM_ID.fullmatch(line.custom_id) and line.outcome is LineOutcome.ANSWERED:
                    self._read(line, kept, found)
                if len(kept) >= _AT_ONCE:
                    self._keep(kept)
        finally:  # what was read is paid, whatever the rest is
            self._keep(kept)

    def _read(self, line: RemoteLine, kept: dict[Any, Any], found: SalvagedReplies) -> None:
        try:
            _, reply = self._reader.answer(line.status or _OK, line.body or {})
        except Exception:  # noqa: BLE001 - what the provider wrote is no reply; it is counted
            reply = None
        if reply is None:
            found.unreadable += 1
            return
        call_key = call_key_of(line.custom_id)
        kept[call_key] = content.encode(content.Kind.REPLY, call_key, reply)
        found.replies += 1

    def _keep(self, kept: dict[Any, Any]) -> None:
        for _ in each_spine() if kept else ():  # replies do not state their questions, and so no spine
            name = lane_key(self._model, "salvaged")
            jobs_client().hset(name, mapping=kept)
            jobs_client().expire(name, _KEPT_SECONDS)
        kept.clear()
