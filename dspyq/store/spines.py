"""Spines: the Redis servers over which questions are spread, where ``redis_urls`` names several, or slots of a cluster.

All that one question touches is on one spine: its alias, job, turn, lease, result and statistics. The question's hash
names the spine by its last two digits, its *bucket*; so does the task's id, which ends alike. Rendezvous hashing gives
each bucket to a spine, so that another server takes over only what it now owns. A cluster's spines are slots of it, and
have equal parts of the buckets.

Each spine is a part of the runtime, with clients, claims, leases and waiters of its own. Code that touches keys of a
question runs within ``on_spine(input_hash)`` or ``on_spine(task_id)``; code that reads the whole fleet goes through
``each_spine()``. What the fleet has once, such as budgets, is reached by ``money_client`` from anywhere. With one Redis
there is one spine, which is always active.

Once a server is added or left out, the *moved* buckets have another owner than under ``former_redis_urls``. Their runs
and answers are finished and served where they are, at the former owner, which is asked first; only what it does not
have goes to the owner. Code that runs on the former owner stays there for names of its moved buckets; the owner is
activated by its runtime (``dspyq.cache.moves``). A run found in either place is noted under its id.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar, cast

from dspyq.config.settings import get_settings
from dspyq.core.redis_address import parse_address
from dspyq.core.runtime import Runtime, current, per_runtime

BUCKETS = 256
#: Digits of a bucket, at the end of a hash or an id.
BUCKET_DIGITS = 2
#: Runs of moved buckets that a process keeps the places of; another is looked for once more.
_MOST_NOTED = 100_000
_HERE: AbstractContextManager[None] = nullcontext()
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class NoSpine(RuntimeError):
    """A question's keys were asked for outside of a spine: a fault of ours, found before anything was sent."""


class Spine(NamedTuple):
    """One of several spines.

    Attributes:
        number: Its place among the configured ones.
        url: Its Redis.
        runtime: The part of the runtime that leads there.
    """

    number: int
    url: str
    runtime: Runtime

    @property
    def name(self) -> str:
        """Address without secrets, as people see it."""
        return str(parse_address(self.url))


