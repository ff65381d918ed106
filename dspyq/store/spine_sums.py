"""Sums over the spines of hashes whose fields each of them counts by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from dspyq.store.clients import jobs_client
from dspyq.store.spines import each_spine


def sum_hashes(names: Callable[[], Sequence[str]]) -> list[Counter[bytes]]:
    """Return hashes of whole numbers, each field added up over all spines, in one round trip for each spine.

    Args:
        names: Returns the keys of the hashes on the active spine, as many on each.

    Raises:
        redis.RedisError: If a Redis does not answer.
    """
    read: list[list[dict[bytes, bytes]]] = []
    for _ in each_spine():
        pipeline = jobs_client().pipeline(transaction=False)
        for name in names():
            pipeline.hgetall(name)
        read.append(cast("list[dict[bytes, bytes]]", pipeline.execute()))
    return [_total(parts) for parts in zip(*read, strict=True)]


def _total(parts: Sequence[dict[bytes, bytes]]) -> Counter[bytes]:
    total: Counter[bytes] = Counter()
    for part in parts:
        total.update({field: int(amount) for field, amount in part.items()})
    return total
