"""Every error of dspyq, under one root.

Each message states in one line what is wrong and what to change; ``retryable`` is true if a retry can help. Errors
that cross the result backend are rebuilt by Celery from their ``args``, so ``args`` is always exactly the one message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class DspyqError(Exception):
    """Base class of all errors of dspyq.

    Attributes:
        retryable: Whether the same call can succeed later without a change by its caller.
        retry_after_seconds: Seconds until the next try; None if unknown.
    """

    retryable: bool = False
    retry_after_seconds: float | None = None


class ConfigurationError(DspyqError):
    """The configuration cannot be used.

    Attributes:
        faults: Each fault as one line that names the setting to change.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("; ".join(self.faults))


class InvalidRequest(DspyqError):
    """The request can never be served; nothing was sent."""


class UnknownProgram(InvalidRequest):
    """No ``[programs.<name>]`` table has this name."""


class UnknownVariant(InvalidRequest):
    """The program has no variant of this name."""


class InvalidInputs(InvalidRequest):
    """Inputs are missing, unknown, of the wrong type, or not JSON.

    Attributes:
        faults: Where they are known one by one, each fault's JSON pointer into the inputs and its text.
    """

    faults: tuple[tuple[str, str], ...] = ()


class InputsTooLarge(InvalidRequest):
    """The inputs, as JSON, exceed the program's ``max_input_bytes``."""


class InvalidOption(InvalidRequest):
    """An option of the call that predictions do not support."""


class BatchRefused(DspyqError):
    """A batch cannot run, or cannot resume, with these arguments."""


class OutputInUse(BatchRefused):
    """Another process works on a batch's output."""

    retryable = True


class ExperimentRefused(DspyqError):
    """The experiment cannot be changed so, as it stands. A retry alone never helps."""


class FeedbackRefused(InvalidRequest):
    """A judgement that is not counted: of no exposure, under an unknown name, out of its range, or too late.

    Attributes:
        is_late: Whether no judgement of this answer is counted any more.
    """

    is_late = False


class InvalidFile(DspyqError):
    """A batch's input cannot be read as a whole: missing, of another format, or without the program's columns."""


class RedisUnavailable(DspyqError):
    """Redis does not answer, or refuses the connection or command."""

    retryable = True


class DamagedKey(DspyqError):
    """A key of dspyq in Redis holds a value of another type: another program wrote it."""


class NotAPrediction(DspyqError):
    """The stored result was not written by a dspyq worker."""


class AnswerLost(DspyqError):
    """Redis evicted the answer before it was read, or lost the job: call again to compute it anew."""

    retryable = True


class Unavailable(DspyqError):
    """A breaker, a rate limit or a budget refuses the model call for now, or Redis does not answer."""

    retryable = True


class BreakerOpen(Unavailable):
    """The circuit breaker of the model is open, because its provider is down."""


class RateLimited(Unavailable):
    """The model's rate limit is used up, or its provider answered 429."""


class BudgetExceeded(Unavailable):
    """The call may cost more than a budget has left."""


class TenantLimitReached(BudgetExceeded):
    """The tenant has spent its limit of the day or the month, or the call may cost more than the rest."""


class BatchLimitReached(BudgetExceeded):
    """The batch has spent its ``--max-usd``, or its next call may cost more than the rest."""


class BatchShareUsed(BudgetExceeded):
    """The batch has used up its share of the day's budget: it continues when there is more, or the next day."""


class AccountRefused(Unavailable):
    """The model's provider refuses the account: a wrong key, no permission, or its quota is used up."""


class VariantKilled(DspyqError):
    """The variant, an arm of an experiment, was killed: no model call of it begins any more."""


class DeadlineExceeded(DspyqError):
    """The prediction ran longer than its program's ``deadline_seconds``."""


class UnboundedCall(DspyqError):
    """A budget cannot hold a call whose cost has no bound: no ``max_tokens``, or parts that are not text."""


class UnguardedModel(DspyqError):
    """The program made a model of its own while it ran, and called it: that call would bypass every guard."""


class VariantMismatch(DspyqError):
    """The worker's variant differs from the one the job was made for: its files are of another version."""

    retryable = True


class PoisonedJob(DspyqError):
    """The job was dead-lettered: its workers died or froze too often, or its message cannot be read."""


class PredictionFailed(DspyqError):
    """The program ran and raised; the message starts with the type of what it raised.

    Attributes:
        calls: In the worker that ran it, its model calls until then (``dspyq.guards.ledger.CallRecord``).
    """

    calls: tuple[Any, ...] = ()


class TransientPredictionFailure(PredictionFailed):
    """The program failed for a passing reason: a timeout, a 5xx, a lost connection, a rate limit."""

    retryable = True


class InvalidOutputs(PredictionFailed):
    """The program's outputs do not match its signature."""
