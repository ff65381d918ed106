"""Every error of dspyq, under one root.

Each says in one line what is wrong and what to change, and carries whether trying again can help. Errors that cross the
result backend are rebuilt by Celery from their ``args``, so ``args`` is always exactly the one message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class DspyqError(Exception):
    """The root of all errors of dspyq.

    Attributes:
        retryable: Whether the same call can succeed later without a change by its caller.
        retry_after_seconds: When to try again, where that is known.
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
    """A prediction was asked for in a way that can never be served."""


class UnknownProgram(InvalidRequest):
    """No ``[programs.<name>]`` table has this name."""


class UnknownVariant(InvalidRequest):
    """The program has no variant of this name."""


class InvalidInputs(InvalidRequest):
    """Inputs are missing, unknown, of the wrong type, or not JSON."""


class InputsTooLarge(InvalidRequest):
    """The inputs, as JSON, exceed the program's ``max_input_bytes``."""


class InvalidOption(InvalidRequest):
    """An option of ``apply_async`` that a prediction cannot honour."""


class BatchRefused(DspyqError):
    """A batch cannot be run, or not go on, as it was asked for."""


class OutputInUse(BatchRefused):
    """Another process works on a batch's output."""

    retryable = True


class InvalidFile(DspyqError):
    """A batch's input cannot be read as a whole: missing, of another format, or without the program's columns."""


class RedisUnavailable(DspyqError):
    """Redis does not answer, or refuses us."""

    retryable = True


class NotAPrediction(DspyqError):
    """The stored result was not written by a dspyq worker."""


class AnswerLost(DspyqError):
    """The answer was stored and Redis has forgotten it, or Redis has lost the job: nothing will bring one any more."""

    retryable = True


class Unavailable(DspyqError):
    """A model cannot be called now: a breaker, a rate limit or a budget stands before it, or Redis cannot say."""

    retryable = True


class BreakerOpen(Unavailable):
    """The model's provider is ill, and its circuit breaker open."""


class RateLimited(Unavailable):
    """The model's rate limit is used up, or its provider asked everybody to wait."""


class BudgetExceeded(Unavailable):
    """The call may cost more than a budget has left."""


class BatchLimitReached(BudgetExceeded):
    """The batch has spent what ``--max-usd`` allows it, or its next call may cost more than is left."""


class BatchShareUsed(BudgetExceeded):
    """The batch has used its share of what the day's budget leaves: it goes on when there is more, or the next day."""


class AccountRefused(Unavailable):
    """The model's provider refuses the account: a wrong key, no permission, or its quota is used up."""


class DeadlineExceeded(DspyqError):
    """The prediction ran longer than its program's ``deadline_seconds``."""


class UnboundedCall(DspyqError):
    """A budget cannot hold a call whose cost has no bound: no ``max_tokens``, or parts that are not text."""


class VariantMismatch(DspyqError):
    """The worker's variant differs from the one the job was made for: its files are of another version."""

    retryable = True


class PoisonedJob(DspyqError):
    """The job was set aside: its workers died or froze under it too often, or its message cannot be read."""


class PredictionFailed(DspyqError):
    """The program ran and raised; the message starts with the type of what it raised.

    Attributes:
        calls: In the worker that ran it, its calls of the model up to there (``dspyq.guards.ledger.CallRecord``).
    """

    calls: tuple[Any, ...] = ()


class TransientPredictionFailure(PredictionFailed):
    """The program failed on something that passes: a timeout, a 5xx, a lost connection, a rate limit."""

    retryable = True


class InvalidOutputs(PredictionFailed):
    """The program returned something else than its signature states."""
