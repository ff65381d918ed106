"""Estimate of future runs from a variant's past runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dspyq.batch.quotes.cache_probe import find_answers, read_metadata
from dspyq.batch.quotes.estimate import NOTHING, Interval, Rows, bootstrap, from_mean
from dspyq.cache.statistics import VariantStatistics
from dspyq.config.programs import Program
from dspyq.config.variants import Variant
from dspyq.prediction.prediction import Metadata

Basis = Literal["answers", "statistics", "bound"]

SAMPLED_ANSWERS = 200
_LEAST_ANSWERS = 5
_TOKENS_PER_PRICE = 1_000_000
#: Approximate upper bound of the text that an adapter adds to the inputs.
_PROMPT_BYTES = 2_000
#: What an adapter writes around a field of a demonstration is no longer than the field with its name in JSON.
_ADAPTED = 2


class PastRun(NamedTuple):
    """A run that was paid for.

    Attributes:
        metadata: Metadata of its answer.
        input_bytes: The bytes of its inputs; known only for the batch's own rows.
    """

    metadata: Metadata
    input_bytes: int | None


@dataclass(frozen=True)
class Estimate:
    """Estimate for the new rows of a variant.

    Attributes:
        basis: Its source: answers in the cache, the variant's mean over all its runs, or only the upper bound of each
            row.
        runs: Number of past runs used.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.
        cost_usd: Cost; None if no price is known.
        run_seconds: Total running time; None if nothing has run yet.
    """

    basis: Basis
    runs: int
    prompt_tokens: Interval
    completion_tokens: Interval
    cost_usd: Interval | None
    run_seconds: Interval | None


def estimate_variant(
    program: Program, variant: Variant, rows: Rows, own: Sequence[tuple[str, int]], statistics: VariantStatistics
) -> Estimate:
    """Estimate the new rows of a variant.

    Args:
        program: Its program.
        variant: The variant.
        rows: Its new rows.
        own: Tasks that answered other rows of the batch, and the bytes of their inputs.
        statistics: The variant's statistics.
    """
    if not rows.number:
        return Estimate("bound", 0, NOTHING, NOTHING, NOTHING, NOTHING)
    runs = _paid(own)
    if len(runs) < _LEAST_ANSWERS:
        runs += _paid([(task_id, None) for task_id in find_answers(variant.queue, SAMPLED_ANSWERS)])
    if len(runs) >= _LEAST_ANSWERS:
        return _from_answers(variant, rows, runs)
    if statistics.runs:
        return _from_statistics(variant, rows, statistics)
    return _bound(program, variant, rows)


def _paid(answers: Sequence[tuple[str, int | None]]) -> list[PastRun]:
    found = read_metadata([task_id for task_id, _ in answers])
    return [
        PastRun(metadata, size)
        for metadata, (_, size) in zip(found, answers, strict=True)
        if metadata is not None and not metadata.cached and metadata.fallback is None
    ]


def _from_answers(variant: Variant, rows: Rows, runs: Sequence[PastRun]) -> Estimate:
    known = [run.input_bytes for run in runs if run.input_bytes is not None]
    sizes = known if len(known) == len(runs) else None
    of = [run.metadata for run in runs]
    prompt_tokens = bootstrap([each.usage.prompt_tokens for each in of], sizes, rows)
    completion_tokens = bootstrap([each.usage.completion_tokens for each in of], sizes, rows)
    costs = [each.cost_usd for each in of if each.cost_usd is not None]
    if len(costs) == len(of):
        cost_usd: Interval | None = bootstrap(costs, sizes, rows)
    else:
        cost_usd = _priced(variant, prompt_tokens, completion_tokens)
    run_seconds = bootstrap([each.duration_seconds for each in of], None, rows)
    return Estimate("answers", len(runs), prompt_tokens, completion_tokens, cost_usd, run_seconds)


def _from_statistics(variant: Variant, rows: Rows, statistics: VariantStatistics) -> Estimate:
    runs = statistics.runs
    prompt_tokens = from_mean(statistics.prompt_tokens / runs, runs, rows)
    completion_tokens = from_mean(statistics.completion_tokens / runs, runs, rows)
    if statistics.unpriced_runs:
        cost_usd = _priced(variant, prompt_tokens, completion_tokens)
    else:
        cost_usd = from_mean(statistics.cost_usd / runs, runs, rows)
    run_seconds = from_mean(statistics.mean_duration_seconds or 0.0, runs, rows)
    return Estimate("statistics", runs, prompt_tokens, completion_tokens, cost_usd, run_seconds)


def _bound(program: Program, variant: Variant, rows: Rows) -> Estimate:
    """Return the upper bound with one call a row: a token is at least a byte of the prompt, the reply is bounded."""
    served = program.served[variant.name]
    around = _PROMPT_BYTES + len((served.instructions or "").encode()) + _bytes_of_state(served.state)
    around += variant.model.prompt_overhead_tokens
    prompt_tokens = Interval(0.0, None, float(rows.input_bytes + rows.number * around))
    completion_tokens = Interval(0.0, None, float(rows.number * variant.model.max_tokens))
    return Estimate(
        "bound", 0, prompt_tokens, completion_tokens, _priced(variant, prompt_tokens, completion_tokens), None
    )


def _bytes_of_state(path: Path | None) -> int:
    """Return the most bytes that a state adds to a prompt: its demonstrations, with an adapter's names of fields."""
    if path is None:
        return 0
    try:
        return _ADAPTED * path.stat().st_size
    except OSError:  # it was removed after the settings were read
        return 0


def _priced(variant: Variant, prompt_tokens: Interval, completion_tokens: Interval) -> Interval | None:
    """Return the cost of tokens at the configured prices; both kinds rise together, so the ends are added."""
    model = variant.model
    if model.input_usd_per_million_tokens is None or model.output_usd_per_million_tokens is None:
        return None
    prompt = prompt_tokens.scaled(model.input_usd_per_million_tokens / _TOKENS_PER_PRICE)
    completion = completion_tokens.scaled(model.output_usd_per_million_tokens / _TOKENS_PER_PRICE)
    both = prompt.expected is not None and completion.expected is not None
    expected = (prompt.expected or 0.0) + (completion.expected or 0.0) if both else None
    return Interval(prompt.low + completion.low, expected, prompt.high + completion.high)
