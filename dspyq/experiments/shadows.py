"""Shadow runs: questions that the control has answered and a challenger answers unseen, scored as pairs.

A pair's question is as hard for both, so its difference takes fewer answers than a comparison of arms. No caller waits
for a shadow run or is served its answer, and none of it is counted as its arm's.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import read_number
from dspyq.experiments.burn_in import LEAST_EFFECTIVE_CLUSTERS, LEAST_ROWS
from dspyq.experiments.effects import paired_effect
from dspyq.experiments.known import process_states
from dspyq.experiments.mixture import paired_radius
from dspyq.experiments.packed_sums import added_arrays
from dspyq.experiments.placement import is_in_share
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums import ClusterSums, unpack_counters
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import experiment_answer_key, experiment_sums_key
from dspyq.store.scripts import load_script, read_hash
from dspyq.store.spines import each_spine

ShadowVerdict = Literal["asked", "refused", "full", "known", "gone"]
#: What may come of a shadow run, beside its being asked.
OUTCOMES = ("paired", "unscored", "refused", "failed", "full", "lost")

_NAMESPACE = uuid.UUID("6a3f1f0e-8d0b-5f0c-9f0e-2a5d2b8c7e41")
_PAIR_FIELDS = 2
_MILLIONTHS = 1_000_000
_NANO_USD, _MILLISECONDS = 10**9, 1_000
_SCOPE_PREFIX = "shadow:"


class PairedScore(NamedTuple):
    """The difference, challenger - control, of pairs of answers to the same questions.

    Attributes:
        pairs: The number of pairs.
        difference: Its mean, in the unit of what is compared.
        low: The lower end of its always-valid interval; None while it has too few pairs.
        high: The upper end; None while it has too few.
    """

    pairs: int
    difference: float | None
    low: float | None
    high: float | None


class ShadowReading(NamedTuple):
    """The shadow runs of a challenger.

    Attributes:
        asked: How many were asked.
        outcomes: How many ended in each way of ``OUTCOMES``. Those that were ``full`` (too many waited) were not asked,
            nor most of those that their account ``refused``.
        scores: The differences of its pairs, by score.
        preferences: The mean of each pair scorer: above 0 where the challenger's answers are better, -1 to 1.
        cost_usd: The extra cost of an answer.
        time_seconds: The extra time of a run.
    """

    asked: int
    outcomes: dict[str, int]
    scores: dict[str, PairedScore]
    preferences: dict[str, PairedScore]
    cost_usd: PairedScore
    time_seconds: PairedScore

    @property
    def differences(self) -> dict[str, PairedScore]:
        """All differences, by name: each score, each pair scorer, ``cost`` in dollars and ``time`` in seconds."""
        return {**self.scores, **self.preferences, "cost": self.cost_usd, "time": self.time_seconds}


def variant_of(arm: str) -> str:
    """Return the variant of an arm as exposures name it, of a shadow run too."""
    return arm.removeprefix(_SCOPE_PREFIX)


def shadow_id(control_id: str, arm: str) -> str:
    """Return the task id of a shadow run; one that is asked again has the same."""
    return str(uuid.uuid5(_NAMESPACE, f"{control_id} {arm}"))


def is_chosen(state: ExperimentState, canonical_inputs: bytes, share: float) -> bool:
    """Return True if a question is one of the share that shadow runs get."""
    return is_in_share(state.salt, "shadow", canonical_inputs, share)


def is_under_way(program: str, arm: str) -> bool:
    """Return True if a program's experiment runs, and the arm in it.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the experiment"):
        process_states().refresh(program)
    state = process_states().get(program)
    return state is not None and state.status == "running" and arm in state.arms and arm not in state.killed


class ShadowLog:
    """The shadow runs of all programs' experiments, as Redis keeps them.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._ask, self._end = (load_script(client, "dspyq.experiments", name) for name in ("shadow_ask", "shadow_end"))

    def note(
        self, program: str, control_id: str, arm: str, scores: Mapping[str, float], *, is_refused: bool
    ) -> ShadowVerdict:
        """Note a shadow run before it is asked; the verdict is ``asked`` if it is to be.

        Args:
            program: The program's name.
            control_id: The task that answered for the control.
            arm: The challenger.
            scores: The scores of the control's answer, as parts of their ranges, 0 to 1; 0 for each pair scorer.
            is_refused: Whether its account refuses it.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        stated = [each for name, score in scores.items() for each in (name, round(score * _MILLIONTHS))]
        reply = self._ask(
            program=program,
            control_id=control_id,
            id=shadow_id(control_id, arm),
            arm=arm,
            refused="1" if is_refused else "",
            scores=stated,
        )
        return cast("ShadowVerdict", reply.decode())

    def control_of(self, task_id: str) -> str | None:
        """Return the task whose answer a shadow run is compared with; None if it is no shadow run.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        found = cast("bytes | None", self._client.hget(experiment_answer_key(task_id), "control"))
        return None if found is None else found.decode()

    def end(self, program: str, task_id: str, reason: Literal["refused", "failed"]) -> None:
        """Count a shadow run that ended without an answer; a repetition changes nothing.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        self._end(program=program, id=task_id, reason=reason)


