"""The error of a caller whose answer did not come in time, with what its job waits for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import redis
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.config.settings import get_settings
from dspyq.core.runtime import bound
from dspyq.delivery.waits import why_it_waits
from dspyq.store.clients import jobs_client

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: A shorter wait is a poll, and its error costs no round trip.
_EXPLAINED_SECONDS = 2.0
#: A Redis that does not answer delays the error by no more than this.
_LOOK_SECONDS = 1.0


def timed_out(task_id: str, timeout_seconds: float) -> CeleryTimeoutError:
    """Return the error; after a wait of some seconds it takes one round trip."""
    return _explained(f"no answer within {timeout_seconds:g} s; the prediction goes on", task_id, timeout_seconds)


def members_timed_out(task_ids: Sequence[str], members: int, timeout_seconds: float) -> CeleryTimeoutError:
    """Return the error of a group, with what the first of the missing members waits for; it costs as much as for one.

    Args:
        task_ids: The members without a result.
        members: How many the group has.
        timeout_seconds: How long they were waited for.
    """
    missing = f"{len(task_ids):,} of {members:,} answers are missing after {timeout_seconds:g} s"
    return _explained(f"{missing}; the predictions go on", task_ids[0], timeout_seconds, of="of the first, ")


def _explained(text: str, task_id: str, timeout_seconds: float, *, of: str = "") -> CeleryTimeoutError:
    if timeout_seconds < _EXPLAINED_SECONDS:
        return CeleryTimeoutError(text)
    reasons: list[str] = []
    client, settings = jobs_client(), get_settings()  # here: the thread may outlive them, and makes none of its own

    def look() -> None:
        reasons.append(_reason(client, settings, task_id))

    looking = threading.Thread(target=bound(look), name="dspyq-why", daemon=True)
    looking.start()
    looking.join(_LOOK_SECONDS)
    return CeleryTimeoutError(f"{text}: {of}{reasons[0] if reasons else 'Redis does not answer'}")


def _reason(client: redis.Redis, settings: Settings, task_id: str) -> str:
    try:
        queue, why = why_it_waits(client, settings, task_id)
    except redis.RedisError as error:
        return f"Redis does not answer ({type(error).__name__})"
    return why or f"it waits for its turn in {queue}"
