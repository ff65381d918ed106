"""A run of a simulated fleet: what is asked, what goes wrong, and what came of it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.simulation.clock import Clock, Station
from benchmarks.simulation.costs import Costs
from benchmarks.simulation.fleet import Question, Spine, Worker, World

#: How often what a fleet costs without questions is put beside their work.
_BACKGROUND_SECONDS = 0.05
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class SpineAway:
    """An outage of a spine's Redis, which keeps what it had.

    Attributes:
        at: Its second.
        spine: The spine's number.
        seconds: How long.
    """

    at: float
    spine: int
    seconds: float


@dataclass(frozen=True)
class WorkersKilled:
    """Workers that are killed at once and do not come back.

    Attributes:
        at: The second.
        count: How many.
    """

    at: float
    count: int


@dataclass(frozen=True)
class Scenario:
    """A fleet and what happens to it.

    Attributes:
        spines: Redis servers of questions.
        workers: Workers.
        threads: Predictions at once in each.
        served: The spines that each worker serves.
        questions: How many new ones are asked.
        per_second: How many a second, with Poisson's gaps; infinite: all wait at the beginning.
        model_seconds: The mean of a model call.
        model_spread: The standard deviation of its logarithm; 0: each takes as long.
        lease_seconds: The length of a lease.
        has_money_redis: Whether money has a Redis of its own; without one it is on the first spine's.
        listeners: Processes that ask and listen, at every spine.
        weight: Predictions that one simulated question stands for: its costs are so many times theirs, and a worker
            has so many times fewer threads.
        faults: What goes wrong.
        seed: Of all chance.
    """

    spines: int = 1
    workers: int = 1
    threads: int = 200
    served: int = 1
    questions: int = 1_000
    per_second: float = math.inf
    model_seconds: float = 1.0
    model_spread: float = 0.0
    lease_seconds: float = 30.0
    has_money_redis: bool = False
    listeners: int = 1
    weight: int = 1
    faults: tuple[SpineAway | WorkersKilled, ...] = ()
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes:
        questions: All of them.
        spines: The spines.
        money: The core of the Redis of money.
        seconds: From the first model call to the last answer.
        span_seconds: The whole run.
        most_in_flight: Model calls at once, at most.
        weight: As of the scenario.
    """

    questions: tuple[Question, ...]
    spines: tuple[Spine, ...]
    money: Station
    seconds: float
    span_seconds: float
    most_in_flight: int
    weight: int

    @property
    def lost(self) -> int:
        """Simulated questions without an answer."""
        return sum(each.answered_at is None for each in self.questions)

    @property
    def paid_again(self) -> int:
        """Model calls beyond one for each question."""
        return sum(max(0, each.calls - 1) for each in self.questions)

    @property
    def per_second(self) -> float:
        """Answers a second, from the first call to the last answer."""
        return len(self.questions) * self.weight / self.seconds

    def delays(self, *, of_spine: int | None = None) -> list[float]:
        """Return what answers took beyond their model calls, sorted; of one spine's, or of all."""
        spine = None if of_spine is None else self.spines[of_spine]
        return sorted(
            each.answered_at - each.asked_at - each.model_seconds
            for each in self.questions
            if each.answered_at is not None and (spine is None or each.spine is spine)
        )

    def recovery(self, killed_at: float) -> list[float]:
        """Return how long after a kill those answers came that it held back, without their model's time; sorted."""
        return sorted(
            each.answered_at - killed_at - each.model_seconds
            for each in self.questions
            if each.answered_at is not None and each.taken_again_at is not None
        )

    def load(self, station: Station) -> float:
        """Return the part of the run for which a core was busy."""
        return station.busy_seconds / self.span_seconds


def run(scenario: Scenario, costs: Costs) -> Outcome:
    """Simulate until every question is answered, or for ten minutes."""
    clock = Clock()
    spines = [Spine(clock) for _ in range(scenario.spines)]
    money = Station(clock) if scenario.has_money_redis else spines[0].station
    chance = random.Random(scenario.seed)  # noqa: S311 - it is to repeat
    world = World(clock, _weighted(costs, scenario.weight), money, chance, scenario.lease_seconds)
    threads = max(1, scenario.threads // scenario.weight)
    workers = [Worker(world, _served(spines, number, scenario.served), threads) for number in range(scenario.workers)]
    questions = tuple(_questions(scenario, world, spines))
    for each in workers:
        each.look()
    for question in questions:
        clock.at(question.asked_at, partial(_ask, world, question))
    for fault in scenario.faults:
        clock.at(fault.at, partial(_break, fault, spines, workers))
    span = _run_until_answered(scenario, world, spines, questions, costs)
    first = world.seen.first_call_at or 0.0
    return Outcome(
        questions, tuple(spines), world.money, max(world.seen.last_answer_at - first, 1e-9), span,
        world.seen.most_in_flight * scenario.weight, scenario.weight,
    )  # fmt: skip


def _weighted(costs: Costs, weight: int) -> Costs:
    return replace(
        costs,
        redis_seconds=costs.redis_seconds * weight,
        spine_seconds=costs.spine_seconds * weight,
        money_seconds=costs.money_seconds * weight,
        worker_seconds=costs.worker_seconds * weight,
        ask_seconds=costs.ask_seconds * weight,
        # Of one prediction still: what it takes besides processors does not grow with what stands for it.
        alone_seconds=costs.alone_seconds
        + (weight - 1) * (costs.redis_seconds + costs.worker_seconds + costs.ask_seconds),
    )


def _served(spines: list[Spine], number: int, count: int) -> list[Spine]:
    """Return the spines of a worker: neighbours on a ring, so that each spine has as many workers."""
    return [spines[(number * count + place) % len(spines)] for place in range(min(count, len(spines)))]


def _questions(scenario: Scenario, world: World, spines: list[Spine]) -> Iterator[Question]:
    asked_at = 0.0
    for _ in range(scenario.questions // scenario.weight):
        if math.isfinite(scenario.per_second):
            asked_at += world.random.expovariate(scenario.per_second / scenario.weight)
        spread = scenario.model_spread
        model_seconds = scenario.model_seconds * (
            world.random.lognormvariate(-spread * spread / 2, spread) if spread else 1.0
        )
        yield Question(world.random.choice(spines), asked_at, model_seconds)


def _ask(world: World, question: Question) -> None:
    question.spine.station.work(world.costs.put_seconds, partial(question.spine.put, question))


def _break(fault: SpineAway | WorkersKilled, spines: list[Spine], workers: list[Worker]) -> None:
    if isinstance(fault, SpineAway):
        spines[fault.spine].station.go_away(fault.seconds)
        return
    for worker in [each for each in workers if not each.is_dead][: fault.count]:
        worker.kill()


def _run_until_answered(
    scenario: Scenario, world: World, spines: list[Spine], questions: tuple[Question, ...], costs: Costs
) -> float:
    clock = world.clock
    while clock.now < _LONGEST_SECONDS and (world.seen.answered < len(questions)):
        for spine in spines:
            seconds = len(spine.workers) * costs.idle_redis_seconds + scenario.listeners * costs.listening_seconds
            if not spine.station.is_away:
                spine.station.work(seconds * _BACKGROUND_SECONDS, _nothing)
        if scenario.has_money_redis:
            world.money.work(scenario.workers * costs.idle_money_seconds * _BACKGROUND_SECONDS, _nothing)
        clock.run(clock.now + _BACKGROUND_SECONDS)
    return clock.now


def _nothing() -> None:
    """Do nothing: beats, sweeps and pings have no question that waits for them."""
