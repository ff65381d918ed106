"""Classification of failed provider calls: outage or not, billed or not, worth a retry or not."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dspy import lm15
from dspy._vendor.lm15.errors import map_http_error
from dspy._vendor.lm15.transports import ConnectError

from dspyq.config.secrets import scrub
from dspyq.programs.stated_errors import billed_reply, status_of_code

#: A redirect, or an error: nothing was computed.
_FIRST_FREE_STATUS = 300
_OK = range(200, 300)
#: The transport's message when all of its connections were in use.
_BUSY_POOL = "connections were busy"
#: The transport's message when the proxy, not the provider, refuses.
_PROXY_REFUSES = re.compile(r"proxy refused CONNECT to \S+ 4\d\d\b")
#: Errors of this machine, short of a resource; the provider has no part in them.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_SHORT_LOOKUPS = frozenset({socket.EAI_MEMORY, socket.EAI_SYSTEM})
#: OpenAI's 429 for a single request beyond a minute's tokens, for which no wait helps.
_IS_TOO_LARGE = "request too large"
_NO_THREAD = "can't start new thread"

#: A flex tier without room: OpenAI's 429, Groq's 498; a limit of the account is worded differently.
_TIER_FULL = re.compile(r"resource[ _]unavailable|capacity_exceeded", re.IGNORECASE)
_FULL = frozenset({429, 498, 503})

FailureKind = Literal["ill", "asks_to_wait", "account", "local", "lasting", "tier_full"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    Attributes:
        error: What was raised.
        code: Its name in ledgers, as in ``timeout``.
        kind: ``ill``: the provider is down; ``asks_to_wait``: too many requests; ``account``: the account is refused;
            ``local``: this worker is short of a resource; ``lasting``: the same request fails again; ``tier_full``: the
            service tier has no room, while another may.
        is_billed: Whether the provider may bill it despite its failure.
        retry_after_seconds: The wait that it demands; None if it states none.
        prompt_tokens: As a usage beside the error counts them; None where none does.
        completion_tokens: As a usage beside the error counts them; None where none does.
        cost_usd: Cost of that usage; None if unknown.
    """

    error: Exception
    code: str
    kind: FailureKind
    is_billed: bool
    retry_after_seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None

    @property
    def is_transient(self) -> bool:
        """True if another attempt may succeed soon."""
        return self.kind == "ill"


def classify(error: Exception, *, was_sent: bool) -> Failure:
    """Classify an exception of the engine.

    A request that was never sent is free, and so is a reply with an error status. A reply that was cut short or
    malformed may be billed.

    Args:
        error: What was raised.
        was_sent: Whether a byte of the request left this process.
    """
    kind = _kind(error) if was_sent else _kind_of_unsent(error)
    retry_after_seconds = error.retry_after if isinstance(error, lm15.RateLimitError) else None
    is_billed = was_sent and _may_be_billed(error, kind)
    return Failure(error, code_of(error), kind, is_billed, retry_after_seconds)


def is_tier_full(error: Exception) -> bool:
    """Return True if a provider has no room for a request at its flex tier, for which it bills nothing."""
    if not isinstance(error, lm15.ProviderError) or error.status not in _FULL:
        return False
    return _TIER_FULL.search(f"{error.provider_code or ''} {error}") is not None


def failed_on_the_way(error: Exception) -> bool:
    """Return True if an unsent request may succeed later: no connection was made, or none was free."""
    causes = list(_causes(error))
    if any(_PROXY_REFUSES.search(str(cause)) for cause in causes):
        return False
    return is_local(error) or any(isinstance(cause, ConnectError) for cause in causes)


def not_sent(model: str, error: Exception) -> lm15.ConfigurationError:
    """Return the error for a request that failed before a byte was sent, and will fail again."""
    text = scrub(" ".join(str(error).split()))
    return lm15.ConfigurationError(
        f"the request cannot be sent, and nothing was charged: {type(error).__name__}: {text}; see api_base, "
        f"api_key_env and parameters of models.{model}, and the proxy of the environment"
    )


def _kind_of_unsent(error: Exception) -> FailureKind:
    if isinstance(error, lm15.TransportError | lm15.TimeoutError) and not is_local(error):
        return "ill"
    kind = _kind(error)
    return "lasting" if kind == "ill" else kind


def is_local(error: Exception) -> bool:
    """Return True if this worker, not the provider, is short of files, ports, memory, threads or a lock."""
    is_short = any(map(_is_short, _causes(error)))
    is_busy = isinstance(error, lm15.TransportError) and _BUSY_POOL in str(error)
    return is_short or is_busy or isinstance(error, lm15.LockTimeoutError)


def _is_short(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):  # a lookup needs files and sockets of our own
        return error.errno in _SHORT_LOOKUPS or (error.errno == socket.EAI_AGAIN and not _has_file_left())
    is_without_thread = isinstance(error, RuntimeError) and _NO_THREAD in str(error)
    return is_without_thread or isinstance(error, MemoryError) or getattr(error, "errno", None) in _SHORT_OF


def _has_file_left() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _kind(error: Exception) -> FailureKind:
    if isinstance(error, lm15.RateLimitError):
        return "lasting" if _IS_TOO_LARGE in str(error).lower() else "asks_to_wait"
    if isinstance(error, lm15.AuthError | lm15.BillingError):
        return "account"
    if is_local(error):
        return "local"
    is_a_page = isinstance(error, lm15.ProviderError) and error.status in _OK  # in place of a reply
    if is_a_page or isinstance(error, lm15.ServerError | lm15.TimeoutError | lm15.TransportError):
        return "ill"
    if isinstance(error, lm15.ProviderError) and not isinstance(error, lm15.InvalidRequestError) and not error.status:
        status = status_of_code(error.provider_code)  # an error within a stream
        return _kind(map_http_error(status, "")) if status else "ill"
    return "lasting"


def _may_be_billed(error: Exception, kind: FailureKind) -> bool:
    if billed_reply(error) is not None:  # its body states a usage
        return True
    was_answered_with_error = isinstance(error, lm15.LM15Error) and (error.status or 0) >= _FIRST_FREE_STATUS
    return not (was_answered_with_error or kind in {"asks_to_wait", "account"})


def code_of(error: BaseException) -> str:
    """Return an error's name in ledgers."""
    code: str | None = error.code if isinstance(error, lm15.LM15Error) else None
    return code or type(error).__name__
