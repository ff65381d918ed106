"""Records of model calls: each attempt, the job that made them, and their sum. Independent of DSPy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from dspyq.core.money import to_nano_usd, to_usd
from dspyq.guards.billing import Payer

#: The outcome of a call that was answered; any other is the code of its error, as in ``rate_limit`` or ``timeout``.
ANSWERED = "ok"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt to call a model, whether it succeeded or not.

    Attributes:
        model: The model's table in the configuration.
        outcome: ``ok``, or the code of the error.
        duration_seconds: Duration of the attempt.
        prompt_tokens: Tokens sent, by the provider's count; None without one.
        completion_tokens: Tokens generated, by the provider's count; None without one.
        cost_usd: The cost; None if unknown, as for a failed call.
        is_estimated: True if the bill is unknown and the cost is its bound.
        key: Digest of the request and its occurrence in this prediction; the same for another attempt of it.
        began_at: When, seconds since 1970.
        spends_attempt: Whether it failed and counts against ``retry.max_attempts`` (``dspyq.guards.spent``).
        opens_breaker: Whether its failure opened the breaker, or kept it open as a probe's does; that spends a probe.
        row: The row of failures in which it stands; 0 for none.
        is_in_outage: Whether that row was an outage by then.
        account_row: The row of closings of the gate in which the provider refused it as the account's; 0 for none.
        failed_at: When it failed, by Redis's clock in microseconds; 0 where it stands in no row.
        refused_at: When a 429 refused it, by Redis's clock in microseconds; 0 where none did.
        refused_row: The row of such refusals in which it stands: a call that succeeds ends it.
    """

    model: str
    outcome: str
    duration_seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    is_estimated: bool = False
    key: str = field(default="", compare=False)
    began_at: float = field(default=0.0, compare=False)
    spends_attempt: bool = field(default=False, compare=False)
    opens_breaker: bool = field(default=False, compare=False)
    row: int = field(default=0, compare=False)
    is_in_outage: bool = field(default=False, compare=False)
    account_row: int = field(default=0, compare=False)
    failed_at: int = field(default=0, compare=False)
    refused_at: int = field(default=0, compare=False)
    refused_row: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class JobRun:
    """Owner of the model calls of one run.

    Attributes:
        task_id: The task's id.
        fence: The number of the run; empty for a run without a job record.
        program: The program's name.
        variant: The name of the variant that runs; another than the task's own where it answers as a fallback.
        run_count: Number of runs of the job, including this one.
        batch: The id of the batch that pays for its calls; empty where none does.
        alias: The key of its question's alias, where a batch pays.
        question: The hash of its question; empty for a job without one.
        payer: The account of its program that pays in place of its variant's; empty for none.
        tenant: The tenant that pays for its calls; empty where none does.
    """

    task_id: str
    fence: str
    program: str
    variant: str
    run_count: int = 1
    batch: str = ""
    alias: str = ""
    question: str = ""
    payer: Payer = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Calls, replies and running time of a job's earlier runs, from which the next run continues.

    Attributes:
        calls: Their calls.
        replies: Their paid replies, by key.
        running_seconds: Their total running time, if the program has a deadline.
        failures: Lasting failures that landed from a lane, by key.
        attempts: The calls of all variants, by the attempt's id.
    """

    calls: tuple[CallRecord, ...] = ()
    replies: Mapping[str, bytes] = field(default_factory=dict)
    running_seconds: float = 0.0
    failures: Mapping[str, bytes] = field(default_factory=dict)
    attempts: Mapping[str, CallRecord] = field(default_factory=dict)


NO_EARLIER_RUNS = EarlierRuns()


@dataclass(frozen=True, slots=True)
class ProgramAnswer:
    """Outputs of a program and the calls they took.

    Attributes:
        outputs: The outputs as JSON values.
        calls: Every call of a model, failed ones included, of earlier runs of the job too.
        exact: The exact form of the outputs that need one.
    """

    outputs: dict[str, JsonValue]
    calls: tuple[CallRecord, ...]
    exact: dict[str, JsonValue] = field(default_factory=dict)

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
        """Total cost of its calls."""
        return total_cost_usd(self.calls)


def total_cost_usd(calls: Iterable[CallRecord]) -> float | None:
    """Return the total cost of calls, as the books add it up; None if an answered one has no known cost.

    Failed calls of unknown cost count as free: providers do not state if they bill them.
    """
    total_nano_usd = 0
    for call in calls:
        if call.cost_usd is None and call.outcome == ANSWERED:
            return None
        total_nano_usd += to_nano_usd(call.cost_usd or 0.0)
    return to_usd(total_nano_usd)
