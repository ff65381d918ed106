"""What a running batch tells whoever shows it, and what it came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from dspyq.batch.account import UncollectedCall
from dspyq.batch.entry import State
from dspyq.batch.journal import Totals
from dspyq.core.money import dollars

PauseReason = Literal["asked", "window", "share"]
RunState = Literal["running", "paused", "stopped", "limited", "cancelled", "finished"]

_LEVELS = frozenset({"memory", "redis", "joined"})


@dataclass
class Counts:
    """What the entries of a batch came to so far.

    Attributes:
        done: Entries whose lines are there.
        ok: Those with an answer.
        computed: Those that a run of this batch answered.
        cached: Those answered before they asked.
        joined: Those that shared another's run.
        failed_by_type: The others, by the type of their error.
        cost_nano_usd: What all of them cost.
        prompt_tokens: Sent by the batch's own runs.
        completion_tokens: Generated for them.
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
    def of(cls, totals: Iterable[Totals]) -> Counts:
        """Return what a journal says."""
        counts = cls()
        for total in totals:
            counts.cost_nano_usd += total.cost_nano_usd
            counts.prompt_tokens += total.prompt_tokens
            counts.completion_tokens += total.completion_tokens
            if total.outcome is not None and total.state >= State.OK:
                counts.add(total.state, total.outcome, total.entries)
        return counts

    def add(self, state: State, outcome: str, entries: int = 1) -> None:
        """Count entries that are done."""
        self.done += entries
        if state != State.OK:
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
    """How far a batch is.

    Attributes:
        state: What it does.
        rows_read: Rows it has read.
        is_read: Whether those are all.
        entries: Rows, times variants where each row is asked of all: what is done of ``rows_read``.
        done: As of ``Counts``.
        ok: As of ``Counts``.
        failed: As of ``Counts``.
        cached: As of ``Counts``.
        joined: As of ``Counts``.
        in_flight: Entries that were asked and are not answered.
        spent_usd: What it has cost.
        share_read: How much of the input was read, from 0 to 1.
        rows_per_second: How many were done a second, since this process began.
        seconds_left: How long it takes at that rate; None where that is not known yet.
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
    """It goes on.

    Attributes:
        batch_id: Its id.
        snapshot: How far it is.
    """

    batch_id: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Paused:
    """It asks nothing until something else happens; what runs is collected.

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
    """It asks again.

    Attributes:
        batch_id: Its id.
    """

    batch_id: str


@dataclass(frozen=True)
class RedisAway:
    """Redis does not answer; the batch waits for it.

    Attributes:
        batch_id: Its id.
        message: What Redis said.
    """

    batch_id: str
    message: str


@dataclass(frozen=True)
class Reconciliation:
    """Whether OUT and the ledger agree on what a batch cost, to the nano-dollar.

    Attributes:
        output_nano_usd: The sum over OUT.
        ledger_nano_usd: What the ledger has settled for the batch.
        uncollected: Calls whose cost is on no row, as those of runs that were killed.
    """

    output_nano_usd: int
    ledger_nano_usd: int
    uncollected: tuple[UncollectedCall, ...] = ()

    @property
    def uncollected_nano_usd(self) -> int:
        """What those calls cost."""
        return sum(call.charged_nano_usd for call in self.uncollected)

    @property
    def difference_nano_usd(self) -> int:
        """What nothing explains; 0 where the books are right."""
        return self.ledger_nano_usd - self.output_nano_usd - self.uncollected_nano_usd

    def __str__(self) -> str:
        """Say it in one line."""
        sides = f"OUT {dollars(self.output_nano_usd)}"
        if self.uncollected:
            sides += f" + {len(self.uncollected):,} calls on no row {dollars(self.uncollected_nano_usd)}"
        ledger = f"the ledger {dollars(self.ledger_nano_usd)}"
        if not self.difference_nano_usd:
            return f"{sides} = {ledger}"
        more = "more" if self.difference_nano_usd > 0 else "less"
        return f"{sides}, but {ledger}: {dollars(abs(self.difference_nano_usd))} {more}"


@dataclass(frozen=True)
class Outcome:
    """What a run of a batch came to.

    Attributes:
        batch_id: Its id.
        state: How it ended.
        rows: Entries of all rows that were read.
        ok: Those with an answer.
        failed_by_type: Those with an error, by its type.
        cached: Those answered before they asked.
        joined: Those that shared another's run.
        left: Entries that are not done, of the rows that were read.
        is_read: Whether those are all rows.
        spent_usd: What the batch cost.
        reconciliation: Whether that agrees with the ledger; None where Redis could not be asked.
        remark: What to do, where there is something.
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
        """0 where every row has an answer, 1 where some failed or are left."""
        return int(self.state != "finished" or bool(self.failed_by_type))


@dataclass(frozen=True)
class Finished:
    """A run of it ended.

    Attributes:
        outcome: What it came to.
    """

    outcome: Outcome


Event = Started | Progress | Paused | Resumed | RedisAway | Finished
