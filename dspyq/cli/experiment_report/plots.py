"""Plots of an experiment over time: intervals of effects, and the sample ratio."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dspyq.cli.experiment_report import figures
from dspyq.cli.experiment_report.axes import Axis, note, plot
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.experiment_report.texts import coverage_text, span, when
from dspyq.cli.report.plots import HEIGHT, WIDTH, line, rect
from dspyq.cli.report.texts import escape
from dspyq.core.days import SECONDS_OF_DAY
from dspyq.experiments.look import Look, MetricFinding
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE

#: The axis follows the looks behind this part of them; those before are cut off, for their intervals are wide.
_WIDE_PART = 0.15
#: Labels of steps that are nearer to each other than this share of the plot stand below each other.
_NEAR, _MOST_LEVELS, _LEVEL = 0.14, 3, 0.09
_LN_10 = math.log(10)
#: Units of the time axis, how many a day has, and below how many days each is used.
_UNITS = (("minute", 1440.0, 0.1), ("hour", 24.0, 1.5), ("day", 1.0, math.inf))


class _Point(NamedTuple):
    """An effect and its interval at one look, as they are shown."""

    look: Look
    day: float
    value: float
    low: float
    high: float


def primary(report: ExperimentReport, arm: str) -> str:
    """Return the interval of a challenger's primary metric over time; empty before the first look with an effect."""
    found = report.metric(arm, report.primary)
    points = _points(report, arm, report.primary)
    if found is None or not points:
        return ""
    challenger = report.found(arm)
    least = challenger.minimum_effect if challenger else 0.0
    limits = [figures.shown(found, each) or 0.0 for each in (least, -least)]
    axis, days = _axis([*_seen(points), 0.0, *limits]), _days(report)
    shapes = [_band(points, axis, days)]
    shapes += [line(0, axis.y(limit), WIDTH, axis.y(limit), "least") for limit in limits]
    shapes.append(line(0, axis.y(0), WIDTH, axis.y(0), "zero"))
    steps, labels = _ramp(report, days)
    shapes += [steps, _trace([(days.x(each.day), axis.y(each.value)) for each in points], "effect")]
    if (planned := _first(points, lambda each: _is_planned(each.look, arm))) is not None:
        shapes.append(line(days.x(planned.day), 0, days.x(planned.day), HEIGHT, "planned"))
        labels.append(note(days.share(planned.day), 0.01, f"plan reached, {span(planned.day)}"))
    if (decided := _first(points, lambda each: each.low > 0 or each.high < 0)) is not None:
        is_above = decided.low > 0
        side, kind = "above" if is_above else "below", "worse" if is_above == found.higher_is_worse else "better"
        shapes.append(line(days.x(decided.day), 0, days.x(decided.day), HEIGHT, f"decided {kind}"))
        labels.append(note(days.share(decided.day), 0.1, f"interval {side} 0, {span(decided.day)}", kind))
    shapes += _touched(points, days, lambda each: _described(report.primary, found, each))
    return _over_time(
        "".join(shapes),
        f"{report.primary}: {arm} minus {report.state.control} over time",
        axis,
        days,
        labels,
        _text_of(report.primary, found),
    )


def guard(report: ExperimentReport, arm: str, metric: str) -> str:
    """Return the interval of a guard over time, with its margin; empty before the first look with an effect."""
    found = report.metric(arm, metric)
    points = _points(report, arm, metric)
    if found is None or not points:
        return ""
    margin = figures.margin(found) or 0.0
    axis, days = _axis([*_seen(points), 0.0, margin * 1.3], marks=3), _days(report)
    worse_from, worse_to = (axis.y(axis.high), axis.y(margin)) if margin > 0 else (axis.y(margin), axis.y(axis.low))
    shapes = [
        rect(0, worse_from, WIDTH, max(0.0, worse_to - worse_from), "harm", "worse by more than the margin"),
        _band(points, axis, days),
        line(0, axis.y(0), WIDTH, axis.y(0), "zero"),
        line(0, axis.y(margin), WIDTH, axis.y(margin), "margin"),
        _trace([(days.x(each.day), axis.y(each.value)) for each in points], "effect"),
        *_touched(points, days, lambda each: _described(metric, found, each)),
    ]
    return _over_time(
        "".join(shapes),
        f"{metric}: {arm} minus {report.state.control} over time",
        axis,
        days,
        [],
        _text_of(metric, found),
        marks=2,
    )


