"""Statistics of each variant, counted in Redis by all producers and workers."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dspyq.config.settings import Settings, get_settings
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.core.tolerated import read_number
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import statistics_key
from dspyq.store.scripts import Step, command_step, read_hash, run_together
from dspyq.store.spines import on_each_spine

#: The counters of a variant, as the scripts and ``run_counts`` name them.
_COUNTERS = (
    "hits_memory",
    "hits_redis",
    "joined",
    "misses",
    "successes",
    "failures",
    "runs",
    "run_microseconds",
    "prompt_tokens",
    "completion_tokens",
    "cost_nano_usd",
    "unpriced_runs",
    "resumed_runs",
)
_COUNTER_FIELDS = frozenset(name.encode() for name in _COUNTERS)

#: Fields of judgements, as judge.lua writes them, in millionths.
_FEEDBACK_COUNT, _FEEDBACK_SUM, _FEEDBACK_PARTS = b"feedback_count:", b"feedback_sum:", 1_000_000


@dataclass(frozen=True)
class FeedbackCount:
    """Judgements of one name.

    Attributes:
        count: Number of judged calls.
        mean: The mean of their values.
    """

    count: int
    mean: float


@dataclass(frozen=True)
class VariantStatistics:
    """One variant's counts since they were last reset.

    Attributes:
        program: The program's name.
        variant: The variant's name.
        hits_memory: Answered from a process's memory.
        hits_redis: Answered from the result backend.
        joined: Answered by a run that another call had begun.
        misses: Calls that began a run.
        successes: Calls that got an answer, from any source.
        failures: Calls that got an error.
        runs: Runs of the program.
        unpriced_runs: Those of them whose cost is not known.
        mean_duration_seconds: Mean duration of a run that went on from no earlier one; None before the first.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.
        cost_usd: Cost of all runs, as far as their prices are known.
        feedback: Judgements of its answers over HTTP, by name, where no experiment counts them.
    """

    program: str
    variant: str
    hits_memory: int
    hits_redis: int
    joined: int
    misses: int
    successes: int
    failures: int
    runs: int
    unpriced_runs: int
    mean_duration_seconds: float | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    feedback: dict[str, FeedbackCount] = field(default_factory=dict)

    @property
    def hits(self) -> int:
        """Calls that needed no run of their own."""
        return self.hits_memory + self.hits_redis + self.joined

    @property
    def calls(self) -> int:
        """Number of predictions requested."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that needed no run of their own; None before the first call."""
        return self.hits / self.calls if self.calls else None

    @property
    def success_rate(self) -> float | None:
        """The share of ended calls that got an answer; None before the first ended."""
        ended = self.successes + self.failures
        return self.successes / ended if ended else None


def variant_statistics() -> list[VariantStatistics]:
    """Return the statistics of every configured variant, in the configuration's order.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the statistics"):
        settings = get_settings()
        return add_up(on_each_spine(lambda: run_together(jobs_client(), statistics_steps(settings))))


class VariantCounts(NamedTuple):
    """One variant's counts as one Redis holds them.

    Attributes:
        program: The program's name.
        variant: The variant's name.
        fields: The counts, by their fields.
    """

    program: str
    variant: str
    fields: Counter[bytes]


def add_up(parts: Iterable[Sequence[VariantCounts]]) -> list[VariantStatistics]:
    """Return the statistics of variants, each added up over what the spines counted of it.

    Args:
        parts: Of each spine, the counts of the same variants, in one order.
    """
    return [
        _statistics(counts[0].program, counts[0].variant, _total(each.fields for each in counts))
        for counts in zip(*parts, strict=True)
    ]


def statistics_steps(settings: Settings, of: Collection[tuple[str, str]] | None = None) -> list[Step[VariantCounts]]:
    """Return steps that read the counts of configured variants, in the configuration's order, for ``add_up``.

    Args:
        settings: The configuration.
        of: The programs and variants; all where left out.
    """
    return [
        command_step(
            functools.partial(_read, program.name, variant.name),
            *("HGETALL", statistics_key(variant.queue)),
        )
        for program in settings.programs.values()
        for variant in program.variants.values()
        if of is None or (program.name, variant.name) in of
    ]


def _read(program: str, variant: str, reply: Any) -> VariantCounts:
    fields = {name: int(read_number(stored)) for name, stored in read_hash(reply).items() if _is_count(name)}
    return VariantCounts(program, variant, Counter(fields))


def _total(parts: Iterable[Mapping[bytes, int]]) -> Counter[bytes]:
    total: Counter[bytes] = Counter()
    for part in parts:
        total.update(part)  # a sum of counters would drop what is below 0
    return total


def _is_count(name: bytes) -> bool:
    return name in _COUNTER_FIELDS or name.startswith((_FEEDBACK_COUNT, _FEEDBACK_SUM))


def _statistics(program: str, variant: str, found: Mapping[bytes, int]) -> VariantStatistics:
    counts = {name: found.get(name.encode(), 0) for name in _COUNTERS}
    timed_runs = counts["runs"] - counts["resumed_runs"]
    return VariantStatistics(
        program=program,
        variant=variant,
        hits_memory=counts["hits_memory"],
        hits_redis=counts["hits_redis"],
        joined=counts["joined"],
        misses=counts["misses"],
        successes=counts["successes"] + counts["hits_memory"] + counts["hits_redis"],
        failures=counts["failures"],
        runs=counts["runs"],
        unpriced_runs=counts["unpriced_runs"],
        mean_duration_seconds=counts["run_microseconds"] / timed_runs / 1e6 if timed_runs > 0 else None,
        prompt_tokens=counts["prompt_tokens"],
        completion_tokens=counts["completion_tokens"],
        cost_usd=to_usd(counts["cost_nano_usd"]),
        feedback=dict(_read_feedback(found)),
    )


def _read_feedback(found: Mapping[bytes, int]) -> Iterator[tuple[str, FeedbackCount]]:
    for field_name, count in sorted(found.items()):
        name = field_name.removeprefix(_FEEDBACK_COUNT)
        if name != field_name and count:
            total = found.get(_FEEDBACK_SUM + name, 0)
            yield name.decode(errors="replace"), FeedbackCount(count, total / _FEEDBACK_PARTS / count)


def run_counts(
    *,
    is_success: bool,
    duration_seconds: float,
    prompt_tokens: int,
    completion_tokens: int,
    cost_usd: float | None,
) -> dict[str, int]:
    """Return a run's increments of its variant's counters; answer.lua and release.lua store them."""
    return {
        "successes" if is_success else "failures": 1,
        "runs": 1,
        "run_microseconds": round(duration_seconds * 1e6),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_nano_usd": to_nano_usd(cost_usd or 0.0),
        "unpriced_runs": int(cost_usd is None),
    }


def untimed(counts: dict[str, int]) -> dict[str, int]:
    """Return the increments of a run that went on from replies of earlier ones: most of its calls took it no time."""
    return {**counts, "run_microseconds": 0, "resumed_runs": 1}
