"""Experiments of two equal variants behind the product's own caches: verdicts from the counts that Redis holds.

All is the product's but the model and its worker: calls go through ``predict.apply_async``, placement, the memory cache
and the scripts that claim, answer, score and count; the referee reads the sums and judges. In place of a worker this
process stores each answer by the script that stores a worker's, and adds its score, as a worker does. 800 users of
lognormal use make 4,000 calls with the questions of ``behind_cache``; an answer is good or not once for each arm and
question. What was counted is held against a replay of the calls in the end.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from dspyq import predict
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import CoherentCache, process_cache
from dspyq.config.settings import get_settings
from dspyq.core.runtime import DEFAULT
from dspyq.experiments import administration
from dspyq.experiments.jackknife import ratio, variance_apart
from dspyq.experiments.placement import bucket_of_question, digest_of_unit, place
from dspyq.experiments.referee import Referee
from dspyq.experiments.scores import ExperimentScores
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.prediction.prediction import Metadata, to_json
from dspyq.store.clients import jobs_client
from tests.support.configuration import API_KEY, API_KEY_VARIABLE, default_document, merged, write_settings
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from dspyq.client.result import PredictionResult
    from dspyq.experiments.state import ExperimentState
    from dspyq.experiments.sums import ClusterSums
    from dspyq.experiments.sums_reader import ArmReading

USERS, QUESTIONS, CALLS, LOOKS = 800, 1500, 4_000, 10
_OWN = 5  # questions of a user's own
_TODAY = 20_000
_Z = 1.959964
_TRUSTED_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class CountedTraffic:
    """A kind of traffic.

    Attributes:
        name: As the table shows it.
        minimum_effect: Of the plan, so that it is over at 60 % of what the calls bring.
        zipf: The exponent of the questions' popularity.
        own: The share of calls with a question of the user's own.
        differ: Standard deviation of users' rates on questions of their own.
        bot: The share of calls that one user makes, each with a question of its own.
    """

    name: str
    minimum_effect: float
    zipf: float = 1.0
    own: float = 0.0
    differ: float = 0.0
    bot: float = 0.0


TRAFFIC = (
    CountedTraffic("Zipf 1.0, counted by Redis", 0.12),
    CountedTraffic("Zipf 0.7, users differ, 40 % own questions, counted by Redis", 0.1, zipf=0.7, own=0.4, differ=0.15),
    CountedTraffic("Zipf 1.0, a bot of 10 %, users differ, counted by Redis", 0.1, own=0.4, differ=0.15, bot=0.1),
)


class Finding(NamedTuple):
    """Findings of one experiment.

    Attributes:
        is_found: Whether a look ever found an effect, though there is none.
        is_ripe: Whether the last look counted.
        effective_clusters: Of the score by answer, at the last look.
        errs_by_unit: Whether one look at the score by call, clustered by unit alone, finds an effect at 5 %.
        differences: Counts that a replay of the calls has otherwise.
        hits: Calls that a cache answered.
    """

    is_found: bool
    is_ripe: bool
    effective_clusters: float
    errs_by_unit: bool
    differences: int
    hits: int


def findings(traffic: CountedTraffic, experiments: int, seed: int, calls: int = CALLS) -> list[Finding]:
    """Run so many experiments of a kind, of so many calls each, on a server of their own."""
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DSPYQ_REDIS_URL": server.url, API_KEY_VARIABLE: API_KEY}
        found = []
        for number in range(experiments):
            os.environ["DSPYQ_CONFIG"] = str(_settings(Path(folder), traffic, f"world-{number}"))
            with DEFAULT.emptied():
                found.append(_World(traffic, f"{seed} {traffic.name} {number}", calls).run())
            server.flush()
    return found


def _settings(folder: Path, traffic: CountedTraffic, name: str) -> Path:
    experiment = {
        "name": name,
        "arms": ["control", "challenger"],
        "primary": "answer.good",
        "minimum_effect": traffic.minimum_effect,
        "at_least_days": 0,
        "scores": {"good": {"scorer": "quality:is_good", "low": 0, "high": 1}},
    }
    variants = {arm: {"model": "control", "weight": 0.5} for arm in ("control", "challenger")}
    program = {"variants": variants, "scorers": ["quality:is_good"], "experiment": experiment}
    document = merged(default_document("http://127.0.0.1:9/v1"), {"programs": {"qa": program}})
    return write_settings(folder / "dspyq.toml", document)


@dataclass
class _Replay:
    """Counts of an arm's calls, kept beside the product."""

    cells: set[int] = field(default_factory=set)  # of two units with one cell, one is counted
    calls_by_unit: Counter[int] = field(default_factory=Counter)
    calls_by_question: Counter[int] = field(default_factory=Counter)
    answers_by_question: Counter[int] = field(default_factory=Counter)
    good_by_question: Counter[int] = field(default_factory=Counter)
    served_good_by_unit: Counter[int] = field(default_factory=Counter)
    hits: int = 0

    def differences(self, reading: ArmReading) -> int:
        """Return how many counts the product has otherwise."""
        metrics = reading.metrics
        calls, score, delivered = (metrics[name] for name in ("call.hit", "answer.good", "delivered.good"))
        assert calls.by_unit is not None  # noqa: S101 - units are required
        assert delivered.by_unit is not None  # noqa: S101 - the same
        pairs = (
            (self.calls_by_unit, calls.by_unit.denominators),
            (self.calls_by_question, calls.by_question.denominators),
            (self.answers_by_question, score.by_question.denominators),
            (self.good_by_question, score.by_question.numerators),
            (self.served_good_by_unit, delivered.by_unit.numerators),
            (self.calls_by_unit, delivered.by_unit.denominators),
        )
        by_bucket = sum(round(each) != counts[bucket] for counts, sums in pairs for bucket, each in enumerate(sums))
        return by_bucket + (reading.units != len(self.cells)) + (round(sum(calls.by_unit.numerators)) != self.hits)


