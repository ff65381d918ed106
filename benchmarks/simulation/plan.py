"""A fleet for so many new predictions a second: its size, its load, what it costs, and what breaks first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.simulation.costs import Costs

#: The load of a core that a plan allows: above it the waits grow, and there is no room for an outage of others.
MOST_LOAD = 0.6
#: Of a worker's interpreter, and of its threads.
_WORKER_LOAD, _THREADS_IN_USE = 0.7, 0.9
MOST_CLIENTS = 10_000
#: Connections of a process that asks, to each spine: one to ask by, one to listen by, one in reserve.
_LISTENER_CONNECTIONS = 3
#: New questions a second of each process that asks.
_PER_LISTENER = 50.0
#: Assumed prices, in dollars.
VCPU_HOUR_USD, GIGABYTE_HOUR_USD = 0.04, 0.005
_GIGABYTE = 1e9
_LARGE_BYTES = 64 * _GIGABYTE
_MARK_SECONDS = 900
_HOUR = 3_600
_MILLION = 1e6


@dataclass(frozen=True)
class Assumptions:
    """Choices of an operator.

    Attributes:
        model_seconds: What a model call takes.
        threads: Of each worker.
        served: The spines that each worker serves; 0 for all.
        kept_seconds: How long answers are kept in Redis.
    """

    model_seconds: float = 1.0
    threads: int = 200
    served: int = 2
    kept_seconds: float = _HOUR


@dataclass(frozen=True)
class Plan:
    """A deployment: its spines, one Redis of money, and workers.

    Attributes:
        per_second: New predictions a second.
        spines: Redis servers of questions; money is on the only one.
        workers: Worker processes.
        spine_load: Part of a core that a spine needs.
        money_load: Part of a core that money needs.
        worker_cores: Cores of all workers.
        asking_cores: Cores that asking takes in the processes that ask.
        spine_connections: Connections to each spine.
        money_connections: Connections to the Redis of money.
        answer_gigabytes: Memory of answers, at all spines together.
        worker_gigabytes: Memory of all workers.
    """

    per_second: float
    spines: int
    workers: int
    spine_load: float
    money_load: float
    worker_cores: float
    asking_cores: float
    spine_connections: float
    money_connections: float
    answer_gigabytes: float
    worker_gigabytes: float

    @property
    def listeners(self) -> int:
        """Processes that ask."""
        return listeners(self.per_second)

    @property
    def servers(self) -> int:
        """Redis servers, that of money included where it has its own."""
        return self.spines + (self.spines > 1)

    @property
    def vcpus(self) -> float:
        """Virtual processors to pay for: one for each Redis, and workers at the load that a plan allows."""
        return self.servers + self.worker_cores / _WORKER_LOAD

    @property
    def hour_usd(self) -> float:
        """Price of an hour."""
        memory = self.answer_gigabytes + self.worker_gigabytes
        return self.vcpus * VCPU_HOUR_USD + memory * GIGABYTE_HOUR_USD

    @property
    def million_usd(self) -> float:
        """Price of a million new predictions."""
        return self.hour_usd / (self.per_second * _HOUR) * _MILLION


def plan(per_second: float, costs: Costs, assumed: Assumptions | None = None) -> Plan:
    """Return the smallest deployment for a rate whose spines and workers keep to the loads that a plan allows.

    Its one Redis of money may be overloaded: see ``deployments``.
    """
    chosen = assumed or Assumptions()
    workers = max(1, math.ceil(per_second / worker_per_second(costs, chosen)))
    spines = 1
    while spine_load(per_second, spines, workers, costs, chosen) > MOST_LOAD:
        spines += 1
    return Plan(
        per_second=per_second,
        spines=spines,
        workers=workers,
        spine_load=spine_load(per_second, spines, workers, costs, chosen),
        money_load=money_load(per_second, workers, costs),
        worker_cores=per_second * costs.worker_seconds,
        asking_cores=per_second * costs.ask_seconds,
        spine_connections=connections(spines, workers, listeners(per_second), costs, chosen),
        money_connections=workers * costs.money_connections,
        answer_gigabytes=answer_gigabytes(per_second, costs, chosen.kept_seconds),
        worker_gigabytes=workers * costs.worker_bytes / _GIGABYTE,
    )


def deployments(per_second: float, costs: Costs) -> int:
    """Return over how many deployments a rate must be divided, for the money of each is in one Redis."""
    count = 1
    while plan(per_second / count, costs).money_load > MOST_LOAD:
        count += 1
    return count


def money_load(per_second: float, workers: int, costs: Costs) -> float:
    """Return the part of a core that money needs."""
    return per_second * costs.money_seconds + workers * costs.idle_money_seconds


def listeners(per_second: float) -> int:
    """Return how many processes ask."""
    return max(1, math.ceil(per_second / _PER_LISTENER))


def worker_per_second(costs: Costs, assumed: Assumptions) -> float:
    """Return what one worker answers in a second: by its threads, or by its interpreter."""
    seconds = assumed.model_seconds + costs.alone_seconds
    return min(assumed.threads * _THREADS_IN_USE / seconds, _WORKER_LOAD / costs.worker_seconds)


def spine_load(per_second: float, spines: int, workers: int, costs: Costs, assumed: Assumptions) -> float:
    """Return the part of a core that each spine needs; money is on it where there is only one."""
    seconds = costs.spine_seconds if spines > 1 else costs.redis_seconds
    beats = workers * _share(spines, assumed) * costs.idle_redis_seconds
    return per_second / spines * seconds + beats + listeners(per_second) * costs.listening_seconds


def connections(spines: int, workers: int, processes: int, costs: Costs, assumed: Assumptions) -> float:
    """Return how many connections each spine has; a worker's to each spine as many as to one."""
    of_each = costs.spine_connections if spines > 1 else costs.worker_connections
    of_workers = workers * _share(spines, assumed) * of_each
    return of_workers + processes * _LISTENER_CONNECTIONS


def answer_gigabytes(per_second: float, costs: Costs, kept_seconds: float) -> float:
    """Return the memory of short answers that are kept so long, and of settled calls' marks."""
    return per_second * (kept_seconds * costs.answer_bytes + _MARK_SECONDS * costs.mark_bytes) / _GIGABYTE


def full_at(costs: Costs) -> dict[str, float]:
    """Return, for each part of which a deployment without spines has one, the rate that fills it, the lowest first.

    Each is taken alone; workers are as many as the rate needs.
    """
    assumed = Assumptions()
    each = worker_per_second(costs, assumed)
    rates = {
        "one worker": each,
        "one Redis for all": 1 / costs.redis_seconds,
        "a spine, money elsewhere": 1 / costs.spine_seconds,
        "the Redis of money": 1 / costs.money_seconds,
        "one Redis: 10,000 connections": MOST_CLIENTS / (costs.worker_connections / each + _asking_connections()),
        "the Redis of money: 10,000 connections": MOST_CLIENTS * each / costs.money_connections,
        "one Redis: 64 GB of answers kept an hour": _LARGE_BYTES
        / (_HOUR * costs.answer_bytes + _MARK_SECONDS * costs.mark_bytes),
        "one Redis: beats and sweeps of its workers": each / costs.idle_redis_seconds,
        "one Redis: pings of the processes that listen": _PER_LISTENER / costs.listening_seconds,
    }
    return dict(sorted(rates.items(), key=lambda part: part[1]))


def _share(spines: int, assumed: Assumptions) -> float:
    return min(1.0, (assumed.served or spines) / spines)


def _asking_connections() -> float:
    """Return the connections of producers for each new prediction a second."""
    return _LISTENER_CONNECTIONS / _PER_LISTENER
