"""Protocols of a model call, so that the guards do not depend on DSPy, nor its engine on the guards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dspyq.config.lanes import Lane
from dspyq.guards.provider_access import ProviderAccess


@dataclass(frozen=True, slots=True)
class CallReply:
    """Reply to an attempt.

    Attributes:
        response: The engine's response.
        prompt_tokens: Tokens sent, by the provider's count; None without one.
        completion_tokens: Tokens generated, by the provider's count; None without one.
        cost_usd: The cost; None if unknown.
    """

    response: Any
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class CallFailure(Protocol):
    """A failed attempt, as ``dspyq.programs.failures`` classifies it."""

    @property
    def error(self) -> Exception:
        """The exception that the attempt raised."""

    @property
    def code(self) -> str:
        """Its name in ledgers."""

    @property
    def kind(self) -> str:
        """The kind of failure: ``ill``, ``asks_to_wait``, ``account``, ``local``, ``lasting`` or ``tier_full``."""

    @property
    def is_billed(self) -> bool:
        """Return True if the provider may bill the attempt despite its failure."""

    @property
    def prompt_tokens(self) -> int | None:
        """As a usage beside the error counts them; None where none does."""

    @property
    def completion_tokens(self) -> int | None:
        """As a usage beside the error counts them; None where none does."""

    @property
    def cost_usd(self) -> float | None:
        """The cost of that usage; None where it is unknown: then its bound is charged, if it may be billed at all."""

    @property
    def is_transient(self) -> bool:
        """Return True if another attempt may succeed soon."""

    @property
    def retry_after_seconds(self) -> float | None:
        """The wait that the provider requested; None without one."""


class Call(Protocol):
    """A request on its way to the provider, as ``dspyq.programs.provider_call`` makes it."""

    digest: str
    wire_bytes: int
    max_completion_tokens: int | None
    unbounded_part: str | None

    @property
    def bound_nano_usd(self) -> int:
        """The highest possible cost, for a text request that states a bound."""

    @property
    def was_sent(self) -> bool:
        """Return True if any byte of the latest attempt left this process."""

    def at_flex_tier(self) -> None:
        """Make it at the provider's flex tier, unless it states a tier of its own."""

    def bound_in(self, lane: Lane) -> int:
        """Return the most it may cost in a lane, in nano-dollars."""

    def line_body(self) -> bytes | None:
        """Return the request as JSON, as a line of its provider's batch interface holds it; None if none can."""

    def attempt(self, seconds: float) -> CallReply:
        """Call the provider once, for so many seconds at most."""

    def classify(self, error: Exception) -> CallFailure:
        """Classify an exception of an attempt."""

    def dump(self, response: Any) -> bytes | None:
        """Return the latest reply in serialized form; None if it cannot be loaded again."""

    def load(self, reply: bytes) -> Any:
        """Return a reply that was paid for before."""


class LineReader(Protocol):
    """The engine of a model, for replies that its provider's batch interface brings."""

    def answer(self, status: int, body: dict[str, Any]) -> tuple[CallReply, bytes | None]:
        """Return the reply of a line at the batch price, and the reply in the form that ``Call.load`` takes.

        Raises:
            Exception: The error of a line without a reply, as a live call raises it.
        """

    def classify(self, error: Exception) -> CallFailure:
        """Classify such an error."""

    def access(self) -> ProviderAccess:
        """Return the access to the batch interface, as ``dspyq.lane.providers`` takes it."""
