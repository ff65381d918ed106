"""The error of a caller whose answer did not come in time, with what its job waits for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.config.settings import get_settings
from dspyq.core.runtime import Runtime, bound, current
from dspyq.delivery.waits import why_it_waits
from dspyq.store.clients import jobs_client
from dspyq.store.spines import place_of, process_spines

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: A shorter wait is a poll, and its error costs no round trip.
_EXPLAINED_SECONDS = 2.0
#: A Redis that does not answer delays the error by no more than this.
_LOOK_SECONDS = 1.0


def timed_out(task_id: str, timeout_seconds: float, question: str = "") -> CeleryTimeoutError:
    """Return the error; after a wait of some seconds it takes one round trip.

    Args:
        task_id: The task.
        timeout_seconds: How long it was waited for.
        question: The input hash of its question, where that is known; else its job is looked for on each spine.
    """
    text = f"no answer within {timeout_seconds:g} s; the prediction goes on"
    return _explained(text, task_id, question, timeout_seconds)


def members_timed_out(missing: Sequence[Any], members: int, timeout_seconds: float) -> CeleryTimeoutError:
    """Return the error of a group, with what the first of the missing members waits for; it costs as much as for one.

    Args:
        missing: The members without a result.
        members: How many the group has.
        timeout_seconds: How long they were waited for.
    """
    text = f"{len(missing):,} of {members:,} answers are missing after {timeout_seconds:g} s; the predictions go on"
    first = missing[0]
    return _explained(text, first.id, getattr(first, "question", ""), timeout_seconds, of="of the first, ")


def _explained(text: str, task_id: str, question: str, timeout_seconds: float, *, of: str = "") -> CeleryTimeoutError:
    if timeout_seconds < _EXPLAINED_SECONDS:
        return CeleryTimeoutError(text)
    reasons: list[str] = []
    # Here: the thread may outlive them, and makes none of its own.
    clients = [(each, each.bind(jobs_client)()) for each in _runtimes(task_id, question)]
    settings = get_settings()

    def look() -> None:
        reasons.append(_reason(clients, settings, task_id))

    looking = threading.Thread(target=bound(look), name="dspyq-why", daemon=True)
    looking.start()
    looking.join(_LOOK_SECONDS)
    return CeleryTimeoutError(f"{text}: {of}{reasons[0] if reasons else 'Redis does not answer'}")


def _runtimes(task_id: str, question: str) -> list[Runtime]:
    """Return where a job may be: on its question's spine, which a chosen id does not lead to."""
    spines = process_spines()
    if spines is None:
        return [current()]
    likely = spines.of(place_of(question, task_id))
    others = [] if question else [spine for spine in spines.all if spine is not likely]
    return [spine.runtime for spine in (likely, *others)]


def _reason(clients: Sequence[tuple[Runtime, redis.Redis]], settings: Settings, task_id: str) -> str:
    queue = why = ""
    try:
        for runtime, client in clients:
            with runtime.active():
                queue, why = why_it_waits(client, settings, task_id)
            if queue:
                break
    except redis.RedisError as error:
        return f"Redis does not answer ({type(error).__name__})"
    return why or f"it waits for its turn in {queue}"