class Spines:
    """The spines of a configuration.

    Args:
        urls: Their servers. A server keeps its buckets as long as its address is written alike.
        former: Servers before a change of ``redis_urls``; they are among ``urls``.
        drained: How many of the last ``urls`` get no new questions.

    Attributes:
        all: The spines, in the order of the configuration, those that are drained last.
        moved: The former owner of each bucket that has another now.
    """

    def __init__(self, urls: Sequence[str], former: Sequence[str] = (), drained: int = 0) -> None:
        self.all = tuple(Spine(number, url, Runtime(part_of=current())) for number, url in enumerate(urls))
        for spine in self.all:
            spine.runtime.put(current_spine, cast("Spine | None", spine))
        if parse_address(urls[0]).spines:  # whose slots are alike, whatever nodes lead to them
            owners = [bucket * len(urls) // BUCKETS for bucket in range(BUCKETS)]
        else:
            names = [spine.name for spine in self.all[: len(urls) - drained]]
            owners = [owner_of(bucket, names) for bucket in range(BUCKETS)]
        self._owners = tuple(self.all[owner] for owner in owners)
        self.moved = self._find_moved([str(parse_address(url)) for url in former])
        self._lock = threading.Lock()
        self._noted: dict[str, Spine] = {}

    def of(self, name: str) -> Spine:
        """Return the spine of an input hash or of a task's id."""
        bucket = bucket_of(name)
        former = self.moved.get(bucket) if self.moved else None
        if former is None:
            return self._owners[bucket]
        if (noted := self._noted.get(name)) is not None:
            return noted
        return former if former.runtime is current() else self._owners[bucket]

    def owner(self, name: str) -> Spine:
        """Return the spine on which a question is asked anew."""
        return self._owners[bucket_of(name)]

    def former(self, name: str) -> Spine | None:
        """Return the former owner of an input hash or of a task's id; None where it has not moved."""
        return self.moved.get(bucket_of(name)) if self.moved else None

    def places(self, name: str) -> tuple[Spine, ...]:
        """Return the spines that a name leads to: its owner and, where it has moved, its former one."""
        former, owner = self.former(name), self.owner(name)
        return (owner,) if former is None else (former, owner)

    def buckets(self, spine: Spine) -> list[int]:
        """Return the buckets that a spine owns; none of one that is drained."""
        return [bucket for bucket, owner in enumerate(self._owners) if owner is spine]

    def note(self, task_id: str, spine: Spine) -> None:
        """Have a run's id lead to where the run was found, if its bucket has moved."""
        with self._lock:
            self._noted[task_id] = spine
            if len(self._noted) > _MOST_NOTED:
                del self._noted[next(iter(self._noted))]

    def is_noted(self, task_id: str) -> bool:
        """Return True if a run's id leads to where the run was found."""
        return task_id in self._noted

    def _find_moved(self, former: list[str]) -> dict[int, Spine]:
        by_name = {spine.name: spine for spine in self.all}
        owners = [by_name[former[owner_of(bucket, former)]] for bucket in range(BUCKETS)] if former else []
        return {bucket: owner for bucket, owner in enumerate(owners) if owner is not self._owners[bucket]}

    def close(self) -> None:
        """Close what the spines hold open."""
        for spine in self.all:
            spine.runtime.close()


def bucket_of(name: str) -> int:
    """Return the bucket of an input hash or of a task's id; one that users chose is hashed."""
    try:
        return bytes.fromhex(name[-BUCKET_DIGITS:])[0]  # int() would take a sign too
    except (ValueError, IndexError):
        return zlib.crc32(name.encode("utf-8", "surrogatepass")) % BUCKETS


def owner_of(bucket: int, names: Sequence[str]) -> int:
    """Return the place of the name that owns a bucket, by rendezvous hashing (Thaler and Ravishankar, 1998)."""
    return max(range(len(names)), key=lambda place: hashlib.blake2b(f"{names[place]} {bucket}".encode()).digest())


def id_beside(input_hash: str, task_id: str) -> str:
    """Return a task's id as one that leads to the spine of its question; with one Redis, as it is."""
    if process_spines() is None:
        return task_id
    return task_id[:-BUCKET_DIGITS] + input_hash[-BUCKET_DIGITS:]


@per_runtime(close=lambda spines: spines.close())
def process_spines() -> Spines | None:
    """Return the spines of this configuration; None where one Redis holds all questions."""
    settings = get_settings()
    urls, former = settings.spine_urls, settings.former_redis_urls
    if len(urls) == 1:
        return None
    return Spines(urls, former, len(urls) - len(settings.redis_urls) if former else 0)


def number_of_spines() -> int:
    """Return how many spines there are; 1 where one Redis holds all questions."""
    spines = process_spines()
    return 1 if spines is None else len(spines.all)


@per_runtime(is_of_part=True)
def current_spine() -> Spine | None:
    """Return the spine that is active here; None where one Redis holds all questions.

    Raises:
        NoSpine: If there are several and none is active.
    """
    if process_spines() is None:
        return None
    raise NoSpine("several spines, and none is active: wrap this in on_spine(…) or each_spine()")


def on_spine(name: str) -> AbstractContextManager[None]:
    """Have a block use the spine of a question.

    Args:
        name: The question's input hash, or the id of a task.
    """
    spines = process_spines()
    return _HERE if spines is None else spines.of(name).runtime.active()


def places_of(name: str) -> list[AbstractContextManager[None]]:
    """Return blocks, one on each spine that a name leads to: two of them while a list changes and it moves."""
    spines = process_spines()
    return [_HERE] if spines is None else [place.runtime.active() for place in spines.places(name)]


def places_beside(name: str) -> list[AbstractContextManager[None]]:
    """As ``places_of``, without the active spine."""
    spines, here = process_spines(), current()
    places = () if spines is None else spines.places(name)
    return [place.runtime.active() for place in places if place.runtime is not here]


def on_result(task_id: str) -> AbstractContextManager[None]:
    """Have a block use the spine on which to wait for a task's result.

    While a list changes, that of an id that nothing is known of comes to its former owner: workers with the list before
    store it there, and others store it on each spine that the id leads to.
    """
    spines = process_spines()
    if spines is None:
        return _HERE
    return (spines.of(task_id) if spines.is_noted(task_id) else spines.places(task_id)[0]).runtime.active()


def on_group(group_id: str) -> AbstractContextManager[None]:
    """Have a block use the spine of a group or a chord; while a list changes, that of the list before, for all."""
    spines = process_spines()
    return _HERE if spines is None else spines.places(group_id)[0].runtime.active()


def each_spine() -> Iterator[Spine | None]:
    """Yield each spine while it is active, for what concerns the whole fleet; with one Redis, None once.

    The body of the loop runs on that spine. Leave such a loop only by ``return`` or ``raise``, or close it; and use no
    comprehension, whose spine would stay active while an error is handled: ``on_each_spine`` is for expressions.
    """
    spines = process_spines()
    if spines is None:
        yield None
        return
    for spine in spines.all:
        with spine.runtime.active():
            yield spine


def on_each_spine(call: Callable[[], Outcome]) -> list[Outcome]:
    """Make a call while each spine is active, and return what came of it on each; with one Redis, make it once."""
    outcomes = []
    for _ in each_spine():
        outcomes.append(call())  # noqa: PERF401 - a comprehension would keep the spine active after an error
    return outcomes


def by_spine(items: Iterable[Item], names: Iterable[str]) -> Iterator[tuple[list[int], list[Item]]]:
    """Yield the items of each spine, and their places, while it is active.

    Args:
        items: What belongs to questions.
        names: The input hash or the task id of each.
    """
    spines = process_spines()
    ordered = list(items)
    if spines is None:
        if ordered:
            yield list(range(len(ordered))), ordered
        return
    yield from on_each(ordered, [spines.of(name) for name in names])


def on_each(items: Sequence[Item], spines: Sequence[Spine]) -> Iterator[tuple[list[int], list[Item]]]:
    """As ``by_spine``, for items whose spines are known."""
    places: dict[int, list[int]] = {}
    for place, (spine, _) in enumerate(zip(spines, items, strict=True)):
        places.setdefault(spine.number, []).append(place)
    by_number = {spine.number: spine for spine in spines}
    for number, own in places.items():
        with by_number[number].runtime.active():
            yield own, [items[place] for place in own]


def by_owners(items: Iterable[Item], names: Iterable[str]) -> Iterator[list[Item]]:
    """Yield the items of each spine while it is active; those that have moved at their former owner too.

    Args:
        items: What belongs to questions.
        names: The input hash or the task id of each.
    """
    spines, ordered, known = process_spines(), list(items), list(names)
    if spines is None:
        if ordered:
            yield ordered
        return
    both = [(item, spines.owner(name)) for item, name in zip(ordered, known, strict=True)]
    both += [
        (item, former) for item, name in zip(ordered, known, strict=True) if (former := spines.former(name)) is not None
    ]
    for _, own in on_each([item for item, _ in both], [spine for _, spine in both]):
        yield own


def place_of(input_hash: str, task_id: str) -> str:
    """Return the name that leads to a run: its question's hash where known, or its id where its question has moved."""
    spines = process_spines()
    if spines is None or not input_hash or not (spines.former(input_hash) and spines.is_noted(task_id)):
        return input_hash or task_id
    return task_id


def spread(
    items: Sequence[Item], names: Sequence[str], act: Callable[[list[Item], list[int]], Sequence[Outcome]]
) -> list[Outcome]:
    """Act on the items of each spine while it is active, and return what came of each item, in their order.

    Args:
        items: What belongs to questions.
        names: The input hash or the task id of each.
        act: Function of the items of a spine, and of their places among all.
    """
    found: dict[int, Outcome] = {}
    for places, own in by_spine(items, names):
        found |= zip(places, act(own, places), strict=True)
    return [found[place] for place in range(len(items))]


def jobs_url() -> str:
    """Return the URL of the Redis of jobs, claims and statistics: that of the active spine.

    Raises:
        NoSpine: If there are several spines and none is active.
    """
    spine = current_spine()
    return get_settings().jobs_url if spine is None else spine.url


def answers_url() -> str:
    """Return the URL of the Redis of results: that of the active spine.

    Raises:
        NoSpine: If there are several spines and none is active.
    """
    spine = current_spine()
    return get_settings().answers_url if spine is None else spine.url
