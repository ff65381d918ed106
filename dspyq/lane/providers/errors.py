"""Errors of a provider's batch interface, by the next step that each of them allows.

Their texts name a provider's status and code and the setting to change. They quote no line and no message of a
provider, which may hold a user's text.
"""

from __future__ import annotations

from dspyq.errors import DspyqError


class BatchInterfaceError(DspyqError):
    """A request to a provider's batch interface failed.

    Attributes:
        status: The HTTP status of the reply; None without one.
        code: The provider's code of the error, as in ``invalid_request_error``; empty without one.
        retry_after_seconds: The wait that the provider demands; None if it states none.
    """

    def __init__(
        self, text: str, *, status: int | None = None, code: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class ShipmentRefused(BatchInterfaceError):
    """The provider refuses the request for good: the same bytes are refused again. Nothing was created."""


class BatchInterfaceClosed(BatchInterfaceError):
    """The provider refuses the account, or the endpoint has no batch interface: no shipment goes until that changes.

    Nothing was created. Its lines are not at fault, so a smaller shipment is refused too.
    """


class EnqueuedLimitReached(BatchInterfaceError):
    """The account may not have more queued now. Nothing was created; a retry helps once other batches have ended.

    Attributes:
        limit_tokens: The limit as the provider states it; None if it states none.
    """

    retryable = True

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        code: str = "",
        retry_after_seconds: float | None = None,
        limit_tokens: int | None = None,
    ) -> None:
        super().__init__(text, status=status, code=code, retry_after_seconds=retry_after_seconds)
        self.limit_tokens = limit_tokens


class ProviderBusy(BatchInterfaceError):
    """The request had no effect, and a later one may succeed: no connection, 408, 429, or 5xx of a harmless request."""

    retryable = True


class RemoteMissing(BatchInterfaceError):
    """The provider answers 404. For a batch that it created this is not yet "gone": see ``BatchProvider.poll``."""

    retryable = True


class CreationUnknown(BatchInterfaceError):
    """The request to create a batch left this process and its reply was lost, or was a 5xx.

    It is unknown whether the batch was created. The caller looks for it with ``BatchProvider.find`` before it creates
    another one.
    """

    retryable = True


class ReplyUnusable(BatchInterfaceError):
    """A reply is cut short, or is not of the published form. The request may have had its effect."""

    retryable = True
