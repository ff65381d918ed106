"""The only place that makes Redis clients."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.exceptions import OperationalError
from redis.backoff import ExponentialBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from dspyq.config.settings import get_settings
from dspyq.errors import RedisUnavailable

#: Every key of ours starts with it; results keep Celery's own prefix.
KEY_PREFIX = "dspy:v1:"
JOB_PREFIX = f"{KEY_PREFIX}job:"
SOCKET_TIMEOUT_SECONDS = 10.0
#: A connection is made only when a thread needs one, so this bounds threads, not idle cost.
MAX_CONNECTIONS = 1000
#: What each connection keeps memory for; redis-py's own 64 KiB are 13 MB in a worker of 200 threads.
_READ_BYTES = 8 * 1024


def connect(url: str, *, timeout_seconds: float = SOCKET_TIMEOUT_SECONDS, retries: int = 3) -> redis.Redis:
    """Return a client with a pool of its own; it connects when it is first used.

    A URL of sentinels, ``sentinel://host:port/db`` joined by ``;``, leads to the master that ``sentinel_master`` names,
    wherever that is after a failover.

    Args:
        url: The Redis, or its sentinels.
        timeout_seconds: How long connecting may take, and each reply.
        retries: How often a lost connection is made anew before a call fails.
    """
    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "health_check_interval": 25,
        "socket_read_size": _READ_BYTES,
        # Every pooled connection is dead after a restart of Redis; our scripts may run twice. Not after a timeout: the
        # next attempt would most likely wait as long.
        "retry": Retry(
            ExponentialBackoff(base=0.05, cap=0.5), retries=retries, supported_errors=(redis.ConnectionError,)
        ),
    }
    if not url.startswith("sentinel://"):
        client: redis.Redis = redis.Redis.from_url(url, **options)
        return client
    parts = [parse_url(f"redis{part.removeprefix('sentinel')}") for part in url.split(";")]
    hosts = [(part["host"], part["port"]) for part in parts]
    login = {name: parts[0][name] for name in ("db", "username", "password") if name in parts[0]}
    sentinel = Sentinel(hosts, socket_timeout=timeout_seconds)
    master: redis.Redis = sentinel.master_for(get_settings().sentinel_master, **options, **login)
    return master


@functools.cache
def jobs_client() -> redis.Redis:
    """Return this process's client for jobs, claims and statistics."""
    return connect(get_settings().jobs_url)


@functools.cache
def answers_client() -> redis.Redis:
    """Return this process's client for results: the same one where both live in one Redis."""
    settings = get_settings()
    return jobs_client() if settings.is_one_redis else connect(settings.answers_url)


def which_exist(client: redis.Redis, prefix: str, names: Iterable[str]) -> set[str]:
    """Return those names whose keys exist, in one round trip; none where there are no names.

    Args:
        client: Where to look.
        prefix: What comes before each name in its key.
        names: The names.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    ordered = list(names)
    if not ordered:
        return set()
    pipeline = client.pipeline(transaction=False)
    for name in ordered:
        pipeline.exists(prefix + name)
    return {name for name, exists in zip(ordered, pipeline.execute(), strict=True) if exists}


@contextmanager
def redis_errors(doing: str) -> Iterator[None]:
    """Turn what Redis and kombu raise into one error that names the setting.

    Args:
        doing: What could not be done, as in "send the prediction".

    Raises:
        RedisUnavailable: Where Redis did not answer or refused.
    """
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as error:
        cause = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
        raise RedisUnavailable(f"cannot {doing}: {cause}; check DSPYQ_REDIS_URL and that Redis is running") from error
