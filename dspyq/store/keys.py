"""Names of keys and channels in Redis, which all begin with the setting ``key_prefix``: empty, unless it is set.

In a cluster, the tag of a slot comes before that: every key of a spine is in its slot, and every key of what the fleet
has once in the slot of that.

Queues' lists and Celery's own keys carry it too: kombu and the result backend are given it as their
``global_keyprefix``. A script finds each kind of key under its name here, and each lifetime, as a local: ``JOB .. id``
(``dspyq.store.script_text``).

Each kind of key belongs to one side. ``spine`` keys are what one question touches: its alias, job, place, result,
statistics and savings. ``money`` keys are what the whole fleet has once: budgets, rates, breakers, books, batches,
API keys, experiments, secrets. No script touches both, so that either side can have a server of its own. Which parts of
a deployment may write a kind is stated in ``dspyq.store.users``.
"""

from __future__ import annotations

import functools
from contextlib import suppress

from dspyq.store.key_bases import NAMESPACE, KeyKind, Side, bases
from dspyq.store.spines import NoSpine

#: Where several begin alike, the longest start is a key's kind.
KEY_KINDS = (
    KeyKind("PREDICTION", "prediction:", "spine"),
    KeyKind("JOB", "job:", "spine"),
    KeyKind("CALLS", "calls:", "spine"),
    KeyKind("DONE", "done:", "spine"),
    KeyKind("QUEUE", "queue:", "spine"),
    KeyKind("QUEUES", "queues", "spine"),
    KeyKind("DELAYED", "delayed", "spine"),
    KeyKind("LEASES", "leases", "spine"),
    KeyKind("DEAD", "dead", "spine"),
    KeyKind("UNTOLD", "untold", "spine"),
    KeyKind("CANCELLED", "cancelled", "spine"),
    KeyKind("CANCELLED_JOBS", "cancelled-jobs", "spine"),
    KeyKind("SWEPT", "swept", "spine"),
    KeyKind("SERVED", "served", "spine"),
    KeyKind("UNSERVED", "unserved", "spine"),
    KeyKind("WORKERS", "workers", "spine"),
    KeyKind("SEQUENCE", "seq", "spine"),
    KeyKind("MOVED_BUCKETS", "moved-buckets", "spine"),
    KeyKind("STREAM", "stream:", "spine"),
    KeyKind("TURNS", "turns:", "spine"),
    KeyKind("PASSED_ON", "passed-on:", "spine"),
    KeyKind("LANE", "lane:", "spine"),
    KeyKind("LANES", "lanes", "spine"),
    KeyKind("LANE_VERSIONS", "lane-versions", "spine"),
    KeyKind("STATISTICS", "statistics:", "spine"),
    KeyKind("JUDGEMENTS", "judgements:", "spine"),
    KeyKind("SAVINGS", "savings:", "spine"),
    KeyKind("TENANT_SAVINGS", "tenant-savings:", "spine"),
    KeyKind("INVALIDATIONS", "invalidations", "spine"),
    KeyKind("CACHE_SIZE", "cache-size", "spine"),
    KeyKind("CACHE_SIZE_FRESH", "cache-size-fresh", "spine"),
    KeyKind("CACHE_STATISTICS", "cache-statistics", "spine"),
    # An experiment's state, and the copy of it beside the questions: one key where one Redis holds all.
    KeyKind("EXPERIMENT_HOME", "experiment-state:", "money"),
    KeyKind("EXPERIMENT_STATE", "experiment-state:", "spine"),
    KeyKind("EXPERIMENT_LOG", "experiment-log:", "money"),
    KeyKind("EXPERIMENT_LOOK", "experiment-look:", "money"),
    KeyKind("EXPERIMENT_LOOKS", "experiment-looks:", "money"),
    KeyKind("EXPERIMENT_REFEREE", "experiment-referee", "money"),
    KeyKind("EXPERIMENT_SUMS", "experiment-sums:", "spine"),
    KeyKind("EXPERIMENT_OPEN", "experiment-open:", "spine"),
    KeyKind("EXPERIMENT_ANSWER", "experiment-answer:", "spine"),
    KeyKind("EXPERIMENT_UNSCORED", "experiment-unscored:", "spine"),
    KeyKind("EXPERIMENT_SAID", "experiment-said:", "spine"),
    KeyKind("EXPERIMENT_SECRET", "experiment-secret", "money"),
    KeyKind("EXPERIMENT_REFUSED", "experiment-refused:", "spine"),
    KeyKind("EXPERIMENT_FLUSH", "experiment-flush:", "spine"),
    KeyKind("EXPERIMENT_ROWS", "experiment-rows:", "spine"),
    KeyKind("EXPERIMENT_KEPT", "experiment-kept:", "spine"),
    KeyKind("TENANT_KEYS", "tenant-keys", "money"),
    KeyKind("UNIT_TASKS", "unit-tasks:", "money"),
    KeyKind("SERVE_SECRET", "serve-secret", "money"),
    KeyKind("SERVE_CALL", "serve-call:", "spine"),
    KeyKind("SERVE_WITHDRAWN", "serve-withdrawn", "spine"),
    KeyKind("SERVE_STREAM", "serve-stream:", "money"),
    KeyKind("SERVE_IDEMPOTENCY", "serve-idempotency:", "money"),
    KeyKind("RESULT", "celery-task-meta-", "spine", ""),
    KeyKind("CHORD", "celery-taskset-meta-", "spine", ""),
    KeyKind("SLOT", "slot", "spine"),
    # A queue's list of bells is named as the queue, by kombu.
    KeyKind("BELLS", "", "spine", ""),
    KeyKind("BUDGET", "budget:", "money"),
    KeyKind("BUDGET_HOLD", "budget:hold:", "money"),
    KeyKind("BUDGET_LEASES", "budget:leases", "money"),
    KeyKind("TENANT_LEASES", "budget:tenant-leases", "money"),
    KeyKind("BUDGET_LIMITS", "budget-limits", "money"),
    KeyKind("BUDGET_STATISTICS", "budget-statistics", "money"),
    KeyKind("BATCH_ACCOUNT", "budget:batch:", "money"),
    KeyKind("COSTS", "costs:", "money"),
    KeyKind("TENANTS", "tenants", "money"),
    KeyKind("TENANT_COSTS", "tenant-costs:", "money"),
    KeyKind("TENANT_RATE", "tenant-rate:", "money"),
    KeyKind("API_KEY", "key:", "money"),
    KeyKind("API_KEYS", "keys", "money"),
    KeyKind("API_KEY_LOG", "key-log", "money"),
    KeyKind("API_KEY_CHANGES", "key-changes", "money"),
    KeyKind("API_KEY_USAGE", "key-usage:", "money"),
    KeyKind("API_KEY_TURNS", "key-turns:", "money"),
    KeyKind("RATE", "rate:", "money"),
    KeyKind("BREAKER", "breaker:", "money"),
    KeyKind("KILLED_ARMS", "killed-arms", "money"),
    KeyKind("SPINES_SERVED", "spines-served", "money"),
    KeyKind("SPINES_LEFT", "spines-left", "money"),
    KeyKind("BATCH", "batch:", "money"),
    KeyKind("BATCH_ENDS", "batch-ends", "money"),
    KeyKind("BATCHES", "batches", "money"),
    KeyKind("BATCH_SCHEDULE", "batch-schedule:", "money"),
    KeyKind("BATCH_SCHEDULE_SEEN", "batch-schedule-seen:", "money"),
    KeyKind("BATCH_SCHEDULED", "batch-scheduled:", "money"),
)

