"""Redis clients of this process; no other module makes any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

import redis
from kombu.exceptions import OperationalError
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from dspyq.config.secrets import scrub
from dspyq.config.settings import get_settings
from dspyq.core.redis_address import Address, parse_address
from dspyq.core.runtime import current, per_runtime
from dspyq.errors import DamagedKey, RedisUnavailable
from dspyq.store.cluster import Slot, SlotClient, SlotConnection, SlotSSLConnection
from dspyq.store.key_bases import slot_key
from dspyq.store.spines import answers_url, jobs_url, process_spines
from dspyq.store.wire import line_of

SOCKET_TIMEOUT_SECONDS = 10.0
#: A connection is made only when a thread needs one, so this bounds threads, not idle cost.
MAX_CONNECTIONS = 1000
#: Read buffer of each connection; redis-py's default of 64 KiB takes 13 MB in a worker of 200 threads.
_READ_BYTES = 8 * 1024
#: Text before this in redis-py's message is a pipeline's command, which contains users' content.
_QUOTED_COMMAND = " of pipeline caused error: "
#: Start of the reply of Redis to a command on a key that holds a value of another type.
_WRONG_TYPE = "WRONGTYPE"
_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def connect(
    url: str, *, timeout_seconds: float | None = None, default_seconds: float = SOCKET_TIMEOUT_SECONDS, retries: int = 3
) -> redis.Redis:
    """Return a client with its own pool; it connects on first use.

    Args:
        url: The Redis, or its sentinels.
        timeout_seconds: Timeout of connecting and of each reply; None for the URL's.
        default_seconds: The timeout if neither this argument nor the URL sets one.
        retries: Number of reconnections before a call fails.
    """
    seconds = timeout_seconds or default_seconds
    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "health_check_interval": 25,
        "socket_read_size": _READ_BYTES,
        # Every pooled connection is dead after a restart of Redis; our scripts may run twice. Not after a timeout: the
        # next attempt would most likely wait as long.
        "retry": Retry(
            ExponentialBackoff(base=0.05, cap=0.5), retries=retries, supported_errors=(redis.ConnectionError,)
        ),
    }
    address = parse_address(url)
    if timeout_seconds is not None:
        address = replace(address, options=tuple(each for each in address.options if each[0] not in _TIMEOUTS))
    kind = SlotClient if address.spine else redis.Redis
    return kind.from_pool(connection_pool(address, **options))


def connection_pool(
    address: Address, *, derive: Callable[[type[Any]], type[Any]] = lambda base: base, **options: Any
) -> redis.ConnectionPool:
    """Return a pool of connections to a Redis, wherever a failover has put it.

    One of sentinels leads to their master, one of a cluster's spine to the node that owns its slot.

    Args:
        address: The Redis. Its own options come before those given here.
        derive: Function that returns the class to use from the plain class of connections.
        options: Options of connections, by redis-py's names.
    """
    options |= {"db": address.database, "username": address.username, "password": address.password}
    options |= dict(address.options)
    if address.path:
        kept = {name: value for name, value in options.items() if not name.startswith("socket_keepalive")}
        return redis.ConnectionPool(
            connection_class=derive(redis.UnixDomainSocketConnection), path=address.path, **kept
        )
    if address.spines:
        of_slot = SlotSSLConnection if address.is_tls else SlotConnection
        slot = Slot(address, slot_key(address), options)
        return redis.ConnectionPool(connection_class=derive(of_slot), slot=slot, **options)
    if not address.is_sentinel:
        host, port = address.hosts[0]
        base = redis.SSLConnection if address.is_tls else redis.Connection
        return redis.ConnectionPool(connection_class=derive(base), host=host, port=port, **options)
    managed = SentinelManagedSSLConnection if address.is_tls else SentinelManagedConnection
    name = get_settings().sentinel_master
    master: redis.Redis = _sentinels(address, options).master_for(name, connection_class=derive(managed), **options)
    return master.connection_pool


def _sentinels(address: Address, options: dict[str, Any]) -> Sentinel:
    """Return the sentinels, with their own user and password."""
    settings = get_settings()
    names = [name for name in options if name in _TIMEOUTS or name.startswith("ssl_")]
    login = {"username": settings.sentinel_username, "password": settings.sentinel_password}
    return Sentinel(
        address.hosts, sentinel_kwargs={name: options[name] for name in names} | login | {"ssl": address.is_tls}
    )


def close_idle(client: redis.Redis) -> None:
    """Close a client's connections but for those that threads use at this moment, which end with the client.

    Redis-py's own ``close`` takes the socket from a thread that connects, which then dies of an ``AttributeError``.
    """
    line_of(client).close_idle()
    client.connection_pool.disconnect(inuse_connections=False)


@per_runtime(is_of_part=True, close=close_idle)
def jobs_client() -> redis.Redis:
    """Return this process's client for jobs, claims and statistics of the active spine.

    Raises:
        NoSpine: If there are several spines and none is active.
    """
    return connect(jobs_url(), default_seconds=get_settings().redis_timeout_seconds)


@per_runtime(is_of_part=True, close=close_idle)
def answers_client() -> redis.Redis:
    """Return this process's client for results of the active spine: the same one where both live in one Redis.

    Raises:
        NoSpine: If there are several spines and none is active.
    """
    settings = get_settings()
    if settings.is_one_redis:
        return jobs_client()
    return connect(answers_url(), default_seconds=settings.redis_timeout_seconds)


@per_runtime(close=close_idle)
def money_client() -> redis.Redis:
    """Return this process's client for what the fleet has once: budgets, rates, breakers, books, batches, API keys."""
    settings = get_settings()
    if not settings.is_money_apart:
        return jobs_client()
    return connect(settings.home_url, default_seconds=settings.redis_timeout_seconds)


