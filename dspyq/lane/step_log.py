"""Log lines of lanes, without any content."""

from __future__ import annotations

import logging

from dspyq.core.events import Event

logger = logging.getLogger("dspyq.lane")


def log_step(event: str, model: str, shipment: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log a step of a shipment; of the whole lane where no shipment is named."""
    logger.log(level, Event(event, model=model, shipment=shipment, **fields))
