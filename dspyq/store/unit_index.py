"""Index of the questions that a unit has asked, for forgetting it: opt-in, by keyed hashes of units.

A set for each unit holds the hash of each question and the task that was to answer it. It ends after the longest time
that an answer is kept, counted from the unit's latest question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, cast

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.store.clients import money_client
from dspyq.store.keys import key
from dspyq.store.seal_keys import hash_of, process_question_keys

_HASH_BYTES = 16


class _OfUnit(Protocol):
    """The part of a request that the index needs."""

    @property
    def unit(self) -> str | None: ...
    @property
    def input_hash(self) -> str: ...


@per_runtime(is_kept=True)
def are_units_indexed() -> bool:
    """Return True if the configuration states that units are indexed."""
    return get_settings().encryption.index_units


def note_units(asked: Iterable[tuple[_OfUnit, str]]) -> None:
    """Note questions under their units, in one round trip; before they are asked, so that none is missing.

    Args:
        asked: The questions, each with the task that would answer it; those without a unit are passed over.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    named = [(request.unit, request.input_hash, task_id) for request, task_id in asked if request.unit is not None]
    if not named or not are_units_indexed():
        return
    pipeline, seconds = money_client().pipeline(transaction=False), _seconds_kept()
    for unit, input_hash, task_id in named:
        pipeline.sadd(_name(unit), f"{input_hash} {task_id}")
        pipeline.expire(_name(unit), seconds)
    pipeline.execute()


def read_unit(unit: str) -> Iterator[tuple[str, str]]:
    """Yield the hash of each question of a unit, with the task that was to answer it.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    for member in cast("Iterable[bytes]", money_client().sscan_iter(_name(unit), count=1000)):
        input_hash, _, task_id = member.decode().partition(" ")
        yield input_hash, task_id


def drop_unit(unit: str) -> None:
    """Delete what the index holds of a unit.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    money_client().unlink(_name(unit))


def _name(unit: str) -> str:
    stated = b"unit\0" + unit.encode("utf-8", "surrogatepass")
    return key("unit-tasks:") + hash_of(stated, process_question_keys().common).hexdigest(length=_HASH_BYTES)


@per_runtime(is_kept=True)
def _seconds_kept() -> int:
    settings = get_settings()
    longest = max((program.cache_ttl_seconds for program in settings.programs.values()), default=0)
    return longest + settings.cache.result_ttl_seconds
