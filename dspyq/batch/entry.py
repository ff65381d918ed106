"""State of one row and variant while it is in flight."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dspyq.prediction.request import Request


class EntryState(IntEnum):
    """State of an entry. Those from ``OK`` on are done: their lines are written, or wait for their turn."""

    OPEN = 0
    """To be asked: read, or taken back."""
    ASKED = 1
    """Asked under its task id."""
    WAITING = 2
    """For an earlier entry of the same question."""
    OK = 3
    FAILED = 4
    """For good: asking again would fail again."""
    RETRYABLE = 5
    """Failed on something that passes."""


@dataclass(slots=True)
class Entry:
    """One row asked of one variant.

    Attributes:
        number: From 1, in the order of the input.
        row: Its row's number, from 1.
        custom_id: The row's own id.
        variant: Its variant's position in the program; None where the row cannot be asked.
        input_hash: The first 16 bytes of the question's hash; None if the row cannot be asked.
        request: The question, while this process may have to ask it.
        state: Its state.
        task_id: The task that answers, once it was asked.
        is_claimed: Whether that task is this batch's own, and its cost this entry's.
        paid_nano_usd: Cost of its tasks, as far as it is collected.
        prompt_tokens: Tokens sent for that.
        completion_tokens: Tokens generated for that.
        asked_at: The monotonic second at which it was asked or found alive.
    """

    number: int
    row: int
    custom_id: str
    variant: int | None = None
    input_hash: bytes | None = None
    request: Request | None = None
    state: EntryState = EntryState.OPEN
    task_id: str | None = None
    is_claimed: bool = False
    paid_nano_usd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    asked_at: float = 0.0
