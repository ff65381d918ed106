"""Interruptions of calls that a budget refuses, by the owner of the limit: its calls alone wait for it."""

from __future__ import annotations

import random
from collections.abc import Callable

from dspyq.guards.budget import HoldVerdict
from dspyq.guards.budget_errors import batch_error, limit_error
from dspyq.guards.interruptions import BatchRefusal, FailPrediction, Interruption, Refusal, RetryLater

#: A job waits this long in its queue for money that other calls hold.
PARK_SECONDS = (0.5, 2.0)
#: Jobs postponed for their batch's or their tenant's turn are delayed by up to this factor, so that they do not return
#: together.
LATE_BY_CHANCE = 1.2
#: A job that its tenant's limit refuses comes back after so long; each further time after twice as long, up to that.
_FIRST_POSTPONEMENT_SECONDS, _LONGEST_POSTPONEMENT_SECONDS = 5.0, 300.0


def refusal_of(verdict: HoldVerdict, seconds_left: Callable[[], float], run_count: int) -> Interruption:
    """Return the interruption of a call that a limit blocks.

    Only a limit that blocks the queue's other jobs too pauses it. A batch's and a tenant's are for its own calls.

    Args:
        verdict: The verdict on its cost; not that its arm was killed, and not ``busy``.
        seconds_left: Returns the seconds for which the limit will still block other jobs of the queue.
        run_count: Number of runs of its job, including this one.
    """
    interruption = _refusal_of(verdict, seconds_left, run_count)
    interruption.is_of_tenant = verdict.scope.startswith("tenant:")
    return interruption


def _refusal_of(verdict: HoldVerdict, seconds_left: Callable[[], float], run_count: int) -> Interruption:
    match verdict.verdict:
        case "never":
            return FailPrediction(limit_error(verdict))
        case "batch_busy" | "tenant_busy":  # it waits in its queue, where it blocks no other caller
            return RetryLater(random.uniform(*PARK_SECONDS))  # noqa: S311 - jitter
        case "tenant_rate":
            return RetryLater(verdict.wait_seconds * random.uniform(1, LATE_BY_CHANCE))  # noqa: S311 - jitter
        case "tenant_limit":
            return _postponement(verdict, run_count)
        case "batch_limit" | "batch_share" | "batch_closed":
            return BatchRefusal(batch_error(verdict))
    error = limit_error(verdict)
    return Refusal(error, wait_seconds=verdict.wait_seconds, pauses_queue=True, seconds_left=seconds_left)


def _postponement(verdict: HoldVerdict, run_count: int) -> Refusal:
    """Return the refusal of a job that looks again before the period ends: the limit may be raised at any time."""
    error = limit_error(verdict)
    longest = min(_LONGEST_POSTPONEMENT_SECONDS, _FIRST_POSTPONEMENT_SECONDS * 2.0 ** min(run_count - 1, 10))
    seconds = min(verdict.wait_seconds, longest * random.uniform(0.5, 1))  # noqa: S311 - jitter
    refusal = Refusal(error, wait_seconds=seconds, pauses_queue=False)
    error.retry_after_seconds = verdict.wait_seconds
    return refusal
