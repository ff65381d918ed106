"""Prometheus metrics of the whole fleet: every worker exports the same values, so panels take their ``max``.

Each scrape reads them from Redis in one round trip; from several, in one for each, and adds up what spines count. With
many configured variants, those without activity are neither exported nor read each time (``quiet``). If Redis does not
answer, the scrape takes a second or two longer and omits these metrics: no value is better than a stale one. Where one
of several spines does not, those that are added up are omitted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq.batch.ends import ends_command, read_ends
from dspyq.cache.statistics import VariantCounts, VariantStatistics, add_up, statistics_steps
from dspyq.config.periods import process_calendar
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.money import to_usd
from dspyq.core.names import DEFAULT_QUEUE
from dspyq.core.tolerated import read_number, tolerate
from dspyq.delivery.backlog import OTHER_QUEUES, Backlog, QueueBacklog, add_up_backlogs
from dspyq.delivery.dead import DEAD
from dspyq.guards.breaker import Breaker
from dspyq.guards.costs import Costs, today_steps
from dspyq.guards.limits import Account, Limits, read_accounts
from dspyq.lane.figures import LaneFigures, LaneReader, add_up_lanes
from dspyq.store.clients import connect
from dspyq.store.keys import key
from dspyq.store.scripts import Step, command_step, run_together
from dspyq.store.spines import Spine, current_spine, on_each_spine
from dspyq.worker.monitoring.batches import batch_ends, lane_metrics
from dspyq.worker.monitoring.cache_size import CACHE_SIZE
from dspyq.worker.monitoring.quiet import Shown

logger = logging.getLogger("dspyq.metrics")

#: Timeout of connecting, and of each reply.
_TIMEOUT_SECONDS = 1.0
#: Interval at which variants without known activity are read too.
_ALL_READ_SECONDS = 300.0
_BREAKER_VALUES = {"closed": 0.0, "half-open": 0.5, "open": 1.0}


@dataclass(frozen=True, slots=True)
class FleetReading:
    """Snapshot of the fleet.

    Attributes:
        backlogs: The unfinished jobs by queue.
        dead: Number of dead-lettered jobs.
        statistics: Statistics of each variant.
        cache_size: Entries and bytes of the cache in Redis; None before they were measured.
        costs: Today's books.
        accounts: The budgets.
        batch_ends: Runs of batches that ended, by program and state.
        lanes: The lanes that hold anything, by model.
        spines: True for each spine that answered, by its name; empty for one Redis. Where one did not, what is added up
            over all is left out: a part of it would look like a fall.
    """

    backlogs: list[QueueBacklog]
    dead: int | None
    statistics: list[VariantStatistics]
    cache_size: tuple[int, int] | None
    costs: list[Costs]
    accounts: list[Account]
    batch_ends: dict[tuple[str, str], int]
    lanes: dict[str, LaneFigures]
    spines: dict[str, bool] = field(default_factory=dict)


class _OfSpine(NamedTuple):
    """Counts of one spine, as they are read."""

    backlogs: list[QueueBacklog]
    dead: int
    savings: list[Costs]
    lanes: dict[str, LaneFigures]
    statistics: list[VariantCounts]


class _SpineReader(NamedTuple):
    """Reader of one spine.

    Attributes:
        spine: The spine; None for the only Redis.
        client: Its client.
        backlog: Reads its backlog.
        lanes: Reads its lanes.
    """

    spine: Spine | None
    client: redis.Redis
    backlog: Backlog
    lanes: LaneReader


class Fleet:
    """Reads the fleet.

    Args:
        settings: The configuration.
        breakers: The circuit breakers of this worker's models; reading brings them up to date.
    """

    def __init__(self, settings: Settings, breakers: Mapping[str, Breaker]) -> None:
        self.breakers = breakers
        self._settings = settings
        self._client = connect(settings.home_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
        variants = [variant for program in settings.programs.values() for variant in program.variants.values()]
        queues = [*(variant.queue for variant in variants), DEFAULT_QUEUE]
        self._readers = on_each_spine(lambda: self._reader(current_spine(), queues))
        self._limits = Limits(self._client, settings, process_calendar())
        self._shown = Shown(len(variants))
        self._active: set[tuple[str, str]] = set()
        self._all_read_at = -_ALL_READ_SECONDS

    def read(self) -> FleetReading:
        """Read it, in one round trip; what the fleet has once, and each of several spines, in one of its own.

        Raises:
            redis.RedisError: If the only Redis does not answer, or that of what the fleet has once.
        """
        is_all = self._shown.is_everything or time.monotonic() - self._all_read_at >= _ALL_READ_SECONDS
        active = None if is_all else frozenset(self._active)
        books, accounts = today_steps(self._settings, process_calendar())[0], self._limits.steps(of=active)
        of_fleet: list[Step[Any]] = [
            command_step(_cache_size, "HMGET", key(CACHE_SIZE), "entries", "bytes"),
            command_step(read_ends, *ends_command()),
            books,
            *accounts,
            *(breaker.read() for breaker in self.breakers.values()),
        ]
        if self._settings.is_money_apart:
            found = run_together(self._client, of_fleet)
            parts = [self._read_tolerantly(reader, active) for reader in self._readers]
        else:
            (reader,) = self._readers
            of_spine = self._steps(reader, active)
            both = run_together(self._client, (*of_spine, *of_fleet))
            parts, found = [_of_spine(both[: len(of_spine)])], both[len(of_spine) :]
        if is_all:
            self._all_read_at = time.monotonic()
        cache_size, batch_ends, costs, *further = found
        answered = [part for part in parts if part is not None]
        whole = answered if len(answered) == len(parts) else []
        reading = FleetReading(
            backlogs=add_up_backlogs([part.backlogs for part in whole]),
            dead=sum(part.dead for part in whole) if whole else None,
            statistics=add_up([part.statistics for part in whole]),
            cache_size=cache_size,
            costs=costs + [line for part in whole for line in part.savings],
            accounts=read_accounts(further[: len(accounts)]),
            batch_ends=batch_ends,
            lanes=add_up_lanes([part.lanes for part in whole]),
            spines={
                reader.spine.name: part is not None
                for reader, part in zip(self._readers, parts, strict=True)
                if reader.spine
            },
        )
        self._note_active(reading)
        return reading

    def _reader(self, spine: Spine | None, queues: list[str]) -> _SpineReader:
        client = connect(spine.url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) if spine else self._jobs_client()
        return _SpineReader(spine, client, Backlog(client, queues), LaneReader(client))

    def _jobs_client(self) -> redis.Redis:
        if not self._settings.is_money_apart:
            return self._client
        return connect(self._settings.jobs_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)

    def _steps(self, reader: _SpineReader, active: frozenset[tuple[str, str]] | None) -> list[Step[Any]]:
        return [
            reader.backlog.read(),
            command_step(int, "ZCARD", key(DEAD)),
            today_steps(self._settings, process_calendar())[1],
            reader.lanes.read(),
            *statistics_steps(self._settings, active),
        ]

    def _read_tolerantly(self, reader: _SpineReader, active: frozenset[tuple[str, str]] | None) -> _OfSpine | None:
        """Return what a spine counts; None where it does not answer, which holds up no other."""
        if reader.spine is None:
            return _of_spine(run_together(reader.client, self._steps(reader, active)))
        try:
            with reader.spine.runtime.active():
                return _of_spine(run_together(reader.client, self._steps(reader, active)))
        except redis.RedisError as error:
            logger.warning(Event("spine_not_read", spine=reader.spine.name, error=type(error).__name__))
            return None

    def _note_active(self, reading: FleetReading) -> None:
        """Add variants with jobs, counts or costs to those read each time."""
        self._active |= {(costs.program, costs.variant) for costs in reading.costs}
        self._active |= {(one.program, one.variant) for one in reading.statistics if one.calls or one.failures}
        for backlog in reading.backlogs:
            if backlog.unfinished:
                program, _, variant = backlog.queue.partition(".")
                self._active.add((program, variant))


class FleetCollector(Collector):
    """Collector of metrics from ``Fleet``.

    Attributes:
        failures: Number of times that Redis did not answer.
    """

    def __init__(self, settings: Settings, fleet: Fleet) -> None:
        """Take the configuration, which names each variant's model, and the reader of the fleet."""
        self.failures = 0
        self._fleet = fleet
        self._models = {
            (program.name, variant.name): variant.model.name
            for program in settings.programs.values()
            for variant in program.variants.values()
        }
        self._programs = list(settings.programs)
        self._lanes = [model.name for model in settings.models.values() if model.batch_protocol is not None]
        self._shown = Shown(max(len(self._models), len(self._lanes)))
        self._lock = threading.Lock()
        self._latest: tuple[float, FleetReading | None] = (0.0, None)
        self._highest: dict[tuple[str, str], float] = {}

    def describe(self) -> Iterable[Metric]:
        """Describe no metric in advance, so that registering does not read Redis."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the fleet's metrics, without those that cannot be read."""
        reading = self._read()
        yield GaugeMetricFamily(
            "dspy_redis_up", "Whether Redis answered, and the fleet's metrics are here.", float(reading is not None)
        )
        if reading is None:
            return
        if reading.spines:
            yield _spines(reading.spines)
        yield from self._breakers()
        if reading.dead is not None:
            yield from _backlog([one for one in reading.backlogs if self._shows_backlog(one)])
            yield GaugeMetricFamily("dspy_dead_jobs", "Jobs that were set aside.", reading.dead)
        yield from _budgets([one for one in reading.accounts if self._shows_account(one)])
        if reading.dead is not None:
            yield from self._variants(reading.statistics)
            yield from self._cache(reading)
            lanes = {name: LaneFigures() for name in self._lanes} | reading.lanes
            yield from lane_metrics({name: of for name, of in lanes.items() if self._shows_lane(name, of)})
        yield batch_ends(reading.batch_ends, self._programs if self._shown.is_everything else ())

    def _read(self) -> FleetReading | None:
        """Read the fleet, or reuse what another scrape has read since this one began."""
        began_at = time.monotonic()
        with self._lock:
            asked_at, reading = self._latest
            if asked_at >= began_at:
                return reading
            asked_at, reading = time.monotonic(), None
            try:
                reading = self._fleet.read()
            except redis.RedisError as error:
                self.failures += 1
                logger.warning(Event("fleet_metrics_not_read", error=f"{type(error).__name__}: {error}"))
            except Exception as error:  # noqa: BLE001 - the process's own metrics must still be shown
                self.failures += 1
                tolerate("snapshot", error, is_fault=True)
            self._latest = asked_at, reading
            return reading

    def _shows_backlog(self, backlog: QueueBacklog) -> bool:
        return self._shown.shows(("backlog", backlog.queue), backlog.unfinished, backlog.queue == OTHER_QUEUES)

    def _shows_account(self, account: Account) -> bool:
        return self._shown.shows(("account", account.scope, account.period), account.is_limited, account.is_used)

    def _shows_lane(self, model: str, lane: LaneFigures) -> bool:
        return self._shown.shows(("lane", model), lane != LaneFigures())

    def _breakers(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "dspy_circuit_breaker_open", "0 closed, 0.5 half-open, 1 open, for all workers.", labels=["model"]
        )
        for model, breaker in self._fleet.breakers.items():
            family.add_metric([model], _BREAKER_VALUES[breaker.state.name])
        yield family

    def _variants(self, statistics: list[VariantStatistics]) -> Iterable[Metric]:
        outcomes = CounterMetricFamily(
            "dspy_variant_answers", "Calls that ended, answered from wherever or failed.", labels=["variant", "outcome"]
        )
        costs: dict[str, float] = {}
        for variant in statistics:
            queue = f"{variant.program}.{variant.variant}"
            if not self._shown.shows(("variant", queue), variant.successes, variant.failures, variant.cost_usd):
                continue
            costs[queue] = variant.cost_usd
            for outcome, number in (("success", variant.successes), ("failure", variant.failures)):
                outcomes.add_metric([queue, outcome], self._rising((outcome, queue), number))
        yield outcomes
        yield self._counter("dspy_variant_cost_usd", "What runs cost, as far as is known.", "variant", costs)

    def _cache(self, reading: FleetReading) -> Iterable[Metric]:
        levels = Counter[str]()
        misses = Counter[str]()
        for variant in reading.statistics:
            levels.update({"memory": variant.hits_memory, "redis": variant.hits_redis, "joined": variant.joined})
            misses[self._models[variant.program, variant.variant]] += variant.misses
        avoided = Counter[str]()
        for costs in reading.costs:
            if (costs.program, costs.variant) in self._models:
                avoided[f"{costs.program}.{costs.variant}"] += costs.avoided_nano_usd
        yield self._counter("dspy_cache_hits", "Calls that were answered without a run of their own.", "level", levels)
        yield self._counter("dspy_cache_misses", "Calls that began a run.", "model", misses)
        saved = {queue: to_usd(nano_usd) for queue, nano_usd in avoided.items()}
        yield self._counter("dspy_cost_avoided_usd", "What the cache saved; from nothing each day.", "variant", saved)
        if reading.cache_size is not None:
            entries, size_bytes = reading.cache_size
            yield GaugeMetricFamily("dspy_cache_entries", "Answers that Redis serves.", entries)
            yield GaugeMetricFamily("dspy_cache_size_bytes", "Bytes of the answers that Redis serves.", size_bytes)

    def _counter(self, name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=[label])
        for value, amount in values.items():
            family.add_metric([value], self._rising((name, value), amount))
        return family

    def _rising(self, series: tuple[str, str], amount: float) -> float:
        """Hide a small decrease, as of a hit whose answer was gone: Prometheus would take it for a reset."""
        highest = self._highest.get(series, 0.0)
        if highest / 2 <= amount < highest:
            return highest
        self._highest[series] = amount
        return amount


