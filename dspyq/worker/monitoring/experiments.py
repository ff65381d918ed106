"""Prometheus metrics of experiments, from the latest look of the referee: the same on every worker."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.errors import RedisUnavailable
from dspyq.experiments.look import Look, MetricFinding, UnreadableLook
from dspyq.experiments.shadows import ShadowReading, read_shadows
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.store.clients import connect
from dspyq.store.keys import experiment_home_key, experiment_look_key

logger = logging.getLogger("dspyq.metrics")

_TIMEOUT_SECONDS = 1.0
#: Evidence beyond e^300 to 1 is no more convincing.
_MOST_LOG_EVIDENCE = 300.0
_OF_METRIC = ["program", "arm", "metric"]


class Seen(NamedTuple):
    """An experiment at a scrape.

    Attributes:
        state: Its state.
        look: The latest look; None before the first.
        shadows: The shadow runs of each challenger that the plan gives some.
    """

    state: ExperimentState
    look: Look | None
    shadows: Mapping[str, ShadowReading]


class ExperimentCollector(Collector):
    """Collector of the experiments that the configuration states; none without any.

    A scrape is one round trip, and one more for each experiment with shadow runs.

    Attributes:
        failures: Number of times that Redis did not answer.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the configuration."""
        self.failures = 0
        self._programs = [name for name, program in settings.programs.items() if program.experiment is not None]
        self._client = connect(settings.home_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
        #: Where the same Redis has the sums; else all spines are asked.
        self._sums = self._client if settings.spine_urls == (settings.home_url,) else None

    def describe(self) -> Iterable[Metric]:
        """Describe no metric in advance, so that registering does not read Redis."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; none where no experiment was started, or Redis does not answer."""
        try:
            seen = self._read() if self._programs else []
        except (redis.RedisError, RedisUnavailable) as error:
            self.failures += 1
            logger.warning(Event("experiment_metrics_not_read", error=type(error).__name__))
            return
        if not seen:
            return
        yield from _states(seen)
        looks = {each.state.program: each.look for each in seen if each.look is not None}
        yield from _of_looks(looks)
        yield from _effects(looks)
        yield from _guards(looks)
        yield from _shadows(seen)

    def _read(self) -> list[Seen]:
        reading = self._client.pipeline(transaction=False)
        for program in self._programs:
            reading.hmget(experiment_home_key(program), "version", "state", "plan")
            reading.hmget(experiment_look_key(program), "epoch", "look")
        replies = reading.execute()
        states, looks, seen = replies[::2], replies[1::2], []
        for program, (version, stored, plan), (epoch, look) in zip(self._programs, states, looks, strict=True):
            if version is None or stored is None:
                continue
            try:
                state = ExperimentState.read(program, int(version), stored)
                is_its_own = epoch == state.epoch.encode()
                found = Look.read(look) if is_its_own and look is not None else None
                seen.append(Seen(state, found, read_shadows(state, _table(plan), self._sums)))
            except (UnreadableState, UnreadableLook, ValueError) as error:
                tolerate("experiment_look", error)
        return seen


def _states(seen: Iterable[Seen]) -> Iterable[Metric]:
    states = GaugeMetricFamily(
        "dspy_experiment_state", "1: the experiment is in this state.", labels=["program", "experiment", "state"]
    )
    coverage = GaugeMetricFamily("dspy_experiment_coverage", "The part of all units enrolled.", labels=["program"])
    killed = GaugeMetricFamily(
        "dspy_experiment_arm_killed", "1: the arm was killed; else 0.", labels=["program", "arm"]
    )
    for state, _, _ in seen:
        for arm in state.arms:
            killed.add_metric([state.program, arm], float(arm in state.killed))
        states.add_metric([state.program, state.name, state.status], 1.0)
        coverage.add_metric([state.program], state.coverage if state.status == "running" else 0.0)
    yield from (states, coverage, killed)


