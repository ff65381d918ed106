"""Inputs of the simulation: costs that were measured, each with the command that measures it."""

from __future__ import annotations

from dataclasses import dataclass

#: Of the script that asks, takes, remembers and answers, as parts of a spine's time: by the server's log of commands.
_ASK, _TAKE = 0.35, 0.15


@dataclass(frozen=True)
class Costs:
    """Costs of a fleet's parts, on the machine and at the commit at which they were measured.

    ``python -m benchmarks --only unit_costs`` prints all of them but two: ``--only growth`` prints the listeners', and
    ``--only memory`` the memory of a worker.

    Attributes:
        redis_seconds: Redis's processor for a new prediction by ``delay()``, where one has questions and money.
        spine_seconds: That of the questions' Redis, where money has another.
        money_seconds: That of the Redis of money then.
        worker_seconds: A worker's processor for a prediction.
        ask_seconds: A producer's for ``delay()`` and for the reading of its answer.
        alone_seconds: From ``delay()`` to the answer where nothing else runs and the model answers at once.
        answer_bytes: An answer and its alias in Redis, of a short answer.
        mark_bytes: Mark of a settled call, kept for 15 minutes.
        worker_connections: Of a worker of 200 threads, to a Redis of questions and money.
        spine_connections: The same to a Redis of questions, where money has another.
        money_connections: The same to the Redis of money.
        idle_redis_seconds: Processor of a Redis of questions in a second for each idle worker: beats, sweeps, waiting.
        idle_money_seconds: That of the Redis of money.
        listening_seconds: Redis's processor in a second for each process that listens.
        worker_bytes: Memory of a worker of 200 threads.
    """

    redis_seconds: float
    spine_seconds: float
    money_seconds: float
    worker_seconds: float
    ask_seconds: float
    alone_seconds: float
    answer_bytes: float
    mark_bytes: float
    worker_connections: int
    spine_connections: int
    money_connections: int
    idle_redis_seconds: float
    idle_money_seconds: float
    listening_seconds: float
    worker_bytes: float

    @property
    def put_seconds(self) -> float:
        """Of a spine's, for the question's claim and its place in the queue."""
        return self.spine_seconds * _ASK

    @property
    def take_seconds(self) -> float:
        """Of a spine's, for a take."""
        return self.spine_seconds * _TAKE

    @property
    def answer_seconds(self) -> float:
        """Of a spine's, for the answer and what is remembered of its calls."""
        return self.spine_seconds - self.put_seconds - self.take_seconds

    @property
    def travel_seconds(self) -> float:
        """Time of a prediction besides processors and its model: round trips, polls and hand-overs of threads."""
        return max(0.0, self.alone_seconds - self.worker_seconds - self.redis_seconds - self.ask_seconds)
