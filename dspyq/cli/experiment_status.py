"""The screen of ``dspyq experiment status``: the standing of an experiment, in words and figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from dspyq.cli.experiment_report import figures
from dspyq.cli.report.texts import short_duration
from dspyq.console.output import console, dollars, print_table
from dspyq.core.days import SECONDS_OF_DAY
from dspyq.experiments.look import ChallengerFindings, MetricFinding
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE
from dspyq.experiments.shadows import PairedScore, ShadowReading
from dspyq.experiments.status import Standing

_FEW_CLUSTERS = 20
_SHA_CHARACTERS = 4
_MOST_DAYS_IN_HOURS = 2
#: A space at which no line ends.
_SPACE = "\u00a0"
#: Evidence beyond it is shown as a power of ten.
_MANY = 1e6
_SHOWN_WITHOUT_ROLE = ("answer.cost", "answer.time", "call.failed", "call.hit")


def print_standing(standing: Standing, *, file: str) -> None:
    """Print the screen.

    Args:
        standing: The standing.
        file: The relation of the configuration file to the plan.
    """
    state, look = standing.state, standing.look
    day = f"day {max(1, math.ceil(look.days))}"
    held = " (held)" if state.is_held and state.status == "running" else ""
    split = ":".join("1" * len(state.arms))
    by = "question" if state.unit == "inputs" else "unit"
    parts = [
        state.name,
        state.program,
        f"{state.status}, {day}",
        f"coverage {figures.percents(state.coverage, 0)}{held}",
        f"{split} by {by}",
        f"plan {state.plan_sha256[:_SHA_CHARACTERS]}" + ("" if file == "as planned" else f" ({file})"),
    ]
    console.print(" · ".join(parts), highlight=False)
    for arm in state.arms[1:]:
        _print_challenger(standing, arm)
    for line in _closing_lines(standing):
        console.print(line, highlight=False)


def standing_as_json(standing: Standing) -> dict[str, Any]:
    """Return all numbers of a standing."""
    return {
        "look": dataclasses.asdict(standing.look),
        "looked_at": standing.looked_at,
        "calls_per_day": standing.calls_per_day,
        "needed": {arm: dataclasses.asdict(each) for arm, each in standing.needed.items()},
        "refusals": standing.refusals,
        "shadows": {arm: _shadow_as_json(each) for arm, each in standing.shadows.items()},
        "next_step": dataclasses.asdict(standing.next_step) if standing.next_step else None,
    }


def _shadow_as_json(found: ShadowReading) -> dict[str, Any]:
    stated = {"asked": found.asked, "outcomes": found.outcomes}
    compared = {
        "scores": {name: each._asdict() for name, each in found.scores.items()},
        "preferences": {name: each._asdict() for name, each in found.preferences.items()},
    }
    return stated | compared | {"cost_usd": found.cost_usd._asdict(), "time_seconds": found.time_seconds._asdict()}


def _print_challenger(standing: Standing, arm: str) -> None:
    look, control = standing.look, standing.state.control
    found = look.challengers[arm]
    ratio = "ratio BROKEN" if look.ratio_log_evidence >= BROKEN_LOG_EVIDENCE else "ratio sound"
    level = figures.percents(1 - float(standing.plan.table["alpha"]), 0)
    titles = ["", control, arm, f"difference ({level} at any time)", "evidence", ""]
    rows = [
        ["units", f"{look.units[control]:,}", f"{look.units[arm]:,}", ratio, odds(look.ratio_log_evidence), ""],
        ["calls", f"{look.calls[control]:,}", f"{look.calls[arm]:,}", "", "", ""],
        *(_row(standing, metric, finding) for metric, finding in _shown(found)),
    ]
    if any(look.dropped.values()):
        rows.insert(2, ["dropped", f"{look.dropped[control]:,}", f"{look.dropped[arm]:,}", "", "", ""])
    killed = " (killed)" if arm in standing.state.killed else ""
    print_table(f"{arm}{killed}: {found.outcome}", titles, rows)


def _shown(found: ChallengerFindings) -> Iterator[tuple[str, MetricFinding]]:
    """Yield the metrics with a role, then the usual ones, scores and judgements that have rows."""
    ordered = sorted(found.metrics.items(), key=lambda each: (not each[1].is_primary, each[1].guard is None))
    for metric, finding in ordered:
        has_role = finding.is_primary or finding.guard is not None
        is_usual = metric in _SHOWN_WITHOUT_ROLE or not metric.startswith(("answer.", "call."))
        is_score = metric.startswith("answer.") and f"delivered.{metric.partition('.')[2]}" in found.metrics
        if has_role or ((is_usual or is_score) and finding.control_rows + finding.challenger_rows):
            yield metric, finding


def _row(standing: Standing, metric: str, finding: MetricFinding) -> list[str]:
    return [
        figures.title(metric, standing.plan.table),
        figures.figure(metric, finding.control),
        figures.figure(metric, finding.challenger),
        _difference(metric, finding),
        odds(finding.log_evidence),
        _role(standing, metric, finding),
    ]


def _difference(metric: str, finding: MetricFinding) -> str:
    """Return the difference and its interval, whose ends have the unit of the difference."""
    difference = figures.effect(metric, finding)
    if finding.low is None or finding.high is None or finding.value is None:
        return difference
    is_relative = figures.is_relative(finding)
    low, high = (
        figures.difference(metric, figures.shown(finding, end), is_relative=is_relative).partition(_SPACE)[0]
        for end in (finding.low, finding.high)
    )
    return f"{difference}{_SPACE}({low}{_SPACE}…{_SPACE}{high})"


def _role(standing: Standing, metric: str, finding: MetricFinding) -> str:
    parts = []
    if finding.is_primary:
        parts.append(f"primary, min {figures.stated_difference(standing.plan.table['minimum_effect'])}")
        parts.append(f"G* {finding.effective_clusters:,.0f}")
    if finding.guard is not None:
        limit = figures.margin(finding)
        margin = figures.difference(metric, limit, is_relative=finding.guard.is_relative)
        word = "BREACHED" if finding.guard.is_breached else "ok" if finding.guard.is_sound else "open"
        bound = "≤" if finding.higher_is_worse else "≥"
        parts.append(f"guard {bound} {margin}: {word}, harm {odds(finding.guard.log_evidence)}")
    if finding.too_early:
        parts.append(finding.too_early)
    return ", ".join(parts)


def _closing_lines(standing: Standing) -> Iterator[str]:
    state, look = standing.state, standing.look
    if standing.refusals:
        yield f"Not counted: {', '.join(f'{number:,} {reason}' for reason, number in standing.refusals.items())}"
    for arm, unscored in look.unscored.items():
        counts = ", ".join(f"{number:,} {name.replace('*', 'all', 1)}" for name, number in unscored.items())
        yield f"{arm}: scores that its answers lack: {counts}"
    for arm, found in look.challengers.items():
        yield f"{arm}: {found.outcome}: {found.because}{_advice(found)}"
        needed = standing.needed.get(arm)
        if found.outcome == "going on" and needed is not None and state.status == "running":
            yield f"{arm}: {_need(standing, needed.share, needed.calls, needed.days)}"
    if state.status != "running":
        reason = f": {state.reason}" if state.reason else ""
        yield f"{state.status}; all units get {state.serve}{reason}"
    for arm, shadow in standing.shadows.items():
        yield f"{arm} in the shadow: {_shadow_text(shadow)}"
    step = standing.next_step
    if step is not None:
        due = f"in {days_text(step.seconds / SECONDS_OF_DAY)}" if step.seconds else "due now, once a worker looks"
        yield f"Next: coverage {figures.percents(step.coverage, 0)} {due}"
    if state.status == "running" and standing.looked_at is None:
        yield "No worker has looked yet: without one nothing ramps and nothing is rolled back"


def _shadow_text(found: ShadowReading) -> str:
    ended = [f"{count:,} {what}" for what, count in found.outcomes.items() if count]
    compared = (_paired(name, each) for name, each in found.differences.items() if each.pairs or name in found.scores)
    return "; ".join([", ".join([f"{found.asked:,} asked", *ended]), *compared])


def _paired(name: str, found: PairedScore) -> str:
    if found.difference is None:
        return f"{name} –"
    text = f"{name} {_amount(name, found.difference)} over {found.pairs:,} pairs"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({_amount(name, found.low)}{_SPACE}…{_SPACE}{_amount(name, found.high)} at any time)"


def _amount(name: str, value: float) -> str:
    """Return a difference of pairs in its unit: dollars, seconds, or that of its score."""
    if name == "cost":
        return f"{'-' if value < 0 else '+'}{dollars(abs(value))}"
    return f"{value:+.3g}{_SPACE}s" if name == "time" else f"{value:+.3g}"


def _need(standing: Standing, share: float, calls: int, days: float | None) -> str:
    if share >= 1:
        return "the planned information is there; the always-valid rule goes on for as long as you let it"
    rate = "" if standing.calls_per_day is None else f" at {standing.calls_per_day:,.0f} calls a day"
    time = "" if days is None else f", {days_text(days)}{rate}"
    return f"{figures.percents(share, 0)} of the planned information; the rest takes some {calls:,} calls{time}"


def _advice(found: ChallengerFindings) -> str:
    """Return what helps where calls bring no independent news."""
    primary = next((each for each in found.metrics.values() if each.is_primary), None)
    if primary is None or primary.too_early != "few independent rows":
        return ""
    return f" (G* {primary.effective_clusters:.1f} of {_FEW_CLUSTERS}: decide by answer, or set draws)"


def days_text(days: float) -> str:
    """Return a time of hours to months."""
    return f"{days:,.1f} days" if days > _MOST_DAYS_IN_HOURS else short_duration(days * SECONDS_OF_DAY)


def odds(log_evidence: float) -> str:
    """Return evidence as "x : 1"."""
    if log_evidence > math.log(_MANY):
        return f"10^{log_evidence / math.log(10):.0f} : 1"
    value = math.exp(log_evidence)
    return f"{value:,.0f} : 1" if value >= 10 else f"{value:.2g} : 1"  # noqa: PLR2004 - one digit more below it
