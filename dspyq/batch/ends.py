"""The end of a batch's run, for others than its caller: a log line and a count for metrics.

Its caller has the event ``finished``, which ``--json`` prints.
"""

from __future__ import annotations

import logging
from typing import Any

import redis

from dspyq.batch.events import BatchOutcome
from dspyq.core.events import Event
from dspyq.store.clients import money_client
from dspyq.store.keys import key
from dspyq.store.scripts import read_hash

logger = logging.getLogger("dspyq.batches")

_ENDS = "batch-ends"


def note_end(outcome: BatchOutcome, program: str, lane: str) -> None:
    """Log and count the end of a batch's run; where Redis does not answer, the log line stays.

    Args:
        outcome: Its outcome.
        program: Its program.
        lane: Its lane; empty for live calls.
    """
    fields = {
        "batch": outcome.batch_id,
        "program": program,
        "lane": lane or "live",
        "state": outcome.state,
        "rows": outcome.rows,
        "ok": outcome.ok,
        "failed": sum(outcome.failed_by_type.values()),
        "left": outcome.left,
        "spent_usd": outcome.spent_usd,
    }
    logger.info(Event("batch_ended", **fields))
    try:
        money_client().hincrby(key(_ENDS), f"{program}:{outcome.state}", 1)
    except redis.RedisError as error:
        logger.warning(Event("batch_end_not_counted", batch=outcome.batch_id, error=type(error).__name__))


def read_ends(reply: Any) -> dict[tuple[str, str], int]:
    """Return how many runs of batches ended, by program and state, from the reply to ``ends_command``."""
    ends = {}
    for name, number in read_hash(reply).items():
        program, _, state = name.decode(errors="replace").rpartition(":")
        if number.isdigit():
            ends[program, state] = int(number)
    return ends


def ends_command() -> tuple[str, str]:
    """Return the command that reads them."""
    return "HGETALL", key(_ENDS)
