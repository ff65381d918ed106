"""Plots of arms beside each other: cost and quality, and judgements by day."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspyq.cli.experiment_report import figures
from dspyq.cli.experiment_report.axes import Axis, note, plot
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.experiment_report.texts import day
from dspyq.cli.report.plots import HEIGHT, WIDTH, line, rect
from dspyq.cli.report.texts import escape
from dspyq.experiments.feedback_days import FeedbackDay
from dspyq.experiments.look import MetricFinding

_COST = "answer.cost"
_MOST_DAY_TEXTS = 5


def quality_metric(report: ExperimentReport) -> str | None:
    """Return the metric of quality: the primary one where it is a score or a judgement, else the first score."""
    if report.primary.startswith(("delivered.", "feedback.")):
        return report.primary
    names = list(report.table["scores"])
    family, _, name = report.primary.partition(".")
    if family == "answer" and name in names:
        return report.primary
    return f"answer.{names[0]}" if names else None


def cost_and_quality(report: ExperimentReport) -> str:
    """Return each arm by its cost and quality; empty where a mean is missing.

    A challenger's cross is the interval of its difference from the control, which is what decides: where the cross
    is clear of the control's line, the difference is real.
    """
    quality = quality_metric(report)
    control = report.state.control
    if quality is None:
        return ""
    home = report.mean_of(control, _COST), report.mean_of(control, quality)
    if home[0] is None or home[1] is None:
        return ""
    crosses = {
        arm: (_reach(home[0], cost), _reach(home[1], found))
        for arm in report.challengers
        if (cost := report.metric(arm, _COST))
        and (found := report.metric(arm, quality))
        and cost.challenger is not None
        and found.challenger is not None
    }
    if not crosses:
        return ""
    x = Axis.around((home[0] * 0.97, home[0] * 1.03, *(each for cross in crosses.values() for each in cross[0])))
    spread = max(abs(home[1]) * 0.03, 1e-9)
    y = Axis.around((home[1] - spread, home[1] + spread, *(each for cross in crosses.values() for each in cross[1])))
    shapes = [
        rect(0, 0, x.x(home[0]), y.y(home[1]), "gain", "better for less"),
        line(x.x(home[0]), 0, x.x(home[0]), HEIGHT, "iso"),
        line(0, y.y(home[1]), WIDTH, y.y(home[1]), "iso"),
        _dot(x.x(home[0]), y.y(home[1]), "dot arm0", _named(control, quality, home[0], home[1])),
    ]
    labels = [
        note(0.01, 0.92, "better for less", "gain"),
        note(x.share(home[0]) + 0.01, y.share(home[1]) + 0.01, control),
    ]
    for number, (arm, (costs, values)) in enumerate(crosses.items(), start=1):
        kind = f"arm{number % 4}"
        at_x, at_y = x.x(costs[1]), y.y(values[1])
        shapes += [
            line(x.x(costs[0]), at_y, x.x(costs[2]), at_y, f"cross {kind}"),
            line(at_x, y.y(values[0]), at_x, y.y(values[2]), f"cross {kind}"),
            _dot(at_x, at_y, f"dot {kind}", _named(arm, quality, costs[1], values[1])),
        ]
        labels.append(note(x.share(costs[1]) + 0.01, y.share(values[1]) + 0.02, arm))
    beside = [(y.share(mark), figures.figure(quality, mark)) for mark in y.marks]
    below = [(x.share(mark), figures.figure(_COST, mark)) for mark in x.marks]
    return plot("".join(shapes), f"{quality} by cost of an answer", left=beside, below=below, inside=labels)


def feedback(name: str, days: Sequence[FeedbackDay], arms: Sequence[str]) -> str:
    """Return the mean judgement by day of exposure, an arm beside the other; days that are not mature are grey."""
    means = [found.mean for each in days for found in each.arms.values() if found.mean is not None]
    if not means:
        return ""
    axis = Axis.around((min(0.0, *means), *means), marks=4)
    step = WIDTH / len(days)
    width = step * 0.8 / len(arms)
    shapes, base = [], axis.y(max(axis.low, min(0.0, axis.high)))
    for place, each in enumerate(days):
        for number, arm in enumerate(arms):
            found = each.arms.get(arm)
            if found is None or found.mean is None:
                continue
            top = axis.y(found.mean)
            kind = f"fill arm{number % 4}" if each.is_mature else "fill unripe"
            mean = figures.figure(f"feedback.{name}", found.mean)
            title = f"{day(each.day)}, {arm}: {mean}, {found.judged:,} of {found.exposed:,} judged"
            left = place * step + step * 0.1 + number * width
            shapes.append(rect(left, min(top, base), width * 0.92, max(0.5, abs(base - top)), kind, title))
    every = math.ceil(len(days) / _MOST_DAY_TEXTS)
    below = [
        ((place + 0.5) / len(days), day(each.day)[-5:] if each.day is not None else "earlier")
        for place, each in enumerate(days)
        if place % every == 0
    ]
    beside = [(axis.share(mark), f"{mark:g}") for mark in axis.marks]
    return plot("".join(shapes), f"Mean {name} by day of exposure", left=beside, below=below)


def _reach(home: float, found: MetricFinding) -> tuple[float, float, float]:
    """Return the low end, the challenger's mean, and the high end, in the metric's unit."""
    mean = found.challenger if found.challenger is not None else home
    if found.low is None or found.high is None or found.low > found.high:
        return mean, mean, mean
    if figures.is_relative(found):
        return home * math.exp(found.low), mean, home * math.exp(found.high)
    return home + found.low, mean, home + found.high


def _dot(x: float, y: float, kind: str, title: str) -> str:
    """Return a line of no length with round ends: a dot whose form does not stretch with the plot."""
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}h0.01"><title>{escape(title)}</title></path>'


def _named(arm: str, quality: str, cost: float, value: float) -> str:
    return f"{arm}: {quality} {figures.figure(quality, value)}, {figures.figure(_COST, cost)} an answer"
