"""A model call as the guards see it: they know nothing of DSPy, and its engine nothing of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """What an attempt brought.

    Attributes:
        response: As the engine returns it.
        prompt_tokens: As the provider counted them; None where it did not say.
        completion_tokens: As the provider counted them; None where it did not say.
        cost_usd: None where it is unknown.
    """

    response: Any
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class Failure(Protocol):
    """A failed attempt, as ``dspyq.programs.failures`` classifies it."""

    @property
    def error(self) -> Exception:
        """What was raised."""

    @property
    def code(self) -> str:
        """Its name in ledgers."""

    @property
    def kind(self) -> str:
        """What it says: ``ill``, ``asks_to_wait``, ``account``, ``local`` or ``lasting``."""

    @property
    def is_billed(self) -> bool:
        """Whether the provider may bill it all the same."""

    @property
    def is_transient(self) -> bool:
        """Whether another attempt can succeed soon."""

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the provider asks to wait."""


class Call(Protocol):
    """A request on its way to the provider, as ``dspyq.programs.engine`` makes it."""

    digest: str
    wire_bytes: int
    max_completion_tokens: int | None
    is_text: bool

    def attempt(self, seconds: float) -> Reply:
        """Call the provider once, for so many seconds at most."""

    def classify(self, error: Exception) -> Failure:
        """Return what an exception of an attempt says."""

    def dump(self, response: Any) -> bytes:
        """Return a reply as it can be loaded again."""

    def load(self, reply: bytes) -> Any:
        """Return a reply that was paid for before."""


class Prices(Protocol):
    """What tokens can cost at most."""

    @property
    def input_usd_per_million_tokens(self) -> float:
        """Each prompt token."""

    @property
    def output_usd_per_million_tokens(self) -> float:
        """Each completion token."""
