"""Control of the endpoint's batch interfaces, from any process: ``endpoint.batches``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.batch_endpoint.store import BatchScript
from tests.support.processes import wait_until

_LATE_SECONDS = 60.0


@dataclass
class BatchCounts:
    """The events since the last reset.

    Attributes:
        creations: Requests to create a batch, answered or not.
        batches: Batches created.
        uploads: Files uploaded.
        cancellations: Requests to cancel that had an effect.
        polls_missed: Polls answered with 404 although the batch was there.
        files_left: Files that are still there.
        files_deleted: Files that a client deleted.
        lines_billed: Lines billed; a line billed twice counts twice.
        billed_twice: Custom ids billed more than once.
        double_names: Names that more than one batch has, those that failed or were cancelled aside.
    """

    creations: int
    batches: int
    uploads: int
    cancellations: int
    polls_missed: int
    files_left: int
    files_deleted: int
    lines_billed: int
    billed_twice: list[str]
    double_names: list[str]


@dataclass
class Bill:
    """The provider's charges, in nano-dollars.

    Attributes:
        batch_nano_usd: Lines of batches, at the batch price.
        live_nano_usd: Live calls.
        nano_usd: Both.
    """

    batch_nano_usd: int
    live_nano_usd: int
    nano_usd: int


class BatchControl:
    """The control.

    Args:
        send: Sends an action and its arguments, and returns the answer.
    """

    def __init__(self, send: Callable[[str, dict[str, Any]], Any]) -> None:
        self._send = send

    def script(self, **behaviour: Any) -> None:
        """Add a fate of batches; the arguments are ``BatchScript``'s fields.

        ``script(times=1, loses_reply=True)`` cuts the reply to the next creation; ``script(is_manual=True)`` keeps all
        batches running until ``finish()``.
        """
        self._act("script", **asdict(BatchScript(**behaviour)))

    def clear(self) -> None:
        """Drop all scripts."""
        self._act("clear")

    def finish(self, *batch_ids: str) -> int:
        """Let manual batches end, all where none is named; return how many there were."""
        return int(self._act("finish", batch_ids=batch_ids)["count"])

    def advance(self, count: int) -> int:
        """Answer so many more lines of manual batches; return how many there were."""
        return int(self._act("advance", count=count)["count"])

    def prices(self, **prices: float) -> None:
        """Set ``input_usd_per_million_tokens`` (1), ``output_usd_per_million_tokens`` (2) or ``discount`` (0.5)."""
        self._act("prices", **prices)

    def limit(self, tokens: int | None) -> None:
        """Let batches fail with ``token_limit_exceeded`` beyond so many tokens, of four characters each, in all."""
        self._act("limit", tokens=tokens)

    def page(self, entries: int) -> None:
        """Let a page of a listing have so many entries at most, whatever a client asks for."""
        self._act("page", entries=entries)

    def cut_lists(self, times: int) -> None:
        """Cut the next listings of OpenAI's form in the middle."""
        self._act("cut_lists", times=times)

    def pending(self, polls: int) -> None:
        """Let the next file be ``pending`` for so many looks, as Azure's are; a batch of it is refused till then."""
        self._act("pending", polls=polls)

    def counts(self) -> BatchCounts:
        """Return what happened since the last reset."""
        return BatchCounts(**self._act("counts"))

    def bill(self) -> Bill:
        """Return what was charged since the last reset."""
        return Bill(**self._act("bill"))

    def list(self) -> list[dict[str, Any]]:
        """Return each batch, the oldest first: ``id``, ``dialect``, ``name``, ``state``, ``lines``, ``answered``."""
        listed: list[dict[str, Any]] = self._act("list")
        return listed

    def files(self) -> list[str]:
        """Return the names of the files that are there."""
        names: list[str] = self._act("files")
        return names

    def wait_for_batches(self, count: int, timeout_seconds: float = _LATE_SECONDS) -> None:
        """Wait until so many batches were created.

        Raises:
            TimeoutError: If they were not.
        """
        wait_until(lambda: self.counts().batches >= count, timeout_seconds, lambda: f"{count} batches: {self.counts()}")

    def _act(self, action: str, **arguments: Any) -> Any:
        return self._send(f"batches/{action}", arguments)
