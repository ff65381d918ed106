"""Secrets that all processes of a deployment share, each made by the first process that needs it."""

from __future__ import annotations

import os
import time
from typing import cast

from blake3 import blake3

from dspyq.errors import RedisUnavailable
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import key

_SECRET_BYTES = 32
_IS_FRESH_SECONDS = 60.0


class FleetSecret:
    """A secret in the Redis of jobs.

    A Redis that was emptied gets it back from the first process that looks again, so that what it signed stays valid;
    where another secret was made meanwhile, all processes have that one within a minute.

    Args:
        name: The name of its key.

    Attributes:
        signing_key: The key that it signs with, as last read; None before the first ``key()``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._own = os.urandom(_SECRET_BYTES)
        self._read_at = float("-inf")
        self.signing_key: bytes | None = None

    def key(self) -> bytes:
        """Return the signing key; read it where it was not read for a minute.

        Raises:
            RedisUnavailable: If Redis does not answer, and never did.
        """
        now = time.monotonic()
        if self.signing_key is not None and now - self._read_at <= _IS_FRESH_SECONDS:
            return self.signing_key
        try:
            self._own = self._read()
        except RedisUnavailable:
            if self.signing_key is None:
                raise
        self._read_at = now
        self.signing_key = blake3(self._own).digest()
        return self.signing_key

    def _read(self) -> bytes:
        client, name = money_client(), key(self._name)
        with redis_errors("read the fleet's secret"):
            client.set(name, self._own, nx=True)
            found = cast("bytes | None", client.get(name))
        return found or self._own
