"""Calls in lanes of a tenant, or from before a day: they end with their jobs, and are stated as not reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import orjson

from dspyq.retention.removal import Removal, pages
from dspyq.store.clients import jobs_client
from dspyq.store.keys import lane_key, lanes_key

_WAITING = (
    "calls in lanes: {number:,}, of which {shipped:,} left for the provider or are about to; they end with their jobs"
)
_SALVAGED = "replies that were salvaged from a provider: they state no tenant, and end by themselves within a day"


def state_lanes(is_wanted: Callable[[dict[str, Any]], bool], removal: Removal) -> None:
    """State how many calls in lanes are wanted, and salvaged replies.

    Args:
        is_wanted: Returns True for a line that is counted.
        removal: States them as not reached.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    client = jobs_client()
    number = shipped = 0
    has_salvaged = False
    for model in sorted(each.decode() for each in cast("set[bytes]", client.smembers(lanes_key()))):
        for lines in pages(client.hscan_iter(lane_key(model, "lines"), count=500)):
            own = [custom_id for custom_id, text in lines if is_wanted(orjson.loads(text))]
            pipeline = client.pipeline(transaction=False)
            for custom_id in own:
                pipeline.zscore(lane_key(model, "open"), custom_id)
            number += len(own)
            shipped += sum(score is None for score in pipeline.execute())
    for _ in client.scan_iter(lane_key("*", "salvaged"), count=1000):
        has_salvaged = True
    if number:
        removal.not_reached.append(_WAITING.format(number=number, shipped=shipped))
    if has_salvaged:
        removal.not_reached.append(_SALVAGED)