class _World:
    """One experiment."""

    def __init__(self, traffic: CountedTraffic, seed: str, calls: int) -> None:
        self._traffic, self._count = traffic, calls
        self._draw = draw = random.Random(seed)  # noqa: S311 - a simulation
        self._taste = [draw.gauss(0, 1) * traffic.differ for _ in range(USERS)]
        self._base: dict[str, float] = {}
        self._is_good: dict[str, bool] = {}
        self._scores = ExperimentScores(jobs_client())
        self._state = administration.start(get_settings().programs["qa"])
        self._replays = {arm: _Replay() for arm in self._state.arms}

    def run(self) -> Finding:
        """Make all calls, and look at them so many times."""
        _await_trust()
        found, look = False, None
        calls = list(self._calls())
        for index in range(LOOKS):
            for user, question in calls[self._count * index // LOOKS : self._count * (index + 1) // LOOKS]:
                self._call(user, question)
            process_tally().flush()
            state = administration.read_state("qa")
            assert state is not None  # noqa: S101 - it was started
            look = Referee("the benchmark").attend_to(state)
            assert look is not None  # noqa: S101 - there is no other referee
            found |= look.challengers["challenger"].outcome in ("wins", "loses")
        assert look is not None  # noqa: S101 - there were looks
        metric = look.challengers["challenger"].metrics["answer.good"]
        table = administration.plan_of(get_settings().programs["qa"]).table
        readings = read_sums(self._state, table, today=_TODAY)
        return Finding(
            is_found=found,
            is_ripe=metric.too_early is None,
            effective_clusters=metric.effective_clusters,
            errs_by_unit=_errs_by_unit(self._state, readings),
            differences=sum(self._replays[arm].differences(readings[arm]) for arm in self._state.arms),
            hits=sum(each.hits for each in self._replays.values()),
        )

    def _calls(self) -> Any:
        """Yield each call's user and question."""
        traffic, draw, number = self._traffic, self._draw, itertools.count()
        users = draw.choices(range(USERS), [draw.lognormvariate(0, 1) for _ in range(USERS)], k=self._count)
        ranks = draw.choices(range(QUESTIONS), [rank**-traffic.zipf for rank in range(1, QUESTIONS + 1)], k=self._count)
        for user, rank in zip(users, ranks, strict=True):
            if draw.random() < traffic.bot:
                yield 0, self._question(f"of the bot {next(number)}", 0.7 + self._taste[0])
            elif draw.random() < traffic.own:
                yield user, self._question(f"of {user}, {draw.randrange(_OWN)}", 0.7 + self._taste[user])
            else:  # popular questions are easier
                yield user, self._question(f"popular {rank}", 0.7 + 0.15 * (1 - 2 * rank / QUESTIONS))

    def _question(self, text: str, rate: float) -> str:
        if text not in self._base:
            self._base[text] = min(0.98, max(0.02, rate + self._draw.gauss(0, 0.15)))
        return text

    def _call(self, user: int, question: str) -> None:
        unit = f"user {user}"
        handle = predict.apply_async(kwargs={"question": question}, unit=unit)
        placed = place(self._state.placing, unit)
        assert placed is not None  # noqa: S101 - it runs
        replay, key = self._replays[placed.variant], f"{placed.variant} {question}"
        question_bucket = bucket_of_question(self._state.salt, orjson.dumps({"question": question}))
        if handle.cache_level is None:
            self._is_good[key] = self._draw.random() < self._base[question]
            self._answer(handle, is_good=self._is_good[key])
            replay.answers_by_question[question_bucket] += 1
            replay.good_by_question[question_bucket] += self._is_good[key]
        else:
            handle.get(timeout=10)  # which keeps it in this process's memory
            replay.hits += 1
        digest = digest_of_unit(self._state.salt, unit)
        replay.cells.add(digest.cell)
        replay.calls_by_unit[digest.bucket] += 1
        replay.calls_by_question[question_bucket] += 1
        replay.served_good_by_unit[digest.bucket] += self._is_good[key]

    def _answer(self, handle: PredictionResult, *, is_good: bool) -> None:
        """Store an answer and its score as a worker does."""
        request = handle.request
        assert request is not None  # noqa: S101 - this process asked
        metadata = Metadata("qa", request.variant.name, "control", request.input_hash, request.request_id, time.time())
        result = to_json({"answer": "good" if is_good else "bad"}, metadata)
        payload = orjson.dumps({"status": "SUCCESS", "result": result, "traceback": None, "children": []})
        stored = Stored(payload, 3_600, 3_600, {"successes": 1}, cost_nano_usd=200_000, time_ms=900, tokens=60)
        if not process_claims().answer(request, Run(handle.id), stored):
            raise RuntimeError("an answer was not stored")
        self._scores.add("qa", handle.id, {"good": float(is_good)})


def _errs_by_unit(state: ExperimentState, readings: dict[str, ArmReading]) -> bool:
    """Return whether the usual test finds an effect: the score by call, clustered by unit alone."""
    control, challenger = (_by_unit(readings[arm]) for arm in state.arms)
    variance = variance_apart(challenger, control, "difference").variance
    return bool(abs(ratio(challenger) - ratio(control)) > _Z * variance**0.5)


def _by_unit(reading: ArmReading) -> ClusterSums:
    sums = reading.metrics["delivered.good"].by_unit
    assert sums is not None  # noqa: S101 - units are required
    return sums


def _await_trust() -> None:
    """Wait until this process's memory cache is used: once it hears invalidations."""
    cache, ends_at = process_cache(), time.monotonic() + _TRUSTED_WITHIN_SECONDS
    while isinstance(cache, CoherentCache) and not cache.is_trusted:
        if time.monotonic() > ends_at:
            raise TimeoutError("the memory cache hears no invalidations")
        time.sleep(0.005)


def median_clusters(found: list[Finding]) -> float:
    """Return the median of the effective clusters."""
    return statistics.median(each.effective_clusters for each in found)
