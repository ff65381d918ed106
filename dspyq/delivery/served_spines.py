"""The spines that a worker serves: where it takes jobs, holds leases, sweeps and runs lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from dspyq.core.runtime import per_runtime
from dspyq.delivery.leases import Leases, process_leases
from dspyq.store.spines import Spine, process_spines

Outcome = TypeVar("Outcome")


class ServedSpines:
    """The spines of a worker. Any thread may read them; they grow where a spine is left without a worker.

    Attributes:
        all: The spines; empty where one Redis holds all questions.
        on_new: Called with a spine that is served from now on, while it is active.
    """

    def __init__(self, served: tuple[Spine, ...]) -> None:
        self.all = served
        self.on_new: list[Callable[[Spine], object]] = []

    def choose(self, numbers: frozenset[int]) -> None:
        """Serve these spines alone; before anything begins to use them."""
        self.all = tuple(spine for spine in self.all if spine.number in numbers)

    def add(self, spine: Spine) -> None:
        """Serve one more."""
        self.all = (*self.all, spine)
        with spine.runtime.active():
            for begin in self.on_new:
                begin(spine)

    def each(self) -> Iterator[Spine | None]:
        """Yield each while it is active; with one Redis, None once."""
        served = self.all
        if not served:
            yield None
        for spine in served:
            with spine.runtime.active():
                yield spine

    def on_each(self, call: Callable[[], Outcome]) -> list[Outcome]:
        """Make a call while each of them is active, and return what came of it."""
        outcomes = []
        for _ in self.each():
            outcomes.append(call())  # noqa: PERF401 - a comprehension would keep the spine active after an error
        return outcomes

    @property
    def names(self) -> list[str]:
        """Their addresses, without secrets; empty with one Redis."""
        return [spine.name for spine in self.all]


class HeldRuns:
    """The runs that this process holds, on all its spines."""

    @property
    def leases(self) -> list[Leases]:
        """The leases of each spine."""
        return process_served_spines().on_each(process_leases)

    @property
    def held_count(self) -> int:
        """Number of runs held by this process."""
        return sum(leases.held_count for leases in self.leases)

    @property
    def deliveries(self) -> dict[tuple[str, bool], int]:
        """Number of jobs taken by this process, by queue and by whether another run had the job before."""
        total: dict[tuple[str, bool], int] = {}
        for leases in self.leases:
            for kind, number in leases.deliveries.items():
                total[kind] = total.get(kind, 0) + number
        return total


@per_runtime
def process_served_spines() -> ServedSpines:
    """Return the spines that this process serves: all, until it has chosen some."""
    spines = process_spines()
    return ServedSpines(() if spines is None else spines.all)


@per_runtime
def process_held_runs() -> HeldRuns:
    """Return the runs that this process holds."""
    return HeldRuns()
