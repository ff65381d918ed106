"""Parts of a lane that its runner and what creates its batches have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dspyq.config.models import Model
from dspyq.guards.budget import Budget
from dspyq.lane.collecting import Collecting
from dspyq.lane.journal import LaneJournal
from dspyq.lane.providers.protocol import BatchProvider
from dspyq.lane.scarcity import Scarcity
from dspyq.lane.shipment import Shipment
from dspyq.lane.step_log import log_step

_FIGURES = ("batch_id", "remote_state", "answered", "failed", "unanswered")


@dataclass(frozen=True)
class LaneTimes:
    """Times of a lane, in seconds.

    Attributes:
        first_poll_seconds: After its creation a batch is looked at for the first time.
        settle_seconds: A lost creation is looked for so long before another one is begun.
    """

    first_poll_seconds: float = 30.0
    settle_seconds: float = 120.0


@dataclass
class LaneParts:
    """The parts of one lane in the worker that runs it.

    Attributes:
        model: The model's table.
        journal: The lane's journal.
        provider: The batch interface.
        collecting: Lands the outcomes of batches that have ended.
        budget: The budget, in which its lines are held.
        scarcity: Its rows that wait for money.
        times: Its times.
        now: The time by Redis's clock, as of the latest step.
    """

    model: Model
    journal: LaneJournal
    provider: BatchProvider
    collecting: Collecting
    budget: Budget
    scarcity: Scarcity
    times: LaneTimes
    now: float = 0.0

    def save(self, shipment: Shipment, event: str = "") -> Shipment:
        """Save a shipment's next step, before it is taken; log the event, if one is named. Return the shipment.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        saved = self.journal.save(shipment)
        if event:
            figures = {name: getattr(shipment, name) for name in _FIGURES}
            self.log(event, shipment.name, lines=shipment.lines, **{name: of for name, of in figures.items() if of})
        return saved

    def log(self, event: str, shipment: str, level: int = logging.INFO, /, **fields: object) -> None:
        """Log a step of a shipment, without any content."""
        log_step(event, self.model.name, shipment, level, **fields)
