"""Events that a running batch emits for its display, and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from dspyq.batch.account import UncollectedCall
from dspyq.batch.entry import EntryState
from dspyq.batch.journal import EntryTotals
from dspyq.core.money import exact_dollars

PauseReason = Literal["asked", "window", "share"]
RunState = Literal["running", "paused", "stopped", "limited", "cancelled", "finished"]

_LEVELS = frozenset({"memory", "redis", "joined"})


@dataclass
class EntryCounts:
    """Counts of a batch's entries so far.

    Attributes:
        done: Entries whose lines are written or ready.
        ok: Those with an answer.
        computed: Those that a run of this batch answered.
        cached: Those answered from the cache.
        joined: Those that shared another caller's run.
        failed_by_type: The others, by the type of their error.
        cost_nano_usd: Total cost of all of them.
        prompt_tokens: Tokens sent by the batch's own runs.
        completion_tokens: Tokens generated for them.
    """

    done: int = 0
    ok: int = 0
    computed: int = 0
    cached: int = 0
    joined: int = 0
    failed_by_type: Counter[str] = field(default_factory=Counter)
    cost_nano_usd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def failed(self) -> int:
        """Entries with an error."""
        return self.done - self.ok

    @classmethod
    def of(cls, totals: Iterable[EntryTotals]) -> EntryCounts:
        """Return the counts of a journal's totals."""
        counts = cls()
        for total in totals:
            counts.cost_nano_usd += total.cost_nano_usd
            counts.prompt_tokens += total.prompt_tokens
            counts.completion_tokens += total.completion_tokens
            if total.outcome is not None and total.state >= EntryState.OK:
                counts.add(total.state, total.outcome, total.entries)
        return counts

    def add(self, state: EntryState, outcome: str, entries: int = 1) -> None:
        """Count entries that are done."""
        self.done += entries
        if state != EntryState.OK:
            self.failed_by_type[outcome] += entries
            return
        self.ok += entries
        if outcome == "computed":
            self.computed += entries
        elif outcome == "joined":
            self.joined += entries
        else:
            self.cached += entries


@dataclass(frozen=True)
class Snapshot:
    """Progress of a batch.

    Attributes:
        state: The state of its run.
        rows_read: Rows read so far.
        is_read: True if those are all rows.
        entries: Entries of ``rows_read``: one for each row, or with ``--paired`` for each row and variant.
        done: As of ``EntryCounts``.
        ok: As of ``EntryCounts``.
        failed: As of ``EntryCounts``.
        cached: As of ``EntryCounts``.
        joined: As of ``EntryCounts``.
        in_flight: Entries that are sent and not answered yet.
        spent_usd: Cost so far.
        share_read: Share of the input read, from 0 to 1.
        rows_per_second: Entries done per second, since this process began.
        seconds_left: Remaining time at that rate; None while unknown.
        waits_for: The reason for which rows in flight wait, if none was done for some seconds; else empty.
    """

    state: RunState
    rows_read: int
    is_read: bool
    entries: int
    done: int
    ok: int
    failed: int
    cached: int
    joined: int
    in_flight: int
    spent_usd: float
    share_read: float
    rows_per_second: float
    seconds_left: float | None
    waits_for: str = ""


@dataclass(frozen=True)
class Started:
    """A batch runs.

    Attributes:
        batch_id: Its id.
        output: OUT.
        done: Entries that an earlier process has done.
        is_resumed: Whether there was one.
    """

    batch_id: str
    output: str
    done: int
    is_resumed: bool


@dataclass(frozen=True)
class Progress:
    """Periodic progress of a batch.

    Attributes:
        batch_id: Its id.
        snapshot: The progress.
    """

    batch_id: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Paused:
    """The batch sends nothing until it resumes; running jobs are still collected.

    Attributes:
        batch_id: Its id.
        reason: ``asked`` by ``dspyq batch pause``; ``window``: outside of its hours; ``share``: its share of the
            day's budget is used up.
        recalled: Entries that were taken back, unpaid.
    """

    batch_id: str
    reason: PauseReason
    recalled: int


@dataclass(frozen=True)
class Resumed:
    """The batch sends rows again.

    Attributes:
        batch_id: Its id.
    """

    batch_id: str


@dataclass(frozen=True)
class LaneLeft:
    """The batch leaves its lane, for the hour by which it is to be done is near.

    Attributes:
        batch_id: Its id.
        stage: ``closing``: its shipments are cancelled; ``flex`` or ``live``: what still waits is made there.
    """

    batch_id: str
    stage: str


@dataclass(frozen=True)
class RedisAway:
    """Redis does not answer; the batch waits for it.

    Attributes:
        batch_id: Its id.
        message: The error of the Redis client.
    """

    batch_id: str
    message: str


@dataclass(frozen=True)
class Reconciliation:
    """Comparison of a batch's cost in OUT and in the ledger, to the nano-dollar.

    Attributes:
        output_nano_usd: The sum over OUT.
        ledger_nano_usd: The amount that the ledger has settled for the batch.
        uncollected: Calls whose cost is on no row, such as those of runs that were killed.
    """

    output_nano_usd: int
    ledger_nano_usd: int
    uncollected: tuple[UncollectedCall, ...] = ()

    @property
    def uncollected_nano_usd(self) -> int:
        """Cost of those calls."""
        return sum(call.charged_nano_usd for call in self.uncollected)

    @property
    def difference_nano_usd(self) -> int:
        """The unexplained difference; 0 if OUT and the ledger agree."""
        return self.ledger_nano_usd - self.output_nano_usd - self.uncollected_nano_usd

    def __str__(self) -> str:
        """Return the comparison in one line."""
        sides = f"OUT {exact_dollars(self.output_nano_usd)}"
        if self.uncollected:
            sides += f" + {len(self.uncollected):,} calls on no row {exact_dollars(self.uncollected_nano_usd)}"
        ledger = f"the ledger {exact_dollars(self.ledger_nano_usd)}"
        if not self.difference_nano_usd:
            return f"{sides} = {ledger}"
        more = "more" if self.difference_nano_usd > 0 else "less"
        return f"{sides}, but {ledger}: {exact_dollars(abs(self.difference_nano_usd))} {more}"


@dataclass(frozen=True)
class BatchOutcome:
    """Outcome of a run of a batch.

    Attributes:
        batch_id: Its id.
        state: The state in which it ended.
        rows: Entries of all rows that were read.
        ok: Those with an answer.
        failed_by_type: Those with an error, by its type.
        cached: Those answered from the cache.
        joined: Those that shared another caller's run.
        left: Entries that are not done, of the rows that were read.
        is_read: True if those are all rows.
        spent_usd: Cost of the batch.
        reconciliation: Comparison of that with the ledger; None if Redis did not answer.
        remark: Advice on what to do next; empty if there is none.
    """

    batch_id: str
    state: RunState
    rows: int
    ok: int
    failed_by_type: dict[str, int]
    cached: int
    joined: int
    left: int
    is_read: bool
    spent_usd: float
    reconciliation: Reconciliation | None
    remark: str = ""

    @property
    def exit_code(self) -> int:
        """Exit code: 0 if every row has an answer, 1 if some failed or are left."""
        return int(self.state != "finished" or bool(self.failed_by_type))


@dataclass(frozen=True)
class Finished:
    """A run of it ended.

    Attributes:
        outcome: Its outcome.
    """

    outcome: BatchOutcome


BatchEvent = Started | Progress | Paused | Resumed | LaneLeft | RedisAway | Finished
ReportEvent = Callable[[BatchEvent], None]
