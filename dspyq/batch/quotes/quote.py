"""Quote of a batch before it runs: rows, tokens, cost and time, compared with its limits and window.

A quote costs nothing and changes nothing.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from dspyq.batch.files.rows import Row
from dspyq.batch.quotes.estimate import NOTHING, Interval, add_up
from dspyq.batch.quotes.history import Estimate, estimate_variant
from dspyq.batch.quotes.row_counts import RowCounts, count_rows
from dspyq.cache.statistics import variant_statistics
from dspyq.celery_app.application import process_app
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.delivery.queues import process_queues
from dspyq.store.clients import redis_errors

FitVerdict = Literal["holds", "may not hold", "does not hold", "unknown"]
_ASK_WORKERS_SECONDS = 1.0


class Hours(Protocol):
    """The hours in which a batch may run."""

    def seconds_until_open(self, now: float) -> float:
        """Return the seconds until they open; 0 while they are open."""

    def seconds_until_close(self, now: float) -> float:
        """Return the seconds until they close."""


@dataclass(frozen=True)
class Allowance:
    """Remaining amount of a budget limit.

    Attributes:
        name: Its owner and period, for people.
        scope: ``all``, ``program:<program>``, ``variant:<program>.<variant>`` or ``tenant:<tenant>``.
        free_usd: The remaining amount.
    """

    name: str
    scope: str
    free_usd: float


@dataclass(frozen=True)
class Fit:
    """Comparison of the batch's interval with a limit.

    Attributes:
        name: The limit, for people.
        unit: Its unit, ``usd`` or ``seconds``.
        available: The available amount; None for hours without an end.
        verdict: The amount covers the whole interval, only a part, or nothing of it.
    """

    name: str
    unit: Literal["usd", "seconds"]
    available: float | None
    verdict: FitVerdict


@dataclass(frozen=True)
class VariantQuote:
    """A variant's part of a quote.

    Attributes:
        variant: The variant's name.
        model: Its model as the provider names it.
        new: Questions to be paid.
        cached: Questions that are answered.
        running: Questions that another caller's run is about to answer.
        estimate: Estimate for the new ones.
    """

    variant: str
    model: str
    new: int
    cached: int
    running: int
    estimate: Estimate


@dataclass(frozen=True)
class Quote:
    """Quote of a batch.

    Attributes:
        program: The program's name.
        rows: Rows of the input, including faulty ones.
        faults: The faulty ones, by type.
        duplicates: Repeated questions.
        cached: Questions that are answered.
        running: Questions that another caller's run is about to answer.
        new: Questions to be paid.
        variants: Each variant's part.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.
        cost_usd: The cost; None if a price is unknown.
        threads: Number of concurrent predictions of the workers that serve the variants now.
        seconds: Duration from its start; None if it cannot be estimated.
        fits: Comparison with each limit and the window.
    """

    program: str
    rows: int
    faults: dict[str, int]
    duplicates: int
    cached: int
    running: int
    new: int
    variants: tuple[VariantQuote, ...]
    prompt_tokens: Interval
    completion_tokens: Interval
    cost_usd: Interval | None
    threads: int = 0
    seconds: Interval | None = None
    fits: tuple[Fit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class QuoteOptions:
    """Options of a batch that its quote depends on.

    Attributes:
        variant: A variant to force.
        is_paired: True to run every row with every variant.
        max_usd: The batch's own limit.
        window: The hours in which it may run.
        cluster: The field that names a row's cluster.
        tenant: The tenant of its calls; None for none.
        lane: Its lane; empty for live calls.
        finish_by: The hour by which it is to be done, and its time zone; None for no hour.
    """

    variant: str | None = None
    is_paired: bool = False
    max_usd: float | None = None
    window: Hours | None = None
    cluster: str | None = None
    tenant: str | None = None
    lane: str = ""
    finish_by: tuple[str, str] | None = None


def take_quote(
    rows: Iterable[Row],
    program: Program,
    options: QuoteOptions = QuoteOptions(),
    allowances: Sequence[Allowance] = (),
) -> Quote:
    """Read a batch's input once and return its quote.

    Args:
        rows: The input's rows.
        program: The program.
        options: The batch's options.
        allowances: The remaining amounts of the budgets.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("look the questions up"):
        counted = count_rows(rows, program, variant=options.variant, is_paired=options.is_paired, tenant=options.tenant)
        statistics = {each.variant: each for each in variant_statistics() if each.program == program.name}
        parts = tuple(
            VariantQuote(
                variant=name,
                model=program.variants[name].model.model,
                new=of.new,
                cached=of.cached,
                running=of.running,
                estimate=estimate_variant(program, program.variants[name], of.rows, of.answers, statistics[name]),
            )
            for name, of in counted.variants.items()
            if of.new or of.cached or of.running
        )
        threads = threads_serving({f"{program.name}.{part.variant}" for part in parts if part.new})
    if options.max_usd is not None:
        allowances = [Allowance("--max-usd", "all", options.max_usd), *allowances]
    seconds = _seconds(program, parts, threads)
    fits = [_fit_usd(limit, program, parts) for limit in allowances]
    if options.window is not None:
        fits.append(_fit_window(options.window, seconds))
    return replace(_quote(program, counted, parts), threads=threads, seconds=seconds, fits=tuple(fits))