def shares(report: ExperimentReport) -> str:
    """Return each arm's share of the units over time; empty before there is a unit."""
    arms = [arm for arm in report.state.arms if arm not in report.state.killed]
    looks = [look for look in report.looks if sum(look.units.get(arm, 0) for arm in arms)]
    if not looks:
        return ""
    days, expected = _days(report), 1 / len(arms)
    traces = {arm: [_share(look, arm, arms) for look in looks] for arm in arms}
    late = [share for trace in traces.values() for share in trace[int(len(trace) * _WIDE_PART) :]]
    axis = _axis([*late, expected * 0.96, expected * 1.04], marks=3)
    shapes = [line(0, axis.y(expected), WIDTH, axis.y(expected), "zero")]
    for number, (arm, trace) in enumerate(traces.items()):
        places = [(days.x(_day(report, look)), axis.y(share)) for look, share in zip(looks, trace, strict=True)]
        shapes.append(_trace(places, f"arm arm{number % 4}", arm))
    return _over_time(
        "".join(shapes),
        "Each arm's share of the units over time",
        axis,
        days,
        [],
        lambda share: figures.percents(share, 1),
    )


def ratio_evidence(report: ExperimentReport) -> str:
    """Return the evidence against the sample ratio over time, with the threshold; empty before the first look."""
    if not report.looks:
        return ""
    days = _days(report)
    powers = [look.ratio_log_evidence / _LN_10 for look in report.looks]
    limit = BROKEN_LOG_EVIDENCE / _LN_10
    axis = _axis([*(min(power, 2 * limit) for power in powers), 0.0, limit * 1.2], marks=3)
    places = [(days.x(_day(report, look)), axis.y(power)) for look, power in zip(report.looks, powers, strict=True)]
    threshold = line(0, axis.y(limit), WIDTH, axis.y(limit), "margin")
    shapes = threshold + _trace(places, "effect", "evidence against equal parts")
    labels = [note(0.01, axis.share(limit) + 0.01, "broken from 1,000 : 1")]
    return _over_time(
        shapes, "Evidence against the sample ratio over time", axis, days, labels, lambda power: f"{10**power:,.0f} : 1"
    )


def _over_time(  # noqa: PLR0913, PLR0917 - a plot's parts
    shapes: str,
    label: str,
    axis: Axis,
    days: Axis,
    inside: Sequence[str],
    text: Callable[[float], str],
    marks: int = 6,
) -> str:
    beside = [(axis.share(mark), text(mark)) for mark in axis.marks]
    shown = Axis.around((days.low, days.high), marks=marks, is_rounded=False)
    unit, per_day = next((name, per) for name, per, up_to in _UNITS if days.high < up_to)
    scaled = Axis.around((0.0, shown.high * per_day), marks=marks, is_rounded=False)
    below = [(mark / per_day / days.high, f"{unit} {mark:g}") for mark in scaled.marks]
    return plot(shapes, label, left=beside, below=below, inside=inside)


def _points(report: ExperimentReport, arm: str, metric: str) -> list[_Point]:
    found = []
    for look in report.looks:
        challenger = look.challengers.get(arm)
        each = challenger.metrics.get(metric) if challenger else None
        if each is not None and each.value is not None:
            low, high = figures.shown(each, each.low), figures.shown(each, each.high)
            found.append(
                _Point(
                    look,
                    _day(report, look),
                    figures.shown(each, each.value) or 0.0,
                    -math.inf if low is None else low,
                    math.inf if high is None else high,
                )
            )
    return found


