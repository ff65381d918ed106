"""What a failed call of a provider says: whether the provider is ill, whether it may bill the call, what helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dspy import lm15
from dspy._vendor.lm15.transports import ConnectError

_FIRST_ERROR_STATUS = 400
_OK = 200
#: How the transport says that all of its connections were in use.
_BUSY_POOL = "connections were busy"
#: What DSPy raises before it sends anything.
_REFUSED_HERE = (lm15.ConfigurationError, lm15.CapabilityError)

Kind = Literal["ill", "asks_to_wait", "account", "local", "lasting"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    Attributes:
        error: What was raised.
        code: Its name in ledgers, as in ``timeout``.
        kind: ``ill``: the provider does not work; ``asks_to_wait``: it was asked too often; ``account``: it refuses the
            account; ``local``: it was never asked, and may be again; ``lasting``: the same request fails again.
        is_billed: Whether the provider may bill it all the same.
        retry_after_seconds: How long it asks to wait, where it says so.
    """

    error: Exception
    code: str
    kind: Kind
    is_billed: bool
    retry_after_seconds: float | None = None

    @property
    def is_transient(self) -> bool:
        """Whether another attempt can succeed soon."""
        return self.kind in {"ill", "local"}


def classify(error: Exception) -> Failure:
    """Return what an exception of the engine says.

    An answer with an error status costs nothing, nor does a connection that never came about. Whatever was cut short
    after that, or came as something else than a reply, may be billed.
    """
    kind = _kind(error)
    retry_after_seconds = error.retry_after if isinstance(error, lm15.RateLimitError) else None
    return Failure(error, code_of(error), kind, _may_be_billed(error, kind), retry_after_seconds)


def _kind(error: Exception) -> Kind:
    if isinstance(error, lm15.RateLimitError):
        return "asks_to_wait"
    if isinstance(error, lm15.AuthError | lm15.BillingError):
        return "account"
    if isinstance(error, lm15.LockTimeoutError) or _BUSY_POOL in str(error):
        return "local"
    is_a_page = isinstance(error, lm15.ProviderError) and error.status == _OK  # in place of a reply
    if is_a_page or isinstance(error, lm15.ServerError | lm15.TimeoutError | lm15.TransportError):
        return "ill"
    return "lasting"


def _may_be_billed(error: Exception, kind: Kind) -> bool:
    was_answered_with_error = isinstance(error, lm15.LM15Error) and (error.status or 0) >= _FIRST_ERROR_STATUS
    was_never_sent = isinstance(error.__cause__, ConnectError) or isinstance(error, _REFUSED_HERE)
    return not (was_answered_with_error or was_never_sent or kind in {"asks_to_wait", "account", "local"})


def code_of(error: BaseException) -> str:
    """Return an error's name in ledgers."""
    code: str | None = error.code if isinstance(error, lm15.LM15Error) else None
    return code or type(error).__name__
