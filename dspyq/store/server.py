"""Check of a Redis server's suitability, by INFO and a script that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import redis

from dspyq.config.settings import Settings
from dspyq.store.clients import answers_client, jobs_client, money_client
from dspyq.store.cluster import slot_keys
from dspyq.store.keys import key
from dspyq.store.scripts import load_script, run_together
from dspyq.store.spines import each_spine

FindingKind = Literal["version", "cluster", "role", "eviction", "scripts", "unseen", "away"]

_OLDEST = (7, 0)
_SHOWN_CHARACTERS = 160


class Finding(NamedTuple):
    """A problem found with a server.

    Attributes:
        kind: Its kind; ``unseen`` if something could not be checked, which is no fault.
        text: One line that names what to change.
    """

    kind: FindingKind
    text: str

    @property
    def is_fault(self) -> bool:
        """Return True if nothing should start on this server."""
        return self.kind != "unseen"


def look_at_server(client: redis.Redis, setting: str, *, holds_jobs: bool) -> list[Finding]:
    """Check a server, in two round trips.

    Args:
        client: Its client.
        setting: The setting that names it.
        holds_jobs: Whether jobs, claims and money are there; answers alone may be evicted.

    Raises:
        redis.RedisError: If it does not answer.
    """
    try:
        info = client.info()
    except redis.exceptions.NoPermissionError:
        text = f"{setting}: version, role and eviction were not looked at: its user may not run INFO"
        found = [Finding("unseen", text)]
    else:
        found = list(judge(info, setting, holds_jobs=holds_jobs, is_slot=bool(slot_keys(client))))
    if holds_jobs and not any(each.is_fault for each in found):
        found.extend(_try_script(client, setting))
    return found


def look_at_servers(settings: Settings, jobs: redis.Redis, answers: redis.Redis) -> list[Finding]:
    """Check the Redis of jobs and, if it is another one, the Redis of answers.

    Raises:
        redis.RedisError: If one does not answer.
    """
    setting = "broker_url" if settings.broker_url else "redis_url"
    found = look_at_server(jobs, setting, holds_jobs=True)
    if not settings.is_one_redis:
        setting = "result_url" if settings.result_url else "redis_url"
        found += look_at_server(answers, setting, holds_jobs=False)
    return found


def look_at_all_servers(settings: Settings) -> list[Finding]:
    """Check each Redis of the fleet; of several, one that does not answer is a finding that names its setting.

    Raises:
        redis.RedisError: If the only Redis of jobs, or that of answers, does not answer.
    """
    found: list[Finding] = []
    for spine in each_spine():
        if spine is None:
            found += look_at_servers(settings, jobs_client(), answers_client())
        else:
            found += _look_tolerantly(jobs_client(), f"redis_urls ({spine.name})")
    if settings.money_url is not None:
        found += _look_tolerantly(money_client(), "money_url")
    return found


def _look_tolerantly(client: redis.Redis, setting: str) -> list[Finding]:
    try:
        return look_at_server(client, setting, holds_jobs=True)
    except redis.RedisError as error:
        return [Finding("away", f"{setting}: its Redis does not answer ({type(error).__name__})")]


def judge(info: Mapping[str, Any], setting: str, *, holds_jobs: bool, is_slot: bool = False) -> Iterator[Finding]:
    """Judge a server by its INFO.

    Args:
        info: The reply, as redis-py parses it.
        setting: The setting that names the server.
        holds_jobs: Whether jobs, claims and money are there.
        is_slot: Whether the setting means one slot of a cluster.
    """
    version = str(info.get("redis_version", ""))
    if holds_jobs and _numbers(version) < _OLDEST:
        shown = version if _numbers(version) else "of an unknown version"
        yield Finding("version", f"{setting}: Redis {shown} is too old; use Redis 7.0, Valkey 7.2 or later")
    if not is_slot and (str(info.get("cluster_enabled", 0)) == "1" or info.get("redis_mode") == "cluster"):
        text = f"{setting}: the server is a cluster's: write cluster://host:port/64 with the number of spines"
        yield Finding("cluster", text)
    if info.get("role") in ("slave", "replica"):
        yield Finding("role", f"{setting}: the server is a replica; name its master, or the sentinels that know it")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if holds_jobs and policy != "noeviction" and int(info.get("maxmemory", 0)) > 0:
        yield Finding(
            "eviction",
            f"{setting}: the server evicts ({policy}), jobs and budgets too; set its maxmemory-policy to noeviction, "
            "or let only answers be there (result_url)",
        )


def _try_script(client: redis.Redis, setting: str) -> Iterator[Finding]:
    try:
        # Each is run by a command of its own, which a user may have or not.
        run_together(client, [load_script(client, "dspyq.store", name).step(int) for name in ("probe", "probe_reads")])
    except redis.exceptions.NoPermissionError as error:
        yield Finding("scripts", f"{setting}: its user may not run our scripts on {key('*')}: {_line(error)}")
    except redis.ResponseError as error:
        yield Finding("scripts", f"{setting}: the server runs no scripts as ours: {_line(error)}")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:_SHOWN_CHARACTERS]