def _of_spine(results: list[Any]) -> _OfSpine:
    backlogs, dead, savings, lanes, *statistics = results
    return _OfSpine(backlogs, dead, savings, lanes, statistics)


def _spines(spines: Mapping[str, bool]) -> Metric:
    family = GaugeMetricFamily("dspy_spine_up", "Whether a spine's Redis answered.", labels=["spine"])
    for name, is_up in spines.items():
        family.add_metric([name], float(is_up))
    return family


def _backlog(backlogs: list[QueueBacklog]) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("dspy_queue_jobs", "Unfinished jobs, wherever they stand.", labels=["queue", "state"])
    waiting = GaugeMetricFamily(
        "dspy_queue_waiting_jobs", "Jobs that wait for their turn, 0 the most urgent.", labels=["queue", "priority"]
    )
    ages = GaugeMetricFamily(
        "dspy_queue_oldest_job_age_seconds", "Since the oldest waiting job was published.", labels=["queue"]
    )
    for backlog in backlogs:
        counts = {"waiting": backlog.waiting_count, "delayed": backlog.delayed, "leased": backlog.leased}
        for state, number in counts.items():
            jobs.add_metric([backlog.queue, state], number)
        for priority, number in backlog.waiting.items():
            waiting.add_metric([backlog.queue, str(priority)], number)
        ages.add_metric([backlog.queue], backlog.oldest_age_seconds)
    return jobs, waiting, ages


def _budgets(accounts: list[Account]) -> Iterable[Metric]:
    labels = ["scope", "period"]
    limits = GaugeMetricFamily("dspy_budget_limit_usd", "Limits; only where there is one.", labels=labels)
    spent = GaugeMetricFamily("dspy_budget_spent_usd", "What calls of this day or month cost.", labels=labels)
    held = GaugeMetricFamily("dspy_budget_held_usd", "What calls under way may cost at most.", labels=labels)
    for account in accounts:
        values = [account.scope, account.period]
        if account.limit_nano_usd is not None:
            limits.add_metric(values, to_usd(account.limit_nano_usd))
        spent.add_metric(values, to_usd(account.settled_nano_usd))
        held.add_metric(values, to_usd(account.held_nano_usd))
    return limits, spent, held


def _cache_size(reply: list[Any]) -> tuple[int, int] | None:
    entries, size_bytes = reply
    return None if entries is None else (int(read_number(entries)), int(read_number(size_bytes)))
