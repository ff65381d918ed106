"""What a prediction's calls of its model used, and the answer they add up to. Knows nothing of DSPy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import JsonValue

#: The outcome of a call that was answered; any other is the code of its error, as in ``rate_limit`` or ``timeout``.
ANSWERED = "ok"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt to call a model, whether it succeeded or not.

    Attributes:
        model: The model's table in the configuration.
        outcome: ``ok``, or the code of what went wrong.
        duration_seconds: How long it took.
        prompt_tokens: Tokens sent, as the provider counted them; None where it did not say.
        completion_tokens: Tokens generated; None where the provider did not say.
        cost_usd: What it cost; None where that is unknown, as for a call that failed.
    """

    model: str
    outcome: str
    duration_seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


class UnaccountedCall(RuntimeError):
    """A model was about to be called for no running prediction: nobody would see the reply or count its cost."""


class Ledger:
    """The calls of one running prediction, written by all its threads."""

    def __init__(self) -> None:
        self._calls: list[CallRecord] = []  # appending is atomic, so threads need no lock
        self._is_closed = False

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The calls so far, in the order they ended."""
        return tuple(self._calls)

    def check_open(self) -> None:
        """Refuse a call that would be made for nobody.

        Raises:
            UnaccountedCall: If the prediction has ended: threads of ``dspy.Parallel`` outlive a program that raised.
        """
        if self._is_closed:
            raise UnaccountedCall("the prediction that this model call belongs to has ended")

    def add(self, call: CallRecord) -> None:
        """Write down a call."""
        self._calls.append(call)

    def close(self) -> None:
        """End the prediction: no further call is made for it."""
        self._is_closed = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program returned and what it took.

    Attributes:
        outputs: The outputs as JSON values.
        calls: Every call of a model, failed ones included.
    """

    outputs: dict[str, JsonValue]
    calls: tuple[CallRecord, ...]

    @property
    def prompt_tokens(self) -> int:
        """Tokens sent, as far as the provider counted them."""
        return sum(call.prompt_tokens or 0 for call in self.calls)

    @property
    def completion_tokens(self) -> int:
        """Tokens generated, as far as the provider counted them."""
        return sum(call.completion_tokens or 0 for call in self.calls)

    @property
    def cost_usd(self) -> float | None:
        """What its calls cost together."""
        return total_cost_usd(self.calls)


def total_cost_usd(calls: Iterable[CallRecord]) -> float | None:
    """Return what calls cost together, or None if one that was answered has no known cost.

    Failed calls of unknown cost count as free: whether a provider bills them, it does not say.
    """
    total = 0.0
    for call in calls:
        if call.cost_usd is None and call.outcome == ANSWERED:
            return None
        total += call.cost_usd or 0.0
    return total