def read_shadows(
    state: ExperimentState, table: Mapping[str, Any], client: redis.Redis | None = None
) -> dict[str, ShadowReading]:
    """Return the shadow runs of each challenger that has some by the plan. One round trip.

    Args:
        state: The experiment.
        table: Its frozen table.
        client: The one Redis of jobs; this process's connections to all spines where left out.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    shadow = table.get("shadow")
    if not shadow:
        return {}
    units = _units(table)
    names = [(arm, name) for arm in shadow["variants"] for name in units]
    counts: dict[bytes, int] = {}
    arrays = []
    with redis_errors("read the experiment's shadow runs"):
        for _ in each_spine():
            base = experiment_sums_key(state.program, state.epoch)
            reading = (client or jobs_client()).pipeline(transaction=False)
            reading.hgetall(base + "shadow")
            reading.mget([f"{base}shadow:{arm}:pair:{name}:q" for arm, name in names])
            found, packed = reading.execute()
            for what, number in read_hash(found).items():
                counts[what] = counts.get(what, 0) + int(read_number(number))
            arrays.append(packed)
    stored = arrays[0] if len(arrays) == 1 else [added_arrays(each) for each in zip(*arrays, strict=True)]
    pairs = {pair: packed or b"" for pair, packed in zip(names, stored, strict=True)}

    def count(arm: str, what: str) -> int:
        return counts.get(f"{arm} {what}".encode(), 0)

    def compared(arm: str, name: str) -> PairedScore:
        return _paired(pairs[arm, name], *units[name], float(table["alpha"]))

    return {
        arm: ShadowReading(
            asked=count(arm, "asked"),
            outcomes={what: count(arm, what) for what in OUTCOMES},
            scores={name: compared(arm, name) for name in table["scores"]},
            preferences={name: compared(arm, name) for name in pair_scorers(table)},
            cost_usd=compared(arm, "cost"),
            time_seconds=compared(arm, "time"),
        )
        for arm in shadow["variants"]
    }


def pair_scorers(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the import paths of a plan's pair scorers, by name."""
    stated: dict[str, str] = (table.get("shadow") or {}).get("pair_scorers", {})
    return stated


def _units(table: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return of each difference how much one of its sum is, and the most that it can be."""
    spans = {name: float(span["high"]) - float(span["low"]) for name, span in table["scores"].items()}
    spans |= dict.fromkeys(pair_scorers(table), 1.0)
    bounded = {name: (span / _MILLIONTHS, span) for name, span in spans.items()}
    return {**bounded, "cost": (1 / _NANO_USD, math.inf), "time": (1 / _MILLISECONDS, math.inf)}


def _paired(packed: bytes, unit: float, most: float, alpha: float) -> PairedScore:
    numbers, sums = unpack_counters(packed, _PAIR_FIELDS)
    clusters = [(float(number), total * unit) for number, total in zip(numbers, sums, strict=True) if number]
    effect = paired_effect(ClusterSums(tuple(total for _, total in clusters), tuple(number for number, _ in clusters)))
    if effect is None:
        return PairedScore(0, None, None, None)
    pairs = sum(numbers)
    if pairs < LEAST_ROWS or effect.effective_clusters < LEAST_EFFECTIVE_CLUSTERS:
        return PairedScore(pairs, effect.value, None, None)
    radius = paired_radius(effect.variance, len(clusters), alpha)
    low, high = max(-most, effect.value - radius), min(most, effect.value + radius)
    return PairedScore(pairs, effect.value, *((low, high) if math.isfinite(high - low) else (None, None)))


@per_runtime(is_of_part=True)
def process_shadow_log() -> ShadowLog:
    """Return the shadow runs of the active spine, which is that of the controls' questions."""
    return ShadowLog(jobs_client())
