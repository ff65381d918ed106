"""Counts of requests with each key, sent to Redis together from time to time."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

import redis

from dspyq.config.periods import process_calendar
from dspyq.core.runtime import per_runtime
from dspyq.store.clients import money_client
from dspyq.store.scripts import load_script, run_together

RequestKind = Literal["requests", "refused"]


class KeyUsage:
    """The counts of one process that Redis does not have yet. Any thread may call any method."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, RequestKind]] = Counter()
        self._lock = threading.Lock()

    def note(self, key_id: str, kind: RequestKind) -> None:
        """Count a request with a key."""
        with self._lock:
            self._counts[key_id, kind] += 1

    def send(self) -> None:
        """Have Redis count what came since the last call, on today's day.

        Raises:
            redis.RedisError: If Redis does not answer; the next call sends the counts then.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        client, today = money_client(), process_calendar().now()
        day, month = today.days[0].label, today.months[0].label
        script = load_script(client, "dspyq.api_keys", "use")
        steps = [
            script.step(
                int,
                id=key_id,
                day=day,
                month=month,
                requests=counts[key_id, "requests"],
                refused=counts[key_id, "refused"],
            )
            for key_id in sorted({each for each, _ in counts})
        ]
        try:
            run_together(client, steps)
        except redis.RedisError:
            with self._lock:
                self._counts.update(counts)
            raise


@per_runtime
def process_key_usage() -> KeyUsage:
    """Return this process's counts."""
    return KeyUsage()