_BELLS = next(kind for kind in KEY_KINDS if kind.name == "BELLS")
_DAY = 86_400
_MONTH_CHARACTERS = len("2026-11")
#: How long the books and the savings of a day are kept, and what a batch has spent.
SECONDS_OF_BOOKS = 400 * _DAY
#: How long a batch stays in the list after its last sign of life, and its claims.
SECONDS_OF_BATCH = 90 * _DAY
#: Lifetimes of keys; a script finds each under its name.
LIFETIMES = {
    "SECONDS_OF_BOOKS": SECONDS_OF_BOOKS,
    "SECONDS_OF_BATCH": SECONDS_OF_BATCH,
    # The accounts of a day or a month, after its end.
    "SECONDS_AFTER_PERIOD": 7 * _DAY,
    # The accounts of a day and of a month, where a call begins them that was not held there.
    "SECONDS_OF_DAY": 9 * _DAY,
    "SECONDS_OF_MONTH": 40 * _DAY,
    "SECONDS_OF_BATCH_DAY": 9 * _DAY,
    # A settled call: longer than any script is repeated after a lost connection.
    "SECONDS_SETTLED": 900,
    # A call of unknown cost: longer than any worker stays frozen and settles after all.
    "SECONDS_UNKNOWN": 7 * _DAY,
    # A bell that was passed on and not read, because the worker ended.
    "SECONDS_PASSED_ON": 60,
    # The turns of a queue's tenants, after the latest job: longer than jobs wait.
    "SECONDS_OF_TURNS": 30 * _DAY,
    # A finished child of another task's run.
    "SECONDS_DONE": 3_600,
    # The log of a stream, after the latest sign of its run.
    "SECONDS_OF_STREAM": 120,
    # A claim whose job was ended: longer than a process takes to release it.
    "SECONDS_UNRELEASED": 60,
    # A cancelled job in a worker's hands; another worker stores its end after this time.
    "SECONDS_TO_STORE_CANCELLED": 30,
    # A batch's own rate, and a tenant's, after its last call.
    "SECONDS_OF_OWN_RATE": _DAY,
    # Changes of keys of the API that their log keeps, or some more.
    "MOST_LOGGED_KEY_CHANGES": 10_000,
    # Calls that a tenant's rate refuses come back one by one within this; further ones come back after it.
    "MOST_SECONDS_OF_TURNS": 60,
    # An experiment's sums, after the last row of a bucket that was empty.
    "SECONDS_OF_EXPERIMENT": SECONDS_OF_BOOKS,
    # A call that waits for a run, after the first that does.
    "SECONDS_OF_OPEN_EXPOSURE": 30 * _DAY,
    # The calls that waited for a run, after they are counted: longer than a claim is repeated after a lost connection.
    "SECONDS_CLOSED": 60,
    # The scores of an answer, after the cache's last hit of it.
    "SECONDS_OF_SCORING": 3_600,
    # Answers that wait for their scores, after the latest of a program.
    "SECONDS_OF_UNSCORED": _DAY,
    # The worker that computed an answer scores it; another one does after this time, and again.
    "SECONDS_TO_SCORE": 60,
    # Answers of a program that wait for their scores; further ones are dropped and counted.
    "MOST_UNSCORED": 1_000,
    # How often workers take an answer from there: one whose scorers end its worker is dropped.
    "MOST_SCORINGS": 3,
    # A shadow run, after it was asked: its answer may come so late.
    "SECONDS_OF_SHADOW": _DAY,
    # Shadow runs of an experiment that wait for their scores; further ones are not asked, and counted.
    "MOST_SHADOWS": 1_000,
    # Rows for exports, after the last of them.
    "SECONDS_OF_ROWS": 90 * _DAY,
    # The number of a process's latest flush of hits: longer than it repeats one after a lost reply.
    "SECONDS_OF_FLUSH": _DAY,
    # Calls that wait for one run, each of which is counted when it ends.
    "MOST_OPEN_EXPOSURES": 20_000,
    # Shipments of a lane that were closed.
    "MOST_PAST_SHIPMENTS": 500,
    # The mark of a correction: a script is repeated after a lost connection, within this.
    "SECONDS_CORRECTED": 60,
}


