"""All faults by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tests.chaos import (
    batches,
    canvas,
    deaths,
    doors,
    experiment_counts,
    gaps,
    guard_redis_faults,
    lane_deaths,
    lane_large,
    lane_redis,
    money,
    poison_faults,
    producers,
    provider_faults,
    redis_faults,
    soak,
    spine_changes,
    streams,
    tight,
)
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale

Fault = Callable[[Scale], Outcome]

FAULTS: dict[str, Fault] = {
    **{f"killed-{point}": functools.partial(gaps.killed_at, point) for point in gaps.POINTS},
    **{f"beat-killed-{point}": functools.partial(gaps.beat_killed_at, point) for point in gaps.BEAT_POINTS},
    "killed-mid-store-elsewhere": gaps.killed_mid_store_elsewhere,
    "links-before-store": functools.partial(canvas.linked_and_chorded, "before-store"),
    "links-after-store": functools.partial(canvas.linked_and_chorded, "after-store"),
    "links-mid-chord": functools.partial(canvas.linked_and_chorded, "mid-chord"),
    "links-before-ack": functools.partial(canvas.linked_and_chorded, "before-ack"),
    "links-mid-finish": functools.partial(canvas.linked_and_chorded, "mid-finish"),
    "killed-running": deaths.killed_running,
    "killed-streaming": streams.killed_in_mid_stream,
    "frozen-and-thawed": deaths.frozen_and_thawed,
    "connections-cut": deaths.connections_cut,
    "wrong-clocks": deaths.wrong_clocks,
    "rolling-restart": deaths.rolling_restart,
    "producer-killed": producers.killed_after_claim,
    "door-killed": doors.killed_door,
    "door-redis-away": doors.redis_away,
    "redis-restarted": redis_faults.restarted,
    "redis-frozen": redis_faults.frozen,
    "redis-full": redis_faults.out_of_memory,
    "redis-full-at-times": redis_faults.out_of_memory_at_times,
    "redis-frozen-long-jobs": redis_faults.frozen_under_long_jobs,
    "answers-away": redis_faults.answers_refused,
    "redis-read-only": redis_faults.read_only,
    "connections-reset": redis_faults.reset_in_mid_command,
    "answers-evicted": redis_faults.answers_evicted,
    "garbage": redis_faults.garbage_in_lists,
    "spine-added": spine_changes.added,
    "spine-drained": spine_changes.drained,
    "experiment-undisturbed": experiment_counts.undisturbed,
    "experiment-counts": experiment_counts.replayed,
    "experiment-producer-killed": experiment_counts.producer_killed,
}

#: Those with a Redis of answers apart (``result_url``), which the settings refuse beside several servers.
ANSWERS_APART = frozenset({"killed-mid-store-elsewhere", "answers-away", "answers-evicted"})

#: What ``make test`` runs: of those that differ little one, and of all the gaps those that lost most before.
SHORT = [
    "killed-mid-take",
    "killed-before-store",
    "killed-mid-store",
    "links-mid-finish",
    "killed-mid-store-elsewhere",
    "beat-killed-mid-sweep",
    "links-before-store",
    "links-mid-chord",
    "killed-streaming",
    "frozen-and-thawed",
    "wrong-clocks",
    "producer-killed",
    "door-killed",
    "redis-restarted",
    "redis-full-at-times",
    "redis-read-only",
    "connections-reset",
    "garbage",
    "experiment-counts",
    "experiment-producer-killed",
    "soak",
]

# What the guards make of a fault; ``tests/faults/test_money.py`` runs some.
FAULTS.update(provider_faults.FAULTS)
FAULTS.update(poison_faults.FAULTS)
FAULTS.update(guard_redis_faults.FAULTS)
FAULTS.update(money.FAULTS)
FAULTS.update(tight.FAULTS)
# And what batches do; ``tests/faults/test_batch.py`` runs them.
FAULTS.update(batches.FAULTS)
# And the provider's lane; ``tests/faults/test_lane.py`` runs some.
FAULTS.update(lane_deaths.FAULTS)
FAULTS.update(lane_redis.FAULTS)
FAULTS.update(lane_large.FAULTS)
FAULTS["soak"] = soak.soak
