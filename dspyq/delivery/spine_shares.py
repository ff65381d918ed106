"""The share of the spines that a worker serves: some of many, so that each Redis has the connections of some workers.

Workers announce their spines in the Redis of what the fleet has once. A worker chooses at its start those that the
fewest others serve. One that is left without a living worker is adopted by the first that notices.
"""

from __future__ import annotations

import logging
import random
import threading
import uuid
from typing import cast

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.runtime import bound, per_runtime
from dspyq.core.tolerated import survived
from dspyq.delivery.served_spines import process_served_spines
from dspyq.store.clients import money_client
from dspyq.store.keys import key
from dspyq.store.scripts import load_script
from dspyq.store.spines import Spine, process_spines

logger = logging.getLogger("dspyq.spines")

#: A worker that dies leaves its spines to others after so long.
LEASE_SECONDS = 9.0
_RENEWALS_PER_LEASE = 3


class SpineShare:
    """A worker's share of the spines.

    Args:
        client: The Redis of money.
        spines: All spines.
        wanted: How many it serves, unless others are left without a worker.
    """

    def __init__(self, client: redis.Redis, spines: tuple[Spine, ...], wanted: int) -> None:
        self._script = load_script(client, "dspyq.delivery", "share_spines")
        self._spines = {spine.name: spine for spine in spines}
        self._order = random.sample(list(self._spines), len(self._spines))  # else all workers begin with the same
        self._wanted = wanted
        self._worker = uuid.uuid4().hex
        self._stopping = threading.Event()

    def choose(self) -> frozenset[int]:
        """Return the numbers of the spines to serve, announced for as long as it is renewed.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return frozenset(self._spines[name].number for name in self._ask(self._wanted))

    def renew(self) -> None:
        """Renew the announcement, and serve the spines that no worker serves.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        served = process_served_spines()
        for name in sorted(set(self._ask(self._wanted)) - set(served.names)):
            logger.warning(Event("spine_adopted", spine=name, reason="no living worker served it"))
            served.add(self._spines[name])

    def release(self) -> None:
        """Leave its spines to others.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        self._ask(0)

    def start(self) -> None:
        """Start the thread that renews."""
        threading.Thread(target=bound(self._run), name="dspyq-spine-share", daemon=True).start()

    def stop(self) -> None:
        """Stop it, and leave the spines to others at once."""
        self._stopping.set()
        with survived("spine_away"):
            self.release()

    def _ask(self, wanted: int) -> list[str]:
        keys = (key("spines-served"), key("spines-left"))
        arguments = {"worker": self._worker, "lease_seconds": LEASE_SECONDS, "spines": self._order}
        names = cast("list[bytes]", self._script(keys, wanted=wanted, **arguments))
        return [name.decode() for name in names]

    def _run(self) -> None:
        while not self._stopping.wait(LEASE_SECONDS / _RENEWALS_PER_LEASE):
            with survived("spine_away"):
                try:
                    self.renew()
                except redis.RedisError as error:
                    logger.warning(Event("spines_not_announced", error=type(error).__name__))


@per_runtime
def process_spine_share() -> SpineShare | None:
    """Return this worker's share; None where it serves all spines."""
    spines, wanted = process_spines(), get_settings().workers.spines
    if spines is None or wanted is None or wanted >= len(spines.all):
        return None
    return SpineShare(money_client(), spines.all, wanted)
