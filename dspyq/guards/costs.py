"""The books: what calls of models cost by day, program, variant and model, and what the cache saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import redis

from dspyq.cache.claims import COSTS_PREFIX
from dspyq.config.periods import Calendar
from dspyq.config.settings import Settings
from dspyq.store.scripts import Step, command_step


@dataclass(frozen=True, slots=True)
class Costs:
    """What the calls of one variant to one model came to in a day.

    Attributes:
        day: The day, by ``budget.timezone``.
        program: The program's name.
        variant: The variant's name.
        model: The model's table in the configuration; empty for what hits saved a variant that is configured no more.
        calls: Calls that the provider served, or may have.
        prompt_tokens: Tokens sent, as far as the provider counted them.
        completion_tokens: Tokens generated, as far as the provider counted them.
        billed_nano_usd: What those of known cost came to.
        unknown_calls: Calls whose cost nobody knows.
        unknown_nano_usd: The most that those can have cost, which they were charged.
        avoided_nano_usd: What answers from the cache, and from runs that others had begun, would have cost.
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
    """Return what the last days came to, the latest first.

    Args:
        client: Of the jobs' Redis.
        settings: The configuration; where it names a variant's model, that line gets what hits saved.
        days: How many days, today included.
        calendar: The days; those of ``budget.timezone`` where left out.
    """
    today = date.fromisoformat((calendar or Calendar(settings.budget.timezone)).now().today)
    labels = [(today - timedelta(days=number)).isoformat() for number in range(days)]
    pipeline = client.pipeline(transaction=False)
    for label in labels:
        pipeline.hgetall(COSTS_PREFIX + label)
    books: list[dict[bytes, bytes]] = pipeline.execute()
    return [costs for label, book in zip(labels, books, strict=True) for costs in _read(label, book, settings)]


def today_step(settings: Settings, calendar: Calendar) -> Step[list[Costs]]:
    """Return a step that reads the current day's books."""
    day = calendar.now().today
    return command_step(lambda book: list(_read(day, book, settings)), "HGETALL", COSTS_PREFIX + day)


def _read(day: str, book: dict[bytes, bytes], settings: Settings) -> Iterator[Costs]:
    """A day's book, as the scripts write it: ``<program>.<variant> <model> <counter>``, without the model for hits."""
    lines: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for field, amount in book.items():
        queue, *model, counter = field.decode().split(" ")
        program, _, variant = queue.partition(".")
        named = model[0] if model else _configured_model(settings, program, variant)
        lines[program, variant, named][counter] = int(amount)
    for (program, variant, named), counters in sorted(lines.items()):
        yield Costs(day, program, variant, named, **counters)


def _configured_model(settings: Settings, program: str, variant: str) -> str:
    try:
        return settings.programs[program].variants[variant].model.name
    except KeyError:
        return ""