def which_exist(client: redis.Redis, prefix: str, names: Iterable[str]) -> set[str]:
    """Return those names whose keys exist, in one round trip.

    Args:
        client: The Redis of the keys.
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


class _NamedErrors:
    """A block whose errors of Redis are named; a class, as a generator's block takes a hit ten times as long."""

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Name an error."""
        if not isinstance(error, redis.RedisError | OperationalError | OSError):
            return
        # kombu wraps the error of Redis, whose type is the one that operators look up.
        is_wrapped = isinstance(error, OperationalError) and isinstance(error.__cause__, redis.RedisError)
        own = error.__cause__ if is_wrapped else error
        text = str(own).rpartition(_QUOTED_COMMAND)[2]
        cause = f"{type(own).__name__}: {text}".rstrip(": ").splitlines()[0].rstrip(".")
        if is_wrong_type(own):
            raise damaged_key(self._doing, text) from error
        raise RedisUnavailable(
            f"cannot {self._doing}: {scrub(cause)}; check {_setting()} and that Redis is running"
        ) from error


def _setting() -> str:
    """Return the setting that names the Redis of this place."""
    spines = process_spines()
    if spines is None:
        return "DSPYQ_REDIS_URL"
    here = current()
    names = [f" ({spine.name})" for spine in spines.all if spine.runtime is here]
    return f"DSPYQ_REDIS_URLS{''.join(names)}, DSPYQ_MONEY_URL"


def redis_errors(doing: str) -> AbstractContextManager[None]:
    """Turn errors of Redis and kombu within a block into one that names the setting.

    Args:
        doing: The failed action, as in "send the prediction".

    Raises:
        DamagedKey: Where a key holds a value of another type, which no process of ours writes.
        RedisUnavailable: Where Redis did not answer or refused.
    """
    return _NamedErrors(doing)


def is_wrong_type(error: BaseException | None) -> bool:
    """Return True if Redis refused a command because its key holds a value of another type."""
    return isinstance(error, redis.ResponseError) and str(error).rpartition(_QUOTED_COMMAND)[2].startswith(_WRONG_TYPE)


def name_damage(client: redis.Redis, key: str, error: redis.ResponseError, *, own_type: str) -> redis.ResponseError:
    """Return the error with the key's name where that key is the one of another type.

    Args:
        client: The Redis of the key.
        key: A key that the command read.
        error: The refusal.
        own_type: The type that we write there.
    """
    found = cast("bytes", client.type(key)).decode()
    return error if found in {own_type, "none"} else redis.ResponseError(f"{_WRONG_TYPE} {key} is a {found}")


def damaged_key(doing: str, cause: str) -> DamagedKey:
    """Return the error of a key of another type.

    Args:
        doing: The failed action.
        cause: The refusal of Redis, or that of ``name_damage``.
    """
    return DamagedKey(
        f"cannot {doing}: another program wrote to a key of dspyq ({scrub(cause.splitlines()[0])}); delete that key, "
        "and set key_prefix or another database in DSPYQ_REDIS_URL"
    )
