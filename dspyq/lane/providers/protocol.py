"""One protocol of the batch interfaces of providers, in plain data.

A shipment of lines becomes a remote batch in two steps: ``upload`` its file, where the interface has files, and
``create`` the batch. Each method makes its requests once: the caller saves its next step before it takes it, and alone
can judge whether a repetition is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

#: A custom id, and the body of its request as JSON, in the form of the provider's live interface.
ShipmentLine = tuple[str, bytes]


class BatchState(StrEnum):
    """The state of a remote batch, whichever words its provider has for it.

    ``RUNNING`` includes finalizing and cancelling: more lines may come. ``ENDED`` means that all lines have an outcome,
    which may be an error. The other final states may have paid lines too.
    """

    VALIDATING = "validating"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if it changes no more."""
        return self not in {BatchState.VALIDATING, BatchState.RUNNING}


class LineOutcome(StrEnum):
    """The outcome of a line.

    ``ANSWERED``: paid, with a reply. ``FAILED``: the provider refuses this request for good, as its live interface
    would. ``UNANSWERED``: it was not executed (expired, cancelled, or an error that passes). ``UNREADABLE``: there is a
    line for it, which may be paid, and nothing can be read from it.
    """

    ANSWERED = "answered"
    FAILED = "failed"
    UNANSWERED = "unanswered"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class ShipmentLimits:
    """Limits of one batch, as the provider publishes them.

    Attributes:
        lines: The most lines.
        size_bytes: The most bytes of all lines together, as they are sent.
        line_overhead_bytes: Bytes that a line has beyond its body and its custom id, at most.
        window_seconds: The time after which the provider lets unfinished lines expire.
        results_seconds: The time for which results stay readable.
    """

    lines: int
    size_bytes: int
    line_overhead_bytes: int
    window_seconds: float
    results_seconds: float


@dataclass(frozen=True, slots=True)
class BatchFault:
    """A reason why a provider refused a batch after it had created it.

    Attributes:
        code: The provider's code, as in ``token_limit_exceeded``.
        line: The number of the line at fault, from 1; None where it is none.
        limit_tokens: The limit on enqueued tokens that it states; None if it states none.
    """

    code: str
    line: int | None = None
    limit_tokens: int | None = None

    @property
    def is_quota(self) -> bool:
        """True if the account has too much queued: the same batch may be accepted later."""
        return self.code in {"token_limit_exceeded", "request_limit_exceeded", "RESOURCE_EXHAUSTED"}


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider states it.

    Attributes:
        id: The provider's id.
        name: The name that we gave it; empty where the interface has no names.
        state: Its state.
        created_at_seconds: When it was created, on the provider's clock.
        expires_at_seconds: When its window ends; None if not stated.
        total_lines: Lines of it; 0 while it is validated, at some providers.
        succeeded_lines: Lines with a reply.
        failed_lines: Lines that ended otherwise.
        input_file_id: The file of its requests; empty without one.
        output_file_id: The file, or the address, of its replies; empty if there is none (yet).
        error_file_id: The file of lines that ended otherwise; empty if there is none.
        faults: Reasons of its refusal.
        inline_lines: Replies within the batch itself, where an interface has no file for them.
    """

    id: str
    name: str
    state: BatchState
    created_at_seconds: float
    expires_at_seconds: float | None = None
    total_lines: int = 0
    succeeded_lines: int = 0
    failed_lines: int = 0
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    faults: tuple[BatchFault, ...] = ()
    inline_lines: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # users' text

    @property
    def is_over_quota(self) -> bool:
        """True if it failed because the account has too much queued."""
        return self.state is BatchState.FAILED and any(fault.is_quota for fault in self.faults)


@dataclass(frozen=True, slots=True)
class RemoteLine:
    """A line of a batch's results.

    Attributes:
        custom_id: Our id of it; empty if it cannot be read.
        outcome: Its outcome.
        status: The HTTP status that the live interface would have had; None if the provider states none.
        body: The body that the live interface would have had: a reply, or an error's envelope; None without one.
        usage: The usage that the body states, also beside an error; None without one.
        code: The code of its error, as in ``batch_expired``; empty if it was answered.
    """

    custom_id: str
    outcome: LineOutcome
    status: int | None = None
    body: dict[str, Any] | None = field(default=None, repr=False)  # a user's text
    usage: dict[str, Any] | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a provider.

    Attributes:
        id: The provider's id.
        name: Its name.
        created_at_seconds: When it was uploaded, on the provider's clock.
        size_bytes: Its size.
    """

    id: str
    name: str
    created_at_seconds: float
    size_bytes: int


