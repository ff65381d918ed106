"""Celery's result backend in Redis, over all spines: each key at the spine of its task or group."""

from __future__ import annotations

import functools
import re
from typing import Any

from celery.backends.redis import RedisBackend
from kombu.utils.encoding import str_to_bytes

from dspyq.cache.moves import find_runs
from dspyq.config.settings import get_settings
from dspyq.core.redis_address import parse_address
from dspyq.core.runtime import Runtime, in_own_runtime
from dspyq.store.clients import answers_client, close_idle
from dspyq.store.spines import by_spine, jobs_url, on_group, on_spine, process_spines

SLOT_TAG = re.compile(rb"^\{[^}]*\}")


class SpreadBackend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Stores what Celery stores, each key where its task or group is."""

    @property
    def runtime(self) -> Runtime:
        """The runtime of its application."""
        runtime: Runtime = self.app.runtime
        return runtime

    @property
    def client(self) -> Any:
        """The Redis of results: that of the active spine, where there are several."""
        return answers_client() if self._is_spread else self._own_client

    @functools.cached_property
    def _is_spread(self) -> bool:
        return process_spines() is not None or bool(parse_address(get_settings().answers_url).spines)

    @functools.cached_property
    def _own_client(self) -> Any:
        return self._create_client(**self.connparams)

    def close_idle(self) -> None:
        """Close the connections of its own client; those of spines end with their spines."""
        if (client := self.__dict__.pop("_own_client", None)) is not None:
            close_idle(client)

    @in_own_runtime
    def _get_key_for(self, prefix: Any, id: Any, key: Any = "") -> bytes:  # noqa: A002 - Celery's name
        """Return the key of a task or a group, in the slot of its spine where the Redis is a cluster."""
        plain: bytes = super()._get_key_for(prefix, id, key)
        if not self._is_spread:
            return plain
        with on_spine(str(id)):
            return parse_address(jobs_url()).tag.encode() + plain

    def _strip_prefix(self, key: Any) -> str:
        """Return the id in a key."""
        return str(super()._strip_prefix(SLOT_TAG.sub(b"", str_to_bytes(key))))

    @in_own_runtime
    def get(self, key: Any) -> Any:
        """Return what is stored under a key."""
        task_id = self._strip_prefix(key)
        find_runs([task_id])
        with on_spine(task_id):
            return super().get(key)

    @in_own_runtime
    def mget(self, keys: Any) -> Any:
        """Return what is stored under keys."""
        found: dict[int, Any] = {}
        task_ids = [self._strip_prefix(key) for key in keys]
        find_runs(task_ids)
        for places, own in by_spine(keys, task_ids):
            found |= zip(places, super().mget(own), strict=True)
        return [found[place] for place in range(len(found))]

    @in_own_runtime
    def delete(self, key: Any) -> None:
        """Delete what is stored under a key."""
        with on_spine(self._strip_prefix(key)):
            super().delete(key)

    @in_own_runtime
    def expire(self, key: Any, value: Any) -> Any:
        """Have what is stored under a key expire."""
        with on_spine(self._strip_prefix(key)):
            return super().expire(key, value)

    @in_own_runtime
    def apply_chord(self, header_result_args: Any, body: Any, **options: Any) -> None:
        """Keep the form of a chord's results, where it has groups within."""
        with on_group(header_result_args[0]):
            super().apply_chord(header_result_args, body, **options)

    @in_own_runtime
    def add_to_chord(self, group_id: str, result: Any) -> None:
        """Count one more task of a chord."""
        with on_group(group_id):
            super().add_to_chord(group_id, result)

    @in_own_runtime
    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Keep how many tasks a chord has."""
        with on_group(group_id):
            super().set_chord_size(group_id, chord_size)