def _seen(points: Sequence[_Point]) -> Iterator[float]:
    """Return the values that the axis must hold: those of later looks, and the last of all."""
    for each in points[int(len(points) * _WIDE_PART) :]:
        yield from (each.value, each.low, each.high)


def _axis(values: Iterable[float], marks: int = 6) -> Axis:
    return Axis.around(values, marks=marks)


def _days(report: ExperimentReport) -> Axis:
    return Axis(0.0, max(report.days, 1 / 1440), 1.0)


def _day(report: ExperimentReport, look: Look) -> float:
    return max(0.0, look.at - report.state.started_at) / SECONDS_OF_DAY


def _band(points: Sequence[_Point], axis: Axis, days: Axis) -> str:
    """Return the interval as an area, from the first look that has one; an interval that is empty has none."""
    held = [each for each in points if math.isfinite(each.low) and each.low <= each.high]
    if not held:
        return ""
    upper = [f"{days.x(each.day):.1f},{axis.y(each.high):.1f}" for each in held]
    lower = [f"{days.x(each.day):.1f},{axis.y(each.low):.1f}" for each in reversed(held)]
    return f'<polygon class="band" points="{" ".join((*upper, *lower))}"/>'


def _trace(places: Sequence[tuple[float, float]], kind: str, title: str = "") -> str:
    if len(places) == 1:
        places = [*places, (places[0][0] + 0.1, places[0][1])]
    named = f"<title>{escape(title)}</title>" if title else ""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}">{named}</polyline>'


def _ramp(report: ExperimentReport, days: Axis) -> tuple[str, list[str]]:
    """Return a tick for each change of coverage, and their labels."""
    shapes, labels, last, level = "", [], -1.0, 0
    for at, coverage in coverage_steps(report):
        share = days.share(at)
        level = (level + 1) % _MOST_LEVELS if share - last < _NEAR else 0
        last = share
        shapes += line(share * WIDTH, 0, share * WIDTH, HEIGHT, "step")
        labels.append(note(share, 0.93 - level * _LEVEL, coverage_text(coverage)))
    return shapes, labels


def coverage_steps(report: ExperimentReport) -> list[tuple[float, float]]:
    """Return each coverage, with the day from which the looks saw it."""
    steps: list[tuple[float, float]] = []
    for look in report.looks:
        if not steps:
            steps.append((0.0, look.coverage))
        elif steps[-1][1] != look.coverage:
            steps.append((_day(report, look), look.coverage))
    return steps


def _touched(points: Sequence[_Point], days: Axis, text: Callable[[_Point], str]) -> Iterator[str]:
    """Return an unseen strip for each look, with its finding where a pointer rests on it."""
    edges = [0.0, *((a.day + b.day) / 2 for a, b in itertools.pairwise(points)), days.high]
    for each, (start, end) in zip(points, itertools.pairwise(edges), strict=True):
        left, right = days.x(start), days.x(end)
        yield rect(left, 0, max(0.1, right - left), HEIGHT, "touch", text(each))


def _described(metric: str, found: MetricFinding, point: _Point) -> str:
    relative = figures.is_relative(found)
    value, low, high = (
        figures.difference(metric, each, is_relative=relative) for each in (point.value, point.low, point.high)
    )
    return f"{when(point.look.at)}: {value} ({low} to {high})"


def _text_of(metric: str, found: MetricFinding) -> Callable[[float], str]:
    return lambda value: figures.difference(metric, value, is_relative=figures.is_relative(found)) if value else "0"


def _share(look: Look, arm: str, arms: Sequence[str]) -> float:
    return look.units.get(arm, 0) / sum(look.units.get(each, 0) for each in arms)


def _is_planned(look: Look, arm: str) -> bool:
    found = look.challengers.get(arm)
    return found is not None and bool(found.information) and found.information_now >= (found.information or 0.0)


def _first(points: Sequence[_Point], is_it: Callable[[_Point], bool]) -> _Point | None:
    return next((each for each in points if is_it(each)), None)
