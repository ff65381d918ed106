"""Parts of a simulated fleet: spines with their queues, the Redis of money, workers, and questions on their way."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from benchmarks.simulation.clock import Clock, Station
from benchmarks.simulation.costs import Costs
from dspyq.delivery.beat import SWEEP_INTERVAL_SECONDS
from dspyq.delivery.leases import RENEWALS_PER_LEASE

#: Pieces of a prediction's work in the interpreter: before the hold, before the call, before the settlement and before
#: the answer. Between pieces it waits for a reply, and another thread has the interpreter.
_PIECES = (3, 3, 2, 2)
_HOLD, _CALL, _SETTLE, _ANSWER = range(4)
_SHORTEST_BEAT = 0.8


@dataclass(eq=False)
class Question:
    """A new question.

    Attributes:
        spine: Where it belongs.
        asked_at: When it was asked.
        model_seconds: What its model call takes.
        answered_at: When its answer was in Redis; None before.
        calls: Model calls that were made for it.
        taken_again_at: When a worker took it after another died; None where none did.
    """

    spine: Spine
    asked_at: float
    model_seconds: float
    answered_at: float | None = None
    calls: int = 0
    taken_again_at: float | None = None


class Spine:
    """A Redis with its part of the questions.

    Attributes:
        station: Its core.
        waiting: Questions that wait for a worker.
        hungry: Workers that wait for a bell here, the longest first.
        workers: All that serve it.
    """

    def __init__(self, clock: Clock) -> None:
        self.station = Station(clock)
        self.waiting = deque[Question]()
        self.hungry = deque[Worker]()
        self.workers = list[Worker]()

    def put(self, question: Question, *, is_first: bool = False) -> None:
        """Queue a question and ring."""
        if is_first:
            self.waiting.appendleft(question)
        else:
            self.waiting.append(question)
        while self.hungry and self.waiting:
            worker = self.hungry.popleft()
            worker.waits_at.discard(self)
            if worker.has_room:
                worker.take(self)


@dataclass
class Seen:
    """Record of a run.

    Attributes:
        first_call_at: When the first model call began.
        last_answer_at: When the last answer was stored.
        in_flight: Model calls under way, and the most there were.
        most_in_flight: The most at once.
        answered: Questions with an answer.
    """

    first_call_at: float | None = None
    last_answer_at: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    answered: int = 0


@dataclass(frozen=True)
class World:
    """Everything that the parts share.

    Attributes:
        clock: The clock.
        costs: The measured costs, each of so many predictions as a question stands for.
        money: The core of the Redis of money.
        random: All chance.
        seen: The record.
        lease_seconds: The length of a lease.
    """

    clock: Clock
    costs: Costs
    money: Station
    random: random.Random
    lease_seconds: float
    seen: Seen = field(default_factory=Seen)


class Worker:
    """A worker: threads, one interpreter, and the spines that it serves.

    Args:
        world: Its world.
        spines: Those it serves.
        threads: Predictions at once.

    Attributes:
        core: Its interpreter.
        running: Its questions.
        waits_at: The spines where it waits for a bell.
        is_dead: Whether it was killed.
    """

    def __init__(self, world: World, spines: list[Spine], threads: int) -> None:
        self.core = Station(world.clock)
        self.running = dict[Question, float]()
        self.waits_at = set[Spine]()
        self.is_dead = False
        self._world, self._spines, self._threads = world, spines, threads
        for spine in spines:
            spine.workers.append(self)

    @property
    def has_room(self) -> bool:
        """True if it can take a question."""
        return not self.is_dead and len(self.running) < self._threads

    def look(self) -> None:
        """Take what waits, and wait for bells of all its spines while there is room."""
        for spine in self._world.random.sample(self._spines, len(self._spines)):
            while self.has_room and spine.waiting and not spine.station.is_away:
                self.take(spine)
            if self.has_room and spine not in self.waits_at:
                self.waits_at.add(spine)
                spine.hungry.append(self)

    def take(self, spine: Spine) -> None:
        """Take the first question of a spine and begin to answer it."""
        question = spine.waiting.popleft()
        self.running[question] = self._world.clock.now
        if question.calls:
            question.taken_again_at = self._world.clock.now
        _Run(self._world, self, question).begin()
        if self.has_room and spine not in self.waits_at:
            self.waits_at.add(spine)
            spine.hungry.append(self)

    def end(self, question: Question) -> None:
        """Give up the thread of an answered question."""
        self.running.pop(question, None)
        self.look()

    def kill(self) -> None:
        """Die: the questions come back when their leases have run out and somebody sweeps."""
        self.is_dead = True
        world = self._world
        beat = min(SWEEP_INTERVAL_SECONDS, world.lease_seconds / RENEWALS_PER_LEASE)
        for question, taken_at in self.running.items():
            # The latest renewal was no longer ago than a third of a lease and the beat that found it due.
            renewed_ago = world.random.uniform(0, world.lease_seconds / RENEWALS_PER_LEASE + beat)
            renewed_ago = min(renewed_ago, world.clock.now - taken_at)
            sweepers = sum(not each.is_dead for each in question.spine.workers)
            until_sweep = min(
                (world.random.uniform(0, beat * world.random.uniform(_SHORTEST_BEAT, 1)) for _ in range(sweepers)),
                default=beat,
            )
            world.clock.after(
                world.lease_seconds - renewed_ago + until_sweep,
                lambda question=question: question.spine.put(question, is_first=True),
            )
        self.running.clear()


class _Run:
    """One run of a question in a worker, from the take to the answer."""

    __slots__ = ("_left", "_phase", "_question", "_worker", "_world")

    def __init__(self, world: World, worker: Worker, question: Question) -> None:
        self._world, self._worker, self._question = world, worker, question
        self._phase = 0
        self._left = _PIECES[0]

    def begin(self) -> None:
        self._question.spine.station.work(self._world.costs.take_seconds, self._travel)

    def _travel(self) -> None:
        """Go to the next piece of work, a round trip later."""
        self._world.clock.after(self._world.costs.travel_seconds / len(_PIECES), self._work)

    def _work(self) -> None:
        if self._worker.is_dead:
            return
        if self._left:
            self._left -= 1
            self._worker.core.work(self._world.costs.worker_seconds / sum(_PIECES), self._work)
            return
        self._go_out()
        self._phase += 1
        if self._phase < len(_PIECES):
            self._left = _PIECES[self._phase]

    def _go_out(self) -> None:
        world, question = self._world, self._question
        if self._phase in {_HOLD, _SETTLE}:
            world.money.work(world.costs.money_seconds / 2, self._travel)
        elif self._phase == _CALL:
            question.calls += 1
            seen = world.seen
            seen.in_flight += 1
            seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)
            if seen.first_call_at is None:
                seen.first_call_at = world.clock.now
            world.clock.after(question.model_seconds, self._replied)
        else:
            question.spine.station.work(world.costs.answer_seconds, self._answered)

    def _replied(self) -> None:
        self._world.seen.in_flight -= 1
        self._travel()

    def _answered(self) -> None:
        if self._worker.is_dead:
            return
        seen = self._world.seen
        seen.answered += self._question.answered_at is None
        self._question.answered_at = seen.last_answer_at = self._world.clock.now
        self._worker.end(self._question)
