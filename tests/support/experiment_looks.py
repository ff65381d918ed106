"""Looks at an experiment as a fleet stores them, made by hand from seeded random walks."""

from __future__ import annotations

import math
import random
from typing import Any

from dspyq.cli.experiment_report.content import AccountSpent, ExperimentReport
from dspyq.config.experiments import Experiment
from dspyq.experiments.administration import LoggedChange, StartedPlan
from dspyq.experiments.durations import DurationCounts
from dspyq.experiments.feedback_days import DayOfArm, FeedbackDay
from dspyq.experiments.look import ChallengerFindings, GuardFinding, Look, MetricFinding
from dspyq.experiments.state import ExperimentState

#: 2026-11-01, 09:00 UTC.
STARTED_AT = 1_793_523_600.0
DAY = 86_400
TABLE: dict[str, Any] = {
    "name": "compiled-november",
    "arms": ["control", "challenger"],
    "primary": "answer.grounded",
    "minimum_effect": 0.03,
    "ramp": [{"coverage": 0.02, "hours": 12}, {"coverage": 0.2, "hours": 60}, {"coverage": 1.0}],
    "scores": {"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1}},
    "feedback": {"thumbs": {"low": 0, "high": 1, "window_days": 3}},
    "guards": [
        {"metric": "call.failed", "margin": 0.01},
        {"metric": "answer.cost", "margin": "10 %"},
        {"metric": "answer.slow", "seconds": 8, "margin": 0.02},
        {"metric": "response.thumbs", "margin": 0.05},
    ],
}
#: Differences of amounts are logarithms.
_AMOUNT: dict[str, Any] = {"scale": "logarithm", "higher_is_worse": True}
_COVERAGES = ((3.0, 1.0), (0.5, 0.2), (0.0, 0.02))
_GUARD_LIMIT = math.log(400)


def state_of(table: dict[str, Any], **changes: Any) -> ExperimentState:
    """Return the state of a running experiment with this table."""
    stated: dict[str, Any] = {
        "program": "qa", "name": table["name"], "version": 3, "status": "running", "arms": tuple(table["arms"]),
        "coverage": 1.0, "serve": table["arms"][0], "epoch": "00ff00ff00ff00ff", "plan_sha256": "7f3a" * 16,
        "started_at": STARTED_AT, "step_at": STARTED_AT,
    }  # fmt: skip
    return ExperimentState(**stated | changes)


def plan_of(table: dict[str, Any]) -> StartedPlan:
    """Return the plan that would be frozen of this table."""
    fingerprints = {arm: f"{number:02}" * 16 for number, arm in enumerate(table["arms"])}
    return StartedPlan(Experiment(**table).model_dump(mode="json"), fingerprints, "7f3a" * 16)


def metric(value: float | None, radius: float, **changes: Any) -> MetricFinding:
    """Return what a look has found about a metric, about a control of 0.7."""
    low, high = (None, None) if value is None else (value - radius, value + radius)
    stated: dict[str, Any] = {
        "control": 0.7, "challenger": None if value is None else 0.7 + value, "scale": "difference", "value": value,
        "low": low, "high": high, "log_evidence": 4.0, "effective_clusters": 300.0, "control_rows": 7000,
        "challenger_rows": 7100, "higher_is_worse": False,
    }  # fmt: skip
    return MetricFinding(**stated | changes)


def guard(margin: float, **changes: Any) -> GuardFinding:
    """Return a guard that is sound."""
    stated: dict[str, Any] = {
        "margin": margin, "is_relative": False, "log_evidence": -3.0, "log_limit": _GUARD_LIMIT,
        "is_breached": False, "is_sound": True,
    }  # fmt: skip
    return GuardFinding(**stated | changes)


def walk(
    effect: float, looks: int, days: float, seed: int, scale: float = 0.012
) -> list[tuple[float, float, float, float]]:
    """Return the day, the effect, and the running interval of each look, as more and more rows bring them."""
    draw = random.Random(seed)  # noqa: S311 - a simulation
    found, position, low, high = [], 0.0, -math.inf, math.inf
    for number in range(1, looks + 1):
        share = number / looks
        position += effect / looks + draw.gauss(0, scale / math.sqrt(looks))
        value, radius = position / share, 2.3 * scale / math.sqrt(share)
        low, high = max(low, value - radius), min(high, value + radius)
        found.append((days * share, value, low, high))
    return found


def report(
    *,
    effect: float = 0.036,
    looks: int = 120,
    days: float = 12.0,
    seed: int = 7,
    outcome: str = "wins",
    failures: float = 0.0003,
    table: dict[str, Any] = TABLE,
    **changes: Any,
) -> ExperimentReport:
    """Return the content of a report on an experiment of two arms."""
    control, challenger = table["arms"]
    primary, failed = walk(effect, looks, days, seed), walk(failures, looks, days, seed + 1, 0.001)
    cost, slow = walk(-0.09, looks, days, seed + 2, 0.008), walk(0.002, looks, days, seed + 3, 0.002)
    response = walk(-0.004, looks, days, seed + 4, 0.01)
    draw, points, units = random.Random(seed), [], [0, 0]  # noqa: S311 - a simulation
    for number in range(looks):
        day = primary[number][0]
        coverage = next(share for since, share in _COVERAGES if day >= since)
        for _ in range(2 + round(60 * coverage)):
            units[draw.random() < 0.5] += 1
        rows = round(7000 * (number + 1) / looks)
        metrics = {
            "answer.grounded": _found(primary[number], 0.698, rows, is_primary=True),
            "delivered.grounded": _found(primary[number], 0.71, rows * 3),
            "call.failed": _guarded(failed[number], 0.0041, rows * 3, guard(0.01), failures),
            "answer.cost": _found(cost[number], 0.00021, rows, guard=guard(0.1, is_relative=True), **_AMOUNT),
            "answer.slow": _found(slow[number], 0.011, rows, guard=guard(0.02), higher_is_worse=True),
            "response.thumbs": _found(response[number], 0.12, rows, guard=guard(0.05)),
            "answer.time": _found(cost[number], 1.9, rows, **_AMOUNT),
            "call.waited": _found(cost[number], 0.8, rows * 3, **_AMOUNT),
            "call.hit": _found((0, 0.001, -0.01, 0.01), 0.75, rows * 3),
            "call.fallback": _found((0, 0.0, -0.001, 0.001), 0.001, rows * 3, higher_is_worse=True),
            "call.paid": _found(cost[number], 0.00006, rows * 3, **_AMOUNT),
            "feedback.thumbs": _found((0, 0.02, -0.05, 0.09), 0.61, rows // 4, too_early="few outcomes"),
        }  # fmt: skip
        is_last = number + 1 == looks
        found = ChallengerFindings(
            outcome=outcome if is_last else "going on",
            because="the primary metric's interval holds 0",
            p_value=0.01,
            minimum_effect=0.03,
            information=10_000.0,
            information_now=16_000.0 * (number + 1) / looks,
            metrics=metrics,
        )
        points.append(
            Look(
                number=number + 1,
                at=STARTED_AT + day * DAY,
                version=3,
                status="running",
                coverage=coverage,
                days=day,
                ratio_log_evidence=0.2 + 0.1 * math.sin(number / 9) ** 2,
                units=dict(zip(table["arms"], units, strict=True)),
                calls={control: rows * 3, challenger: rows * 3 + 70},
                answers={control: rows, challenger: rows + 60},
                dropped={},
                challengers={challenger: found},
            )
        )
    stated: dict[str, Any] = {
        "state": state_of(table),
        "plan": plan_of(table),
        "file": "as in the file",
        "at": points[-1].at + 4,
        "latest": points[-1],
        "looked_at": points[-1].at,
        "points": tuple(points),
        "log": (
            LoggedChange(STARTED_AT, 1, "start", "ada@web-1", "compiled on November's rows", table["name"]),
            LoggedChange(STARTED_AT + DAY / 2, 2, "ramp", "worker@host", "", "0.2"),
            LoggedChange(STARTED_AT + 3 * DAY, 3, "ramp", "worker@host", "", "1"),
        ),
        "feedback": {"thumbs": feedback_days(table["arms"], round(days))},
        "durations": {arm: durations(1.9, seed + number) for number, arm in enumerate(table["arms"])},
        "accounts": (AccountSpent("shadow:qa", "2026-11-13", 1.24, 2.0),),
        "versions": {"dspyq": "0.2.0", "DSPy": "3.4.1"},
    }
    return ExperimentReport(**stated | changes)


def feedback_days(arms: list[str], days: int, window: int = 3) -> tuple[FeedbackDay, ...]:
    """Return judgements of so many days, of which the last are not mature."""
    draw, first = random.Random(3), int(STARTED_AT // DAY)  # noqa: S311 - a simulation
    return tuple(
        FeedbackDay(
            first + day,
            day < days - window,
            {arm: DayOfArm(600, 70 - max(0, day - days + window) * 15, 0.6 + draw.random() * 0.05) for arm in arms},
        )
        for day in range(days + 1)
    )


def durations(mean: float, seed: int, answers: int = 7000) -> DurationCounts:
    """Return lognormal times about a mean, in seconds."""
    draw, counts = random.Random(seed), [0] * 96  # noqa: S311 - a simulation
    for _ in range(answers):
        milliseconds = mean * 1000 * draw.lognormvariate(0, 0.5)
        counts[min(95, int(math.log(max(1.0, milliseconds)) / 0.14))] += 1
    return DurationCounts(tuple(counts))


def _found(step: tuple[float, float, float, float], control: float, rows: int, **changes: Any) -> MetricFinding:
    _, value, low, high = step
    challenger = control * math.exp(value) if changes.get("scale") == "logarithm" else control + value
    return metric(
        value,
        0.0,
        control=control,
        challenger=challenger,
        low=low,
        high=high,
        control_rows=rows,
        challenger_rows=rows + 50,
        **changes,
    )


def _guarded(
    step: tuple[float, float, float, float], control: float, rows: int, sound: GuardFinding, harm: float
) -> MetricFinding:
    is_breached = harm > sound.margin
    found = guard(
        sound.margin, is_breached=is_breached, is_sound=not is_breached, log_evidence=9.0 if is_breached else -3.0
    )
    return _found(step, control, rows, guard=found, higher_is_worse=True)
