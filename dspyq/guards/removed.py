"""Guards' state of models, programs and variants that are no longer configured."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import redis

from dspyq.config.settings import Settings
from dspyq.core.tolerated import read_text
from dspyq.guards.limits import LIMITS, configured_scopes
from dspyq.store.keys import key


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Guards' state that nothing in the configuration uses.

    Attributes:
        models: Names of removed models, each with the keys of its breaker and its rate limit.
        limits: Scopes of removed programs and variants, each with the fields of the limits that an operator has set.
    """

    models: dict[str, list[bytes]]
    limits: dict[str, list[bytes]]

    def of(self, name: str) -> Leftovers:
        """Return the state of one model, program or ``<program>.<variant>``; a program's with its variants'."""
        models = {model: keys for model, keys in self.models.items() if model == name}
        limits = {scope: fields for scope, fields in self.limits.items() if f"{_name(scope)}.".startswith(f"{name}.")}
        return Leftovers(models, limits)


def find_leftovers(client: redis.Redis, settings: Settings) -> Leftovers:
    """Return the state of models, programs and variants that are not in the settings.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    models: defaultdict[str, list[bytes]] = defaultdict(list)
    for prefix in (key("breaker:"), key("rate:")):
        for found in client.scan_iter(f"{prefix}*", count=1000):
            model = read_text(found).removeprefix(prefix).partition(":")[0]  # a batch's rate has the batch behind it
            if model not in settings.models:
                models[model].append(found)
    limits: defaultdict[str, list[bytes]] = defaultdict(list)
    scopes = configured_scopes(settings)
    for field in cast("list[bytes]", client.hkeys(key(LIMITS))):
        scope = read_text(field).rpartition(" ")[0]
        if scope not in scopes and not scope.startswith("tenant:"):  # those are in no configuration
            limits[scope].append(field)
    return Leftovers(dict(sorted(models.items())), dict(sorted(limits.items())))


def forget(client: redis.Redis, leftovers: Leftovers) -> None:
    """Delete it, in one transaction.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    pipeline = client.pipeline()
    for keys in leftovers.models.values():
        pipeline.delete(*keys)
    for fields in leftovers.limits.values():
        pipeline.hdel(key(LIMITS), *fields)
    pipeline.execute()


def _name(scope: str) -> str:
    return scope.partition(":")[2]
