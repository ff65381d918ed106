"""Prometheus metrics of experiments, from the latest look of the referee: the same on every worker."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import redis
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.experiments.look import Look, MetricFinding, UnreadableLook
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.store.clients import connect
from dspyq.store.keys import experiment_look_key, experiment_state_key

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
    """

    state: ExperimentState
    look: Look | None


class ExperimentCollector(Collector):
    """Collector of the experiments that the configuration states; one round trip a scrape, none without any.

    Attributes:
        failures: Number of times that Redis did not answer.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the configuration."""
        self.failures = 0
        self._programs = [name for name, program in settings.programs.items() if program.experiment is not None]
        self._client = connect(settings.jobs_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)

    def describe(self) -> Iterable[Metric]:
        """Describe no metric in advance, so that registering does not read Redis."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; none where no experiment was started, or Redis does not answer."""
        try:
            seen = self._read() if self._programs else []
        except redis.RedisError as error:
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

    def _read(self) -> list[Seen]:
        reading = self._client.pipeline(transaction=False)
        for program in self._programs:
            reading.hmget(experiment_state_key(program), "version", "state")
            reading.hmget(experiment_look_key(program), "epoch", "look")
        replies = reading.execute()
        seen = []
        for program, (version, stored), (epoch, look) in zip(self._programs, replies[::2], replies[1::2], strict=True):
            if version is None or stored is None:
                continue
            try:
                state = ExperimentState.read(program, int(version), stored)
                is_its_own = epoch == state.epoch.encode()
                seen.append(Seen(state, Look.read(look) if is_its_own and look is not None else None))
            except (UnreadableState, UnreadableLook, ValueError) as error:
                tolerate("experiment_look", error)
        return seen


def _states(seen: Iterable[Seen]) -> Iterable[Metric]:
    states = GaugeMetricFamily(
        "dspy_experiment_state", "1: the experiment is in this state.", labels=["program", "experiment", "state"]
    )
    coverage = GaugeMetricFamily("dspy_experiment_coverage", "The part of all units enrolled.", labels=["program"])
    for state, _ in seen:
        states.add_metric([state.program, state.name, state.status], 1.0)
        coverage.add_metric([state.program], state.coverage if state.status == "running" else 0.0)
    yield states
    yield coverage


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


def _findings(looks: Mapping[str, Look]) -> Iterable[tuple[list[str], MetricFinding]]:
    for program, look in looks.items():
        for arm, found in look.challengers.items():
            for metric, finding in found.metrics.items():
                yield [program, arm, metric], finding


def _odds(log_evidence: float) -> float:
    return math.exp(min(log_evidence, _MOST_LOG_EVIDENCE))