def threads_serving(queues: set[str]) -> int:
    """Return the number of concurrent predictions of the workers that serve any of these queues now.

    Only remote control finds out how many there are: without it, one with ``workers.concurrency`` threads is assumed.
    """
    if not queues:
        return 0
    workers_section = get_settings().workers
    if not workers_section.remote_control:
        is_served = any(queue.is_served for queue in process_queues().all() if queue.name in queues)
        return workers_section.concurrency if is_served else 0
    app = process_app()
    with app.connection_for_read() as connection:  # a new one: a pooled one may have died unnoticed
        inspect = functools.partial(app.control.inspect, timeout=_ASK_WORKERS_SECONDS, connection=connection)
        serving = inspect().active_queues() or {}
        workers = [name for name, served in serving.items() if queues & {queue["name"] for queue in served}]
        if not workers:
            return 0
        replies = inspect(workers, limit=len(workers)).stats() or {}
    return sum(int(stats["pool"]["max-concurrency"]) for stats in replies.values())


def _quote(program: Program, counted: RowCounts, parts: tuple[VariantQuote, ...]) -> Quote:
    """Return a quote, but for its duration and what it fits."""

    def sum_of(name: str) -> int:
        return sum(getattr(of, name) for of in counted.variants.values())

    return Quote(
        program=program.name,
        rows=counted.rows,
        faults=dict(counted.faults.most_common()),
        duplicates=counted.duplicates,
        cached=sum_of("cached"),
        running=sum_of("running"),
        new=sum_of("new"),
        variants=parts,
        prompt_tokens=add_up([part.estimate.prompt_tokens for part in parts]),
        completion_tokens=add_up([part.estimate.completion_tokens for part in parts]),
        cost_usd=_cost_usd(parts),
    )


def _cost_usd(parts: Iterable[VariantQuote]) -> Interval | None:
    costs = [part.estimate.cost_usd for part in parts if part.new]
    known = [cost for cost in costs if cost is not None]
    return add_up(known) if len(known) == len(costs) else None


def _seconds(program: Program, parts: Sequence[VariantQuote], threads: int) -> Interval | None:
    """Return the longest of the times set by workers' threads, by each model's requests and by each model's tokens."""
    paid = [part for part in parts if part.new]
    if not paid:
        return NOTHING
    runs = [part.estimate.run_seconds for part in paid if part.estimate.run_seconds is not None]
    if len(runs) < len(paid) or not threads:
        return None
    needs = [add_up(runs).scaled(1 / threads)]
    models = {program.variants[part.variant].model.name: program.variants[part.variant].model for part in paid}
    for name, model in models.items():
        of = [part for part in paid if program.variants[part.variant].model.name == name]
        if model.requests_per_second:
            seconds = sum(part.new for part in of) / model.requests_per_second
            needs.append(Interval(seconds, seconds, seconds))
        if model.tokens_per_minute:
            tokens = [
                tokens for part in of for tokens in (part.estimate.prompt_tokens, part.estimate.completion_tokens)
            ]
            needs.append(add_up(tokens).scaled(60 / model.tokens_per_minute))
    expected = [need.expected for need in needs if need.expected is not None]
    return Interval(max(need.low for need in needs), max(expected), max(need.high for need in needs))


def _fit_usd(limit: Allowance, program: Program, parts: Sequence[VariantQuote]) -> Fit:
    scopes = ("all", f"program:{program.name}")
    is_whole = limit.scope in scopes or limit.scope.startswith("tenant:")
    of = [part for part in parts if is_whole or limit.scope == f"variant:{program.name}.{part.variant}"]
    return Fit(limit.name, "usd", limit.free_usd, _verdict(_cost_usd(of), limit.free_usd))


def _fit_window(window: Hours, seconds: Interval | None) -> Fit:
    now = time.time()
    opens_at = now + window.seconds_until_open(now)
    available = window.seconds_until_close(opens_at)
    name = f"window {window}" if now >= opens_at else f"window {window}, next time"
    return Fit(name, "seconds", available if math.isfinite(available) else None, _verdict(seconds, available))


def _verdict(need: Interval | None, available: float) -> FitVerdict:
    if need is None:
        return "unknown"
    if need.high <= available:
        return "holds"
    return "does not hold" if need.low > available else "may not hold"
