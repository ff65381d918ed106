"""Users of Redis with least rights, one for each part of a deployment, as Redis's ACL file states them.

``dspyq users`` prints the file for a configuration; ``deploy/redis/users.acl`` is that of this repository's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import redis

from dspyq.config.settings import Settings
from dspyq.core.names import BATCH_QUEUE, DEFAULT_QUEUE
from dspyq.core.redis_address import parse_address
from dspyq.core.slots import HOME_TAG
from dspyq.store.keys import KEY_KINDS

User = Literal["worker", "producer", "batch", "door", "watcher", "operator"]

_ALL: Final = "worker producer batch door"
#: Who may write each kind of key, and who may only read it. The operator may do both everywhere.
WRITERS_AND_READERS: Final[Mapping[str, tuple[str, str]]] = {
    # What one question touches.
    "PREDICTION": (_ALL, "watcher"),
    "JOB": (_ALL, ""),
    "CALLS": (_ALL, ""),
    "DONE": ("worker", "producer batch door"),
    "QUEUE": (_ALL, "watcher"),
    "QUEUES": (_ALL, "watcher"),
    "DELAYED": (_ALL, "watcher"),
    "LEASES": (_ALL, "watcher"),
    "DEAD": (_ALL, "watcher"),
    "UNTOLD": (_ALL, "watcher"),
    "CANCELLED": (_ALL, "watcher"),
    "CANCELLED_JOBS": (_ALL, ""),
    "SWEPT": ("worker", "watcher"),
    "SERVED": ("worker", "producer batch door watcher"),
    "UNSERVED": ("worker", "watcher"),
    "WORKERS": ("worker", "watcher"),
    "SEQUENCE": (_ALL, "watcher"),
    "MOVED_BUCKETS": (_ALL, "watcher"),
    "STREAM": ("worker", "producer door"),
    "TURNS": (_ALL, ""),
    "PASSED_ON": ("worker", ""),
    "STATISTICS": (_ALL, "watcher"),
    "SAVINGS": (_ALL, "watcher"),
    "TENANT_SAVINGS": (_ALL, "watcher"),
    "INVALIDATIONS": ("", ""),
    "CACHE_SIZE": ("worker", "watcher"),
    "CACHE_SIZE_FRESH": ("worker", "watcher"),
    "CACHE_STATISTICS": (_ALL, "watcher"),
    # Experiments: callers count what they were served, and workers judge.
    "EXPERIMENT_HOME": ("worker", "producer batch door watcher"),
    "EXPERIMENT_STATE": ("worker", "producer batch door watcher"),
    "EXPERIMENT_LOG": ("worker", "watcher"),
    "EXPERIMENT_LOOK": ("worker", "watcher"),
    "EXPERIMENT_LOOKS": ("worker", "watcher"),
    "EXPERIMENT_REFEREE": ("worker", "watcher"),
    "EXPERIMENT_SUMS": (_ALL, "watcher"),
    "EXPERIMENT_OPEN": (_ALL, ""),
    "EXPERIMENT_ANSWER": (_ALL, ""),
    "EXPERIMENT_UNSCORED": (_ALL, ""),
    "EXPERIMENT_SAID": (_ALL, ""),
    "EXPERIMENT_SECRET": (_ALL, ""),
    "EXPERIMENT_REFUSED": (_ALL, "watcher"),
    "EXPERIMENT_FLUSH": (_ALL, ""),
    "EXPERIMENT_ROWS": (_ALL, ""),
    "EXPERIMENT_KEPT": (_ALL, ""),
    # The door alone, and the operator: with the right to make keys or sign ids, a client could act as any other.
    "SERVE_SECRET": ("door", ""),
    "SERVE_CALL": ("door", ""),
    "SERVE_STREAM": ("door", ""),
    "SERVE_WITHDRAWN": ("", ""),  # a channel, as below
    "JUDGEMENTS": ("door", ""),
    "SERVE_IDEMPOTENCY": ("door", ""),
    "API_KEY": ("door", ""),
    "API_KEYS": ("door", ""),
    "API_KEY_LOG": ("door", ""),
    "API_KEY_CHANGES": ("", ""),
    "API_KEY_USAGE": ("door", ""),
    "API_KEY_TURNS": ("door", ""),
    # A part that seals for a tenant may be the first to make its key, which is sealed itself.
    "TENANT_KEYS": (_ALL, "watcher"),
    "UNIT_TASKS": (_ALL, ""),
    # What Celery and kombu name. Only workers write answers.
    "RESULT": ("worker", "producer batch door"),
    "CHORD": ("worker producer", "batch door"),
    "BELLS": ("", ""),  # one for each queue, below
    "SLOT": (f"{_ALL} watcher", ""),  # in a cluster alone: it holds nothing, and scripts without keys declare it
    # Money: limits are the operator's, spending the workers'.
    "BUDGET": ("worker", "producer batch door watcher"),
    "BUDGET_HOLD": ("worker", "watcher"),
    "BUDGET_LEASES": ("worker", "watcher"),
    "TENANT_LEASES": ("worker", "watcher"),
    "BUDGET_LIMITS": ("", "worker producer batch door watcher"),
    "BUDGET_STATISTICS": ("worker", "watcher"),
    "BATCH_ACCOUNT": ("worker batch", "watcher"),
    "COSTS": ("worker", "batch door watcher"),
    "TENANTS": ("worker", "door watcher"),
    "TENANT_COSTS": ("worker", "door watcher"),
    "TENANT_RATE": ("worker", "watcher"),
    "RATE": ("worker", "producer batch door watcher"),
    "BREAKER": ("worker", "producer batch door watcher"),
    # Calls that wait for their provider's batch interface; a batch cancels its shipments.
    "LANE": ("worker batch", ""),
    "LANES": ("worker", "batch watcher"),
    "LANE_VERSIONS": ("worker", "batch watcher"),
    "SPINES_SERVED": ("worker", ""),
    "SPINES_LEFT": ("worker", ""),
    "KILLED_ARMS": ("worker", "producer batch door watcher"),
    "BATCH": ("worker batch", "watcher"),
    "BATCH_ENDS": ("worker batch", "watcher"),
    "BATCHES": ("worker batch", "watcher"),
    "BATCH_SCHEDULE": ("worker batch", "watcher"),
    "BATCH_SCHEDULE_SEEN": ("worker batch", "watcher"),
    "BATCH_SCHEDULED": ("worker batch", "watcher"),
}
_COMMANDS: Final = (
    "-@all +@read +@write +@connection +@transaction +evalsha +evalsha_ro +script|load +script|exists +time "
    "+subscribe +unsubscribe -@dangerous"
)
#: Of a cluster's slots besides: who owns them, and channels within one.
_OF_CLUSTERS: Final = "+cluster|slots +ssubscribe +sunsubscribe"
#: Tags of slots, as patterns take them; and the tag of what the fleet has once, where Celery's own channels are.
ANY_TAG: Final = "{*}"
#: Channels by a pattern, as Celery's events are listened to. Callers may not: they would hear all answers.
_PATTERNS: Final = "+psubscribe +punsubscribe"
#: No names of others' keys, which SCAN shows whatever the rights to them.
_BLIND: Final = "-scan -randomkey -dbsize"
#: Channels that everyone listens to, and those that a user may publish on besides.
_HEARD: Final = ("celery-task-meta-*", "dspy:v1:stream:*", "dspy:v1:invalidations", "dspy:v1:cancelled")
_PUBLISHED: Final = ("dspy:v1:invalidations", "dspy:v1:cancelled")


def is_watcher(client: redis.Redis) -> bool:
    """Return True if a client's user has the watcher's name: it may write nothing of ours, and need not try."""
    return bool(client.connection_pool.connection_kwargs.get("username") == "watcher")


def users(prefix: str, queues: Iterable[str], *, database: int = 0, remote_control: bool = False) -> dict[User, str]:
    """Return the rules of each user, without a password.

    Args:
        prefix: The deployment's ``key_prefix``; behind ``ANY_TAG`` where its Redis is a cluster.
        queues: The names of the configured queues, or patterns of them.
        database: The number of the database, which is part of the names of Celery's channels.
        remote_control: Whether workers obey remote control, as ``workers.remote_control`` has it.
    """
    bells = [f"~{prefix}{name}" for name in queues]
    kombu = [f"~{prefix}_kombu.*"]
    # As they are subscribed to: a pattern that is allowed allows no narrower one.
    is_cluster = prefix.startswith(ANY_TAG)
    of_celery = prefix.replace(ANY_TAG, HOME_TAG)
    events = f"&{of_celery}/{database}.celeryev/worker.* &{of_celery}/{database}.celeryev/*"
    heard = " ".join(f"&{prefix}{name}" for name in _HEARD)
    published = " ".join(f"&{prefix}{name}" for name in _PUBLISHED)
    pidbox = f"&{of_celery}/{database}.celery.pidbox" if remote_control else ""
    # Without a prefix the operator has all channels, and Redis refuses patterns behind that.
    listened = f"{events} {pidbox}" if prefix else ""
    replies = [f"~{prefix}*.reply.celery.pidbox"] if remote_control else []
    own_pidbox = f"~{prefix}*.celery.pidbox" if remote_control else ""  # named as the worker
    commands = f"{_COMMANDS} (+publish {published} {pidbox})".replace(" )", ")")
    of_callers = commands.replace(_COMMANDS, f"{_COMMANDS} {_BLIND}")

    def rules(user: User, *more: str) -> str:
        text = " ".join(each for each in (*_keys(user, prefix), *more) if each)
        if is_cluster:
            text = text.replace(_COMMANDS, f"{_COMMANDS} {_OF_CLUSTERS}").replace("+publish", "+publish +spublish")
        return text

    of_kombu = [*bells, *kombu, *replies]
    results = f"~{prefix}celery-task-meta-*"
    return {
        "worker": rules(
            "worker",
            *of_kombu,
            own_pidbox,
            f"~{prefix}celeryev.*",
            f"{heard} {events} {pidbox} {_COMMANDS} {_PATTERNS} +publish +info",
        ),
        "producer": rules("producer", *of_kombu, heard, of_callers),
        "batch": rules("batch", *of_kombu, heard, commands),  # a quote looks for answers of its programs
        # It deletes what a client deletes, and writes no answer.
        "door": rules(
            "door",
            *of_kombu,
            f"{heard} &{prefix}dspy:v1:key-changes &{prefix}dspy:v1:serve-withdrawn",
            of_callers,
            f"(-@all +publish &{prefix}dspy:v1:serve-withdrawn)",
            f"(-@all +del {results})",
        ),
        "watcher": rules(
            "watcher",
            *replies,
            f"~{prefix}celeryev.* ~{prefix}_kombu.*",
            *(f"%R~{prefix}{name}" for name in queues),
            # No channel of streams, which are answers too.
            f"{published} {events} {pidbox} {_COMMANDS} {_PATTERNS} {'+publish' if remote_control else ''} +info",
            f"(-@all +strlen %R{results})",  # the cache's size, not its answers
        ),
        "operator": f"~{prefix}* &{prefix}* {listened} {_COMMANDS} {_PATTERNS} +publish +info",
    }


def _keys(user: User, prefix: str) -> list[str]:
    """Return a user's rights to keys, a pattern for each kind."""
    patterns = []
    for kind in KEY_KINDS:
        writers, readers = (names.split() for names in WRITERS_AND_READERS[kind.name])
        if user not in {*writers, *readers} or (kind.name == "SLOT" and not prefix.startswith(ANY_TAG)):
            continue
        start = f"{prefix}{kind.namespace}{kind.start}"
        several = "" if _is_single(start) else "*"
        patterns.append(f"{'~' if user in writers else '%R~'}{start}{several}")
    return list(dict.fromkeys(patterns))  # a state and its copies begin alike


def _is_single(start: str) -> bool:
    """Return True for a kind of a single key."""
    return not start.endswith((":", "-"))


def queues_of(settings: Settings) -> list[str]:
    """Return patterns of a configuration's queues, with those of their versions."""
    return [*(f"{name}.*" for name in settings.programs), DEFAULT_QUEUE, BATCH_QUEUE]


def users_of(settings: Settings) -> dict[User, str]:
    """Return the rules of each user of a configuration, without a password."""
    tag = ANY_TAG if parse_address(settings.jobs_url).spines else ""
    return users(tag + settings.key_prefix, queues_of(settings), remote_control=settings.workers.remote_control)


def file_of(rules: Mapping[User, str]) -> str:
    """Return the file: no user but these, each with a password that is to be replaced."""
    lines = ["user default off", *(f"user {name} on >change-me-{name} {rule}" for name, rule in rules.items())]
    return "\n".join(lines) + "\n"
