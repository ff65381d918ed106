"""Arms of experiments that were killed. The scripts that let a model call go read the same set."""

from __future__ import annotations

from typing import cast

import redis

from dspyq.errors import VariantKilled
from dspyq.store.keys import killed_arms_key


class KilledArms:
    """The killed arms of all programs, by the names of their queues.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __contains__(self, queue: str) -> bool:
        """Return True if the arm of this queue is killed. One round trip.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return bool(self._client.sismember(killed_arms_key(), queue))

    def queues(self) -> frozenset[str]:
        """Return the queues of all that are killed. One round trip.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return frozenset(queue.decode() for queue in cast("set[bytes]", self._client.smembers(killed_arms_key())))


def killed_error(program: str, variant: str) -> VariantKilled:
    """Return the error of a call of a killed arm."""
    return VariantKilled(
        f"the arm {variant} of the experiment of {program} was killed, so no model call of it begins: ask for another "
        f"variant, or start an experiment with it (dspyq experiment log {program} gives the reason)"
    )