class BatchProvider(Protocol):
    """The batch interface of a provider, for one model.

    Every method may raise ``ProviderBusy`` (nothing happened; later), ``RemoteMissing`` (404), ``ShipmentRefused``
    (never, unless something is changed) and ``ReplyUnusable``. Instances hold no connection and may be shared by
    threads.

    Attributes:
        limits: Limits of one batch.
        has_files: Whether lines go up as a file, with ``upload``, before ``create``; without files ``create`` sends
            them.
        has_names: Whether a batch carries our name. Without names ``find`` returns candidates.
    """

    limits: ShipmentLimits
    has_files: bool
    has_names: bool

    def upload(self, name: str, lines: Iterable[ShipmentLine]) -> str:
        """Upload a file of lines and return its id. Only where ``has_files``.

        Lines pass through a temporary file that this user alone can read; they are never in memory together. An upload
        whose reply was lost leaves a file behind, which ``orphan_files`` finds by its name.

        Args:
            name: The shipment's name; the file is ``<name>.jsonl``.
            lines: The lines, with custom ids of 1 to 64 characters of ``[A-Za-z0-9_-]``.
        """

    def create(self, name: str, *, file_id: str = "", lines: Iterable[ShipmentLine] = ()) -> RemoteBatch:
        """Create a batch by exactly one POST, which no transport repeats.

        Args:
            name: The shipment's name.
            file_id: The uploaded file, where ``has_files``.
            lines: The lines, where not ``has_files``.

        Raises:
            CreationUnknown: If its reply was lost or was a 5xx: look for it with ``find`` first.
            EnqueuedLimitReached: If the account may not have more queued.
        """

    def find(self, name: str, since_seconds: float, line_count: int, file_id: str = "") -> list[RemoteBatch]:
        """Return the batches of this name or of this uploaded file, the oldest first.

        A listing may lag behind a creation by seconds. Where not ``has_names``, these are all batches that were created
        since and have so many lines, or none counted yet: compare ``read_one_id`` of one that has ended with the ids of
        the shipment.

        Args:
            name: The shipment's name.
            since_seconds: A time before its creation. Ten minutes are allowed for clocks that differ.
            line_count: Lines of the shipment.
            file_id: The uploaded file, where ``has_files``: some interfaces that have files drop our name.
        """

    def batches_named(self, prefix: str, since_seconds: float) -> Iterator[RemoteBatch]:
        """Yield all batches whose name begins so, in the order of the provider's listing: usually the newest first.

        Where batches carry no name, these are all batches created since: compare ``read_one_id``.

        Args:
            prefix: The beginning of a name.
            since_seconds: Older ones are left out; ten minutes are allowed for clocks that differ.
        """

    def poll(self, batch_id: str) -> RemoteBatch:
        """Return the state of a batch.

        Raises:
            RemoteMissing: If the provider does not find it. Anthropic answers so in the seconds after a creation, and
                now and then later (anthropic-sdk-python, issue 1432).
        """

    def read_lines(self, batch: RemoteBatch) -> Iterator[RemoteLine]:
        """Yield the results of a batch in a final state, line by line: its output file, then its error file.

        The order is the provider's. Lines may be missing, and come more than once.

        Raises:
            ReplyUnusable: In the middle, if a file is cut short; read all of it again.
        """

    def cancel(self, batch_id: str) -> None:
        """Ask for a cancellation. Finished lines are kept and paid; poll until the state is final.

        A batch that has ended already is no error.
        """

    def delete_files(self, batch: RemoteBatch) -> int:
        """Delete the files of a batch, or its results where the interface has no files; return how many were there."""

    def orphan_files(self, prefix: str) -> list[RemoteFile]:
        """Return uploaded files whose name begins so, the oldest first; the caller finds those without a batch."""

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; return False if it was not there."""


def read_one_id(provider: BatchProvider, batch: RemoteBatch) -> str | None:
    """Return a custom id of a batch in a final state; None if it has no readable line."""
    return next((line.custom_id for line in provider.read_lines(batch) if line.custom_id), None)
