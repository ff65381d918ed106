"""Errors as RFC 9457 problems: one table for all errors of dspyq, and for what the door itself declines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dspyq import errors

#: What each problem's ``type`` begins with; it identifies the problem and is no page to fetch.
TYPES = "https://dspyq.dev/problems/"
MEDIA_TYPE = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A row of the table.

    Attributes:
        status: The HTTP status.
        slug: The end of its ``type``.
        title: The same for people.
        is_retryable: Whether the same request can succeed later.
        retry_after_seconds: Seconds until the next try, where the error itself has none.
        is_shown: Whether the error's text may be shown: it quotes no content of a user and nothing of this host.
    """

    status: int
    slug: str
    title: str
    is_retryable: bool = False
    retry_after_seconds: float | None = None
    is_shown: bool = True


MALFORMED = ProblemKind(400, "malformed", "The body cannot be read")
UNAUTHENTICATED = ProblemKind(401, "unauthenticated", "A valid key is missing")
FORBIDDEN = ProblemKind(403, "forbidden", "The key does not allow this")
NOT_FOUND = ProblemKind(404, "not-found", "There is nothing here")
NO_SUCH_METHOD = ProblemKind(405, "method-not-allowed", "The path has no such method")
GONE = ProblemKind(410, "answer-lost", "The answer is no longer kept")
BODY_TOO_LARGE = ProblemKind(413, "inputs-too-large", "The body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemKind(415, "unsupported-media-type", "The body is to be JSON")
IDEMPOTENCY_MISMATCH = ProblemKind(422, "idempotency-mismatch", "The Idempotency-Key belongs to another request")
TOO_MANY_REQUESTS = ProblemKind(429, "too-many-requests", "The key's limit is used up", is_retryable=True)
OVERLOADED = ProblemKind(503, "overloaded", "Too many requests wait", is_retryable=True)
ENDING = ProblemKind(503, "unavailable", "The server is about to end", is_retryable=True, retry_after_seconds=1)
INTERNAL = ProblemKind(500, "internal", "A fault of the server", is_shown=False)
_MISCONFIGURED = ProblemKind(500, "misconfigured", "The server's configuration has a fault", is_shown=False)
_FAILED = ProblemKind(500, "prediction-failed", "The program failed", is_shown=False)

#: A row for each error; a class without one of its own has that of the nearest class above it.
TABLE: dict[type[Exception], ProblemKind] = {
    errors.DspyqError: INTERNAL,
    errors.ConfigurationError: _MISCONFIGURED,
    errors.InvalidRequest: ProblemKind(400, "invalid-request", "The request can never be served"),
    errors.UnknownProgram: ProblemKind(404, "unknown-program", "There is no such program"),
    errors.UnknownVariant: ProblemKind(422, "unknown-variant", "The program has no such variant"),
    errors.InvalidInputs: ProblemKind(422, "invalid-inputs", "The inputs do not match the program"),
    errors.InputsTooLarge: ProblemKind(413, "inputs-too-large", "The inputs are too large"),
    errors.InvalidOption: ProblemKind(422, "invalid-option", "An option cannot be used so"),
    errors.FeedbackRefused: ProblemKind(422, "feedback-refused", "The judgement is not counted"),
    errors.BatchRefused: ProblemKind(409, "batch-refused", "The batch cannot run so"),
    errors.OutputInUse: ProblemKind(
        409, "output-in-use", "The batch's output is in use", is_retryable=True, retry_after_seconds=5
    ),
    errors.ExperimentRefused: ProblemKind(409, "experiment-refused", "The experiment cannot be changed so"),
    errors.InvalidFile: ProblemKind(422, "invalid-file", "The file cannot be read"),
    errors.RedisUnavailable: ProblemKind(
        503,
        "storage-unavailable",
        "The storage does not answer",
        is_retryable=True,
        retry_after_seconds=1,
        is_shown=False,
    ),
    errors.DamagedKey: ProblemKind(500, "storage-damaged", "The storage holds a foreign value", is_shown=False),
    errors.NotAPrediction: NOT_FOUND,
    errors.AnswerLost: ProblemKind(
        503, "answer-lost", "The answer was lost: ask again", is_retryable=True, retry_after_seconds=0
    ),
    errors.Unavailable: ProblemKind(
        503, "unavailable", "The model is not available", is_retryable=True, retry_after_seconds=5
    ),
    errors.BreakerOpen: ProblemKind(
        503, "provider-ill", "The model's provider is down", is_retryable=True, retry_after_seconds=5
    ),
    errors.RateLimited: ProblemKind(
        503, "model-busy", "The model's rate limit is used up", is_retryable=True, retry_after_seconds=5
    ),
    errors.BudgetExceeded: ProblemKind(
        503, "budget-exceeded", "The budget is used up", is_retryable=True, retry_after_seconds=60
    ),
    errors.TenantLimitReached: ProblemKind(402, "tenant-limit", "The tenant's limit is used up"),
    errors.BatchLimitReached: ProblemKind(402, "batch-limit", "The batch's limit is reached"),
    errors.BatchShareUsed: ProblemKind(
        503, "batch-share", "The batch's share is used up", is_retryable=True, retry_after_seconds=60
    ),
    errors.AccountRefused: ProblemKind(502, "provider-refuses-account", "The provider refuses the account"),
    errors.VariantKilled: ProblemKind(503, "variant-killed", "The variant was taken out of service"),
    errors.DeadlineExceeded: ProblemKind(504, "deadline-exceeded", "The prediction took too long"),
    errors.UnboundedCall: _MISCONFIGURED,
    errors.UnguardedModel: _MISCONFIGURED,
    errors.VariantMismatch: ProblemKind(
        503, "deploying", "The variant is being deployed", is_retryable=True, retry_after_seconds=5
    ),
    errors.PoisonedJob: ProblemKind(500, "poisoned", "The job was set aside"),
    errors.PredictionFailed: _FAILED,
    errors.TransientPredictionFailure: ProblemKind(
        502, "provider-failed", "The model call failed", is_retryable=True, retry_after_seconds=5, is_shown=False
    ),
    errors.InvalidOutputs: ProblemKind(
        502, "invalid-outputs", "The model's reply does not match the program", is_shown=False
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as it is answered.

    Attributes:
        kind: Its row.
        detail: One line on this occurrence; empty for none.
        retry_after_seconds: Seconds until the next try; None where no retry helps, or the time is not known.
        faults: Faults of the body, each with its JSON pointer and a detail.
        prediction: The id of the prediction that it is about; empty for none.
        headers: Further headers.
        parameter: The parameter that it is about, which errors in OpenAI's form name; empty for none.
    """

    kind: ProblemKind
    detail: str = ""
    retry_after_seconds: float | None = None
    faults: tuple[tuple[str, str], ...] = ()
    prediction: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parameter: str = ""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def stated(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem as a JSON object.

        Args:
            request_id: The request that it answers; None for one that is part of a prediction.
        """
        kind = self.kind
        stated: dict[str, Any] = {
            "type": TYPES + kind.slug,
            "title": kind.title,
            "status": kind.status,
            "retryable": kind.is_retryable,
        }
        if request_id is not None:
            stated["request_id"] = request_id
        if self.detail:
            stated["detail"] = self.detail
        if self.retry_after_seconds is not None:
            stated["retry_after_seconds"] = self.retry_after_seconds
        if self.faults:
            stated["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.faults]
        if self.prediction:
            stated["prediction"] = self.prediction
        return stated

    def stated_headers(self) -> list[tuple[bytes, bytes]]:
        """Return its headers beside the content's; OpenAI's clients and their kin obey ``x-should-retry``."""
        headers = [(b"x-should-retry", b"true" if self.kind.is_retryable else b"false"), *self.headers]
        if self.retry_after_seconds is not None and self.kind.is_retryable:
            headers.append((b"retry-after", b"%d" % math.ceil(self.retry_after_seconds)))
        return headers


class Declined(Exception):
    """The door answers a request with a problem.

    Attributes:
        problem: The problem.
    """

    def __init__(self, kind: ProblemKind, detail: str = "", **members: Any) -> None:
        members.setdefault("retry_after_seconds", kind.retry_after_seconds)
        self.problem = Problem(kind, detail, **members)
        super().__init__(kind.slug)


def problem_of(error: BaseException, *, shows_errors: bool = False, prediction: str = "") -> Problem:
    """Return the problem that an error is answered with.

    Args:
        error: The error.
        shows_errors: Whether texts of programs' own exceptions are shown (``serve.show_errors``).
        prediction: The id of the prediction that failed; empty for none.
    """
    if isinstance(error, Declined):
        return error.problem
    if not isinstance(error, errors.DspyqError):
        return Problem(INTERNAL)
    kind = kind_of(type(error))
    seconds = error.retry_after_seconds if error.retry_after_seconds is not None else kind.retry_after_seconds
    return Problem(
        kind,
        _detail(error, kind, shows_errors=shows_errors),
        seconds if kind.is_retryable else None,
        tuple(error.faults) if isinstance(error, errors.InvalidInputs) else (),
        prediction,
    )


def kind_of(error: type[BaseException]) -> ProblemKind:
    """Return the row of a class of errors."""
    return next((TABLE[each] for each in error.__mro__ if each in TABLE), INTERNAL)


def _detail(error: errors.DspyqError, kind: ProblemKind, *, shows_errors: bool) -> str:
    text = str(error)
    if kind.is_shown:
        return text
    if not isinstance(error, errors.PredictionFailed):
        return ""
    if shows_errors:
        return text
    raised = text.partition(":")[0]  # its message begins with the type of what the program raised
    return raised if raised.replace(".", "").isidentifier() else ""