def _of_looks(looks: Mapping[str, Look]) -> Iterable[Metric]:
    looked_at = GaugeMetricFamily(
        "dspy_experiment_look_timestamp_seconds", "The time of the latest look, since 1970.", labels=["program"]
    )
    ratio = GaugeMetricFamily(
        "dspy_experiment_srm_evidence", "The most evidence so far against the sample ratio, x to 1.", labels=["program"]
    )
    units = GaugeMetricFamily("dspy_experiment_units", "Units, each counted once.", labels=["program", "arm"])
    verdicts = GaugeMetricFamily(
        "dspy_experiment_verdict", "1: the verdict on this arm.", labels=["program", "arm", "outcome"]
    )
    for program, look in looks.items():
        looked_at.add_metric([program], look.at)
        ratio.add_metric([program], _odds(look.ratio_log_evidence))
        for arm, number in look.units.items():
            units.add_metric([program, arm], number)
        for arm, found in look.challengers.items():
            verdicts.add_metric([program, arm, found.outcome], 1.0)
    yield from (looked_at, ratio, units, verdicts)


def _effects(looks: Mapping[str, Look]) -> Iterable[Metric]:
    effect = GaugeMetricFamily(
        "dspy_experiment_effect",
        "Challenger less control, or a share of the control's.",
        labels=_OF_METRIC,
    )
    low = GaugeMetricFamily("dspy_experiment_low", "The lower end of the effect's interval.", labels=_OF_METRIC)
    high = GaugeMetricFamily("dspy_experiment_high", "The upper end of the effect's interval.", labels=_OF_METRIC)
    evidence = GaugeMetricFamily(
        "dspy_experiment_evidence", "The most evidence so far against no effect, x to 1.", labels=_OF_METRIC
    )
    for labels, finding in _findings(looks):
        is_share = finding.scale == "logarithm"
        for family, value in ((effect, finding.value), (low, finding.low), (high, finding.high)):
            if value is not None:
                family.add_metric(labels, math.expm1(value) if is_share else value)
        evidence.add_metric(labels, _odds(finding.log_evidence))
    yield from (effect, low, high, evidence)


def _guards(looks: Mapping[str, Look]) -> Iterable[Metric]:
    evidence = GaugeMetricFamily(
        "dspy_experiment_harm_evidence",
        "The most evidence of harm beyond the margin, x to 1.",
        labels=_OF_METRIC,
    )
    breached = GaugeMetricFamily("dspy_experiment_guard_breached", "1: the guard is breached.", labels=_OF_METRIC)
    for labels, finding in _findings(looks):
        if finding.guard is not None:
            evidence.add_metric(labels, _odds(finding.guard.log_evidence))
            breached.add_metric(labels, float(finding.guard.is_breached))
    yield from (evidence, breached)


def _shadows(seen: Iterable[Seen]) -> Iterable[Metric]:
    runs = CounterMetricFamily(
        "dspy_experiment_shadow_runs", "Shadow runs, by what came of them.", labels=["program", "arm", "outcome"]
    )
    pairs = GaugeMetricFamily("dspy_experiment_shadow_pairs", "Pairs of answers.", labels=_OF_METRIC)
    difference = GaugeMetricFamily(
        "dspy_experiment_shadow_difference", "Challenger less control, by pairs of answers.", labels=_OF_METRIC
    )
    low = GaugeMetricFamily("dspy_experiment_shadow_low", "The lower end of its interval.", labels=_OF_METRIC)
    high = GaugeMetricFamily("dspy_experiment_shadow_high", "The upper end of its interval.", labels=_OF_METRIC)
    for state, _, shadows in seen:
        for arm, found in shadows.items():
            for outcome, number in {"asked": found.asked, **found.outcomes}.items():
                runs.add_metric([state.program, arm, outcome], number)
            for metric, compared in found.differences.items():
                labels = [state.program, arm, metric]
                pairs.add_metric(labels, compared.pairs)
                for family, value in ((difference, compared.difference), (low, compared.low), (high, compared.high)):
                    if value is not None:
                        family.add_metric(labels, value)
    yield from (runs, pairs, difference, low, high)


def _table(plan: bytes | None) -> dict[str, Any]:
    """Return the table of a stored plan.

    Raises:
        ValueError: If it cannot be read.
    """
    stated = orjson.loads(plan) if plan else {}
    table = stated.get("table") if isinstance(stated, dict) else None
    return table if isinstance(table, dict) else {}


def _findings(looks: Mapping[str, Look]) -> Iterable[tuple[list[str], MetricFinding]]:
    for program, look in looks.items():
        for arm, found in look.challengers.items():
            for metric, finding in found.metrics.items():
                yield [program, arm, metric], finding


def _odds(log_evidence: float) -> float:
    return math.exp(min(log_evidence, _MOST_LOG_EVIDENCE))
