"""Attempts and probes that a question has spent: the rule of docs/guards-limits.md, as a pure function."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from dspyq.guards.breaker_state import Suspect
from dspyq.guards.call_records import CallRecord
from dspyq.guards.provider_gate import Refused


class Spent(NamedTuple):
    """Attempts and probes that count against a question.

    Attributes:
        attempts: Failures of one call, against ``retry.max_attempts``.
        probes: Failures that opened the breaker, as a failed probe does, against ``retry.most_probes``.
    """

    attempts: int
    probes: int


def count_spent(calls: Iterable[CallRecord], key: str, row: int, outages: Collection[int]) -> Spent:
    """Return the attempts and probes that a question has spent, over all runs of its job.

    Args:
        calls: Its calls of one model.
        key: The call whose attempts are counted.
        row: The current row of failures; 0 if the model's latest call succeeded.
        outages: The last rows that were outages.
    """
    failed = [call for call in calls if call.spends_attempt or call.opens_breaker]
    outages = {*outages, *(call.row for call in failed if call.is_in_outage)}
    own = [call for call in failed if call.row not in outages]
    survived = {call.row for call in failed if call.row in outages and call.row != row}
    attempts = sum(call.spends_attempt and call.key == key for call in own)
    return Spent(attempts + len(survived), sum(call.opens_breaker for call in own))


def count_refusals(calls: Iterable[CallRecord], key: str) -> int:
    """Return how often a call was refused as the account's although others succeeded since the previous time.

    Args:
        calls: A question's calls of one model.
        key: The call.
    """
    rows = {call.account_row for call in calls if call.key == key and call.account_row}
    return max(0, len(rows) - 1)


def count_lone_refusals(calls: Iterable[CallRecord], crowded_at: int) -> int:
    """Return how often a 429 refused a question although others were answered since the time before.

    Args:
        calls: Its calls of one model, over all runs of its job.
        crowded_at: Four different questions were refused since then, so what came before is no evidence.
    """
    rows = {call.refused_row for call in calls if call.refused_at > crowded_at}
    return max(0, len(rows) - 1)


def refused_of(calls: Iterable[CallRecord], question: str) -> Refused:
    """Return the question of a call that a 429 refused, as reported to the provider's gate.

    Args:
        calls: Its calls of that model before.
        question: Its name.
    """
    latest = max((call for call in calls if call.refused_at), key=lambda call: call.refused_at, default=None)
    return Refused(question, latest.refused_row, latest.refused_at) if latest else Refused(question)


def suspect_of(calls: Iterable[CallRecord], question: str) -> Suspect:
    """Return the question of a call, as reported to the model's breaker.

    Args:
        calls: Its calls of that model.
        question: Its name.
    """
    latest = max((call for call in calls if call.row), key=lambda call: call.failed_at, default=None)
    return Suspect(question, latest.row, latest.failed_at) if latest else Suspect(question)
