"""Cost records: the cost of model calls by day, program, variant and model, and the cache's savings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any

import redis

from dspyq.config.periods import Calendar
from dspyq.config.settings import Settings
from dspyq.store.keys import costs_key, folded_costs_key, savings_key
from dspyq.store.scripts import Step, command_step, load_script, read_hash
from dspyq.store.spine_sums import sum_hashes

#: Days after which the books of a day are folded; late bills come within a week.
_DAYS_UNFOLDED = 31
#: Age of the oldest books, in days.
_DAYS_KEPT = 401
#: The most days that one script folds, so that Redis serves others in between.
_DAYS_AT_ONCE = 1
#: The amounts of a folded line, in this order.
_COUNTERS = (
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "billed_nano_usd",
    "unknown_calls",
    "unknown_nano_usd",
    "avoided_nano_usd",
)
_NOTHING: Mapping[bytes, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Costs:
    """One day's totals of the calls of one variant to one model.

    Attributes:
        day: The day, by ``budget.timezone``.
        program: The program's name.
        variant: The variant's name.
        model: The model's table in the configuration; empty for savings of a variant that is no longer configured.
        calls: Calls that the provider served, or may have.
        prompt_tokens: Tokens sent, as far as the provider counted them.
        completion_tokens: Tokens generated, as far as the provider counted them.
        billed_nano_usd: Total of known costs.
        unknown_calls: Calls of unknown cost.
        unknown_nano_usd: Total of their bounds, which were charged.
        avoided_nano_usd: Cost saved by answers from the cache and from runs of others.
    """

    day: str
    program: str
    variant: str
    model: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    billed_nano_usd: int = 0
    unknown_calls: int = 0
    unknown_nano_usd: int = 0
    avoided_nano_usd: int = 0


def read_costs(client: redis.Redis, settings: Settings, *, days: int, calendar: Calendar | None = None) -> list[Costs]:
    """Return the costs of the last days, the latest first.

    Args:
        client: Of the Redis of books; savings are added up over all spines.
        settings: The configuration; savings count for the model that it names for a variant.
        days: Number of days, including today.
        calendar: The days; those of ``budget.timezone`` where left out.
    """
    today = date.fromisoformat((calendar or Calendar(settings.budget.timezone)).now().today)
    labels = [(today - timedelta(days=number)).isoformat() for number in range(days)]
    pipeline = client.pipeline(transaction=False)
    for label in labels:
        pipeline.hgetall(costs_key(label))
        pipeline.hgetall(folded_costs_key(label))
        if not settings.is_money_apart:
            pipeline.hgetall(savings_key(label))
    read: list[dict[bytes, bytes]] = pipeline.execute()
    savings: Sequence[Mapping[bytes, Any]]
    if settings.is_money_apart:
        books, folded = read[::2], read[1::2]
        savings = sum_hashes(lambda: [savings_key(label) for label in labels])
    else:
        books, folded, savings = read[::3], read[1::3], read[2::3]
    return [
        costs
        for place, label in enumerate(labels)
        for costs in _read(label, settings, books[place], savings[place], folded[place])
    ]


class OldBooks:
    """Books of past days, folded when they are old so that they take half of the memory. Any worker may do this.

    Savings stay as they are: one field for each variant and day, which is what folding would leave of them.

    Args:
        client: Of the jobs' Redis.
        settings: The configuration, for its timezone.
        calendar: The days; those of ``budget.timezone`` where left out.
    """

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        self._fold = load_script(client, "dspyq.guards", "fold_books")
        self._calendar = calendar or Calendar(settings.budget.timezone)
        self._folded_on = ""

    def fold(self) -> int:
        """Fold the next old day, if this process has not found today that none is left; return the number of days."""
        today = self._calendar.now().today
        if today == self._folded_on:
            return 0
        days = (date.fromisoformat(today) - timedelta(days=age) for age in range(_DAYS_UNFOLDED, _DAYS_KEPT))
        keys = [name for day in days for name in (costs_key(day.isoformat()), folded_costs_key(day.isoformat()))]
        folded: int = self._fold(keys, limit=_DAYS_AT_ONCE)
        if folded < _DAYS_AT_ONCE:
            self._folded_on = today
        return folded


def today_steps(settings: Settings, calendar: Calendar) -> tuple[Step[list[Costs]], Step[list[Costs]]]:
    """Return steps that read the current day's books, and its savings; a total adds up the lines of both."""
    day = calendar.now().today

    def read(reply: Any) -> list[Costs]:
        return list(_read(day, settings, read_hash(reply)))

    return command_step(read, "HGETALL", costs_key(day)), command_step(read, "HGETALL", savings_key(day))


def _read(
    day: str,
    settings: Settings,
    book: Mapping[bytes, bytes],
    savings: Mapping[bytes, Any] = _NOTHING,
    folded: Mapping[bytes, bytes] = _NOTHING,
) -> Iterator[Costs]:
    """Read a day's book and savings, as scripts write them: ``<program>.<variant> <model> <counter>``.

    Savings have no model. Version 0.1 writes them into the book.
    """
    lines: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)

    def line_of(queue: str, *model: str) -> Counter[str]:
        program, _, variant = queue.partition(".")
        return lines[program, variant, model[0] if model else _configured_model(settings, program, variant)]

    for field, amount in chain(book.items(), savings.items()):
        *line, counter = field.decode().split(" ")
        line_of(*line)[counter] += int(amount)
    for field, amounts in folded.items():
        line_of(*field.decode().split(" ")).update(dict(zip(_COUNTERS, map(int, amounts.split()), strict=False)))
    for (program, variant, named), counters in sorted(lines.items()):
        yield Costs(day, program, variant, named, **counters)


def _configured_model(settings: Settings, program: str, variant: str) -> str:
    try:
        return settings.programs[program].variants[variant].model.name
    except KeyError:
        return ""