def key(name: str) -> str:
    """Return the key of this name: ``key("dead")`` is ``dspy:v1:dead`` where no ``key_prefix`` is set.

    Raises:
        NoSpine: If it is one of a cluster's spines and none is active.
    """
    found = bases()
    return f"{found.money if found.is_one or _side(name) == 'money' else found.spine}{NAMESPACE}{name}"


def key_starts() -> dict[str, str]:
    """Return the whole start of each kind of key that can be used here, by its name in Lua.

    Where no spine of a cluster is active, those are the keys of what the fleet has once.
    """
    found = bases()
    starts = {"money": found.money}
    with suppress(NoSpine):
        starts["spine"] = found.spine
    return {kind.name: f"{starts[kind.side]}{kind.namespace}{kind.start}" for kind in KEY_KINDS if kind.side in starts}


def job_key(task_id: str) -> str:
    """Return the key of a job's record."""
    return key("job:") + task_id


def lanes_key() -> str:
    """Return the key of the names of the models whose lanes hold anything."""
    return key("lanes")


def lane_key(model: str, part: str) -> str:
    """Return the key of a part of a model's lane, as ``dspyq/lane/lua/lines.lua`` describes them."""
    return f"{key('lane:')}{model}:{part}"


def stream_key(task_id: str) -> str:
    """Return the key of the log of a task's stream, which is also the channel on which it is published."""
    return key("stream:") + task_id


def alias_key(input_hash: str) -> str:
    """Return the key of a question's alias."""
    return f"{bases().spine}{NAMESPACE}prediction:{input_hash}"


def statistics_key(queue: str) -> str:
    """Return the key of a variant's statistics."""
    return key("statistics:") + queue


def judgements_key(call_id: str) -> str:
    """Return the key of the judgements of a call's answer."""
    return key("judgements:") + call_id


def costs_key(day: str) -> str:
    """Return the key of the books of a day."""
    return key("costs:") + day


def savings_key(day: str) -> str:
    """Return the key of what answers from the cache and runs of others saved on a day."""
    return key("savings:") + day


def month_of(day: str) -> str:
    """Return the label of a day's month, with which the day's own begins."""
    return day[:_MONTH_CHARACTERS]


def tenant_savings_key(tenant: str, month: str) -> str:
    """Return the key of what answers from the cache and runs of others saved a tenant in a month."""
    return f"{key('tenant-savings:')}{tenant}:{month}"


