"""What a batch would come to, before it is run: rows, tokens, money and time, and whether limits and window hold it.

A quote pays nothing and changes nothing.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from dspyq.batch.files.rows import Row
from dspyq.batch.quotes.estimate import NOTHING, Interval, add_up
from dspyq.batch.quotes.history import Estimate, estimate_variant
from dspyq.batch.quotes.row_counts import Tally, tally
from dspyq.cache.statistics import variant_statistics
from dspyq.celery_app.application import app
from dspyq.config.models import Program
from dspyq.store.clients import redis_errors

Verdict = Literal["holds", "may not hold", "does not hold", "unknown"]
_ASK_WORKERS_SECONDS = 1.0


class Hours(Protocol):
    """The hours in which a batch may run."""

    def seconds_until_open(self, now: float) -> float:
        """Return how long they are closed yet; 0 while they are open."""

    def seconds_until_close(self, now: float) -> float:
        """Return how long they stay open."""


@dataclass(frozen=True)
class Allowance:
    """What a limit leaves to be spent.

    Attributes:
        name: Whose and when, for people.
        scope: ``all``, ``program:<program>`` or ``variant:<program>.<variant>``.
        free_usd: What is left.
    """

    name: str
    scope: str
    free_usd: float


@dataclass(frozen=True)
class Fit:
    """Whether a limit holds the batch.

    Attributes:
        name: The limit, for people.
        unit: What it counts, ``usd`` or ``seconds``.
        available: What there is of it; None for hours without an end.
        verdict: Whether that holds the whole interval, only a part, or nothing of it.
    """

    name: str
    unit: Literal["usd", "seconds"]
    available: float | None
    verdict: Verdict


@dataclass(frozen=True)
class VariantQuote:
    """What a variant's part comes to.

    Attributes:
        variant: The variant's name.
        model: Its model as the provider names it.
        new: Questions to be paid.
        cached: Questions that are answered.
        running: Questions that another caller's run is about to answer.
        estimate: What the new ones come to.
    """

    variant: str
    model: str
    new: int
    cached: int
    running: int
    estimate: Estimate


@dataclass(frozen=True)
class Quote:
    """What a batch comes to.

    Attributes:
        program: The program's name.
        rows: Rows of the input, the faulty ones too.
        faults: The faulty ones, by type.
        duplicates: Questions asked a further time.
        cached: Questions that are answered.
        running: Questions that another caller's run is about to answer.
        new: Questions to be paid.
        variants: What each variant's part comes to.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.
        cost_usd: The cost; None where a price is not known.
        threads: How many predictions the workers run at once that serve the variants now.
        seconds: How long it takes from when it starts; None where nothing tells.
        fits: Whether limits and window hold it.
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
    threads: int
    seconds: Interval | None
    fits: tuple[Fit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def take_quote(  # noqa: PLR0913 - the options of a batch, all by name
    rows: Iterable[Row],
    program: Program,
    *,
    variant: str | None = None,
    is_paired: bool = False,
    max_usd: float | None = None,
    window: Hours | None = None,
    allowances: Sequence[Allowance] = (),
) -> Quote:
    """Read a batch's input once and say what it would come to.

    Args:
        rows: The input's rows.
        program: The program asked.
        variant: A variant to force.
        is_paired: Whether every row asks every variant.
        max_usd: The batch's own limit.
        window: The hours in which it may run.
        allowances: What the budgets leave.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("look the questions up"):
        counted = tally(rows, program, variant=variant, is_paired=is_paired)
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
    seconds = _seconds(program, parts, threads)
    limits = [*allowances] if max_usd is None else [Allowance("--max-usd", "all", max_usd), *allowances]
    fits = [_fit_usd(limit, program, parts) for limit in limits]
    if window is not None:
        fits.append(_fit_window(window, seconds))
    return _quote(program, counted, parts, threads, seconds, tuple(fits))


def threads_serving(queues: set[str]) -> int:
    """Return how many predictions run at once on the workers that serve any of these queues now."""
    if not queues:
        return 0
    with app.connection_for_read() as connection:  # a new one: a pooled one may have died unnoticed
        inspect = functools.partial(app.control.inspect, timeout=_ASK_WORKERS_SECONDS, connection=connection)
        serving = inspect().active_queues() or {}
        workers = [name for name, served in serving.items() if queues & {queue["name"] for queue in served}]
        if not workers:
            return 0
        replies = inspect(workers, limit=len(workers)).stats() or {}
    return sum(int(stats["pool"]["max-concurrency"]) for stats in replies.values())


def _quote(  # noqa: PLR0913, PLR0917 - what a quote is made of
    program: Program,
    counted: Tally,
    parts: tuple[VariantQuote, ...],
    threads: int,
    seconds: Interval | None,
    fits: tuple[Fit, ...],
) -> Quote:
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
        threads=threads,
        seconds=seconds,
        fits=fits,
    )


def _cost_usd(parts: Iterable[VariantQuote]) -> Interval | None:
    costs = [part.estimate.cost_usd for part in parts if part.new]
    known = [cost for cost in costs if cost is not None]
    return add_up(known) if len(known) == len(costs) else None


def _seconds(program: Program, parts: Sequence[VariantQuote], threads: int) -> Interval | None:
    """The longest of what the workers' threads, each model's requests and each model's tokens take."""
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
    of = [part for part in parts if limit.scope in (*scopes, f"variant:{program.name}.{part.variant}")]
    return Fit(limit.name, "usd", limit.free_usd, _verdict(_cost_usd(of), limit.free_usd))


def _fit_window(window: Hours, seconds: Interval | None) -> Fit:
    now = time.time()
    opens_at = now + window.seconds_until_open(now)
    available = window.seconds_until_close(opens_at)
    name = f"window {window}" if now >= opens_at else f"window {window}, next time"
    return Fit(name, "seconds", available if math.isfinite(available) else None, _verdict(seconds, available))


def _verdict(need: Interval | None, available: float) -> Verdict:
    if need is None:
        return "unknown"
    if need.high <= available:
        return "holds"
    return "does not hold" if need.low > available else "may not hold"