def tenant_costs_key(tenant: str, month: str) -> str:
    """Return the key of a tenant's books of a month."""
    return f"{key('tenant-costs:')}{tenant}:{month}"


def api_key_usage_key(key_id: str, month: str) -> str:
    """Return the key of the counts of a month's requests with a key of the API."""
    return f"{key('key-usage:')}{key_id}:{month}"


def withdrawn_calls_channel() -> str:
    """Return the channel on which calls of the HTTP API are published that are withdrawn."""
    return key("serve-withdrawn")


def key_changes_channel() -> str:
    """Return the channel on which the ids of changed keys of the API are published."""
    return key("key-changes")


def folded_costs_key(day: str) -> str:
    """Return the key of the books of an old day, in which a variant and a model are one field."""
    return f"{costs_key(day)}:folded"


def batch_account_key(batch_id: str) -> str:
    """Return the key of a batch's account: its limits and spending."""
    return key("budget:batch:") + batch_id


def experiment_state_key(program: str) -> str:
    """Return the key of the state of a program's experiment, as the claims of the active spine read it."""
    return f"{bases().spine}{NAMESPACE}experiment-state:{program}"


def experiment_home_key(program: str) -> str:
    """Return the key of the state of a program's experiment, of which each spine has a copy."""
    return f"{bases().money}{NAMESPACE}experiment-state:{program}"


def experiment_log_key(program: str) -> str:
    """Return the key of the changes of a program's experiments."""
    return key("experiment-log:") + program


def experiment_look_key(program: str) -> str:
    """Return the key of the latest look at a program's experiment, and of what all looks so far have found."""
    return key("experiment-look:") + program


def experiment_looks_key(program: str) -> str:
    """Return the key of the looks at a program's experiment, thinned out."""
    return key("experiment-looks:") + program


def referee_key() -> str:
    """Return the key of the worker that looks at experiments at present."""
    return key("experiment-referee")


def experiment_refused_key(program: str) -> str:
    """Return the key of the counts of refused feedback of a program, by reason."""
    return key("experiment-refused:") + program


def experiment_sums_key(program: str, epoch: str) -> str:
    """Return the start of the keys of an experiment's sums."""
    return f"{key('experiment-sums:')}{program}:{epoch}:"


def experiment_answer_key(task_id: str) -> str:
    """Return the key of what an experiment keeps of an answer: its scores, and the calls that it was served to."""
    return key("experiment-answer:") + task_id


def experiment_rows_key(program: str, epoch: str) -> str:
    """Return the key of the rows that an experiment keeps for exports."""
    return f"{key('experiment-rows:')}{program}:{epoch}"


def experiment_kept_key(program: str, epoch: str) -> str:
    """Return the key of what came of those rows."""
    return f"{key('experiment-kept:')}{program}:{epoch}"


def killed_arms_key() -> str:
    """Return the key of the queues of killed arms, whose model calls no longer begin."""
    return key("killed-arms")


def result_key(task_id: str) -> str:
    """Return the key of a task's result, which is also the channel on which it is published."""
    return f"{bases().spine}celery-task-meta-{task_id}"


def replies_channel(task_id: str) -> str:
    """Return the channel on which a task's result is published beside its own, each behind its task's id.

    All tasks of a process have one, named by the start of their ids. Empty for an id that no process of ours makes.
    """
    if len(task_id) != TASK_ID_LENGTH:
        return ""
    return f"{bases().spine}celery-task-meta-{task_id[:REPLY_START_LENGTH]}"


def binding_keys(exchange: str) -> tuple[str, str]:
    """Return the keys of kombu's bindings of an exchange: of all its queues, and of those that do not expire."""
    base = bases().money  # kombu's own connection leads there
    return f"{base}_kombu.binding.{exchange}", f"{base}_kombu.binding_permanent.{exchange}"


#: Length of a task id that names a process's channel, and of its start that does; other ids are users' own.
TASK_ID_LENGTH, REPLY_START_LENGTH = 36, 13
#: Key of the counters of all memory caches.
CACHE_STATISTICS = "cache-statistics"
#: Message on the invalidations channel in place of an input hash.
EVERYTHING = "*"


def cancellations_channel() -> str:
    """Return the channel on which the ids of cancelled jobs are published, one a line."""
    return key("cancelled")


def invalidations_channel() -> str:
    """Return the channel on which invalidated questions are published."""
    return key("invalidations")


@functools.lru_cache(1024)
def _side(name: str) -> Side:
    """Return the side of a name of ours: that of the longest start that fits."""
    fitting = (kind for kind in KEY_KINDS if kind.namespace and name.startswith(kind.start))
    return max(fitting, key=lambda kind: len(kind.start), default=_BELLS).side
