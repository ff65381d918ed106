"""Texts that both forms of an experiment's report share."""

from __future__ import annotations

from typing import NamedTuple

from dspyq.cli.experiment_report import figures
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.report.texts import short_duration, utc
from dspyq.core.days import SECONDS_OF_DAY
from dspyq.experiments.look import ChallengerFindings, MetricFinding
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE

_LATE_SECONDS = 300
_SHA_CHARACTERS = 12
_HEADLINES = {
    "wins": "{arm} wins.",
    "loses": "{arm} loses.",
    "no difference that matters": "{arm} makes no difference that matters.",
    "breach": "{arm} breaches a guard.",
    "broken": "The experiment is broken: {because}.",
    "drifts": "The effect of {arm} has changed meanwhile.",
    "split": "{arm} is better by answer and worse by traffic, or the other way round.",
    "going on": "No verdict on {arm} yet.",
}
_GOOD, _BAD, _ODD = ("wins",), ("loses", "breach", "broken"), ("drifts", "split")


class Headline(NamedTuple):
    """A verdict in words.

    Attributes:
        kind: ``good``, ``bad``, ``odd`` or ``open``.
        verdict: The verdict.
        grounds: What it rests on.
    """

    kind: str
    verdict: str
    grounds: str


def headlines(report: ExperimentReport) -> list[Headline]:
    """Return the verdict on each challenger."""
    if report.latest is None:
        grounds = f"It started at {when(report.state.started_at)}, and no unit has called yet."
        return [Headline("open", "Nothing is counted yet.", grounds)]
    return [_headline(report, arm, found) for arm in report.challengers if (found := report.found(arm)) is not None]


def subtitle(report: ExperimentReport) -> str:
    """Return where the experiment stands, in one line."""
    state = report.state
    parts = [
        state.program,
        state.status,
        f"day {report.days:.1f}".removesuffix(".0"),
        f"coverage {coverage_text(state.coverage)}",
        f"{' : '.join(state.arms)} in equal parts by {'question' if state.unit == 'inputs' else 'unit'}",
        f"plan {report.plan.sha256[:_SHA_CHARACTERS]} ({report.file})",
    ]
    return " · ".join(parts)


def remarks(report: ExperimentReport) -> list[str]:
    """Return what a reader has to know beside the verdict."""
    state, found = report.state, []
    if state.status in ("stopped", "paused"):
        reason = f": {state.reason}" if state.reason else ""
        found.append(f"It is {state.status}; all get {state.serve}{reason}.")
    elif state.status == "off":
        found.append("It has ended; the configuration file's weights assign.")
    if state.killed:
        found.append(f"Killed: {', '.join(state.killed)}.")
    if report.next_step is not None:
        due = short_duration(report.next_step.seconds) if report.next_step.seconds else "now"
        found.append(
            f"Next: coverage {coverage_text(report.next_step.coverage)}, in {due}."
            if due != "now"
            else "The next step of the ramp is due."
        )
    if report.looked_at is not None:
        late = report.at - report.looked_at > _LATE_SECONDS and state.status == "running"
        found.append(f"Looked at {when(report.looked_at)}.{' No worker looks at it.' if late else ''}")
    return found


def information(report: ExperimentReport, arm: str) -> str:
    """Return how much of the planned information there is, and what is still needed."""
    found = report.found(arm)
    if found is None or not found.information:
        return "The planned information is not known before the first look that counts."
    share = found.information_now / found.information
    text = f"{figures.percents(share, 0)} of the planned information."
    if share >= 1:
        return f"{text} Since it was reached, the interval is the always-valid one alone."
    needed = report.needed.get(arm)
    if needed is None or report.state.status != "running":
        return text
    rate = "" if needed.days is None else f", {needed.days:.1f} days at the present rate"
    return f"{text} The plan needs {needed.calls:,} calls more{rate}."


def guard_state(found: MetricFinding) -> tuple[str, str]:
    """Return the state of a metric's guard, as a kind and a text."""
    guard = found.guard
    assert guard is not None  # noqa: S101 - callers have those with a guard
    if guard.is_breached:
        return "bad", "breached"
    if guard.is_sound:
        return "good", "sound"
    return "open", f"harm not yet ruled out ({found.too_early})" if found.too_early else "harm not yet ruled out"


def margin(name: str, found: MetricFinding) -> str:
    """Return a guard's margin as the harm that is put up with."""
    limit = figures.margin(found)
    relative = found.guard is not None and found.guard.is_relative
    bound = "at most" if found.higher_is_worse else "no less than"
    return f"{bound} {figures.difference(name, limit, is_relative=relative)}"


def now(name: str, found: MetricFinding) -> str:
    """Return a metric's effect and, where it has one, its interval."""
    held = f", {figures.interval(name, found)}" if found.low is not None else ""
    return f"now {figures.effect(name, found)}{held}"


def ratio_text(report: ExperimentReport) -> str:
    """Return the sample ratio in words."""
    look = report.latest
    if look is None:
        return "No unit was looked at yet."
    counts = ", ".join(f"{arm} {look.units.get(arm, 0):,}" for arm in report.state.arms)
    is_broken = look.ratio_log_evidence >= BROKEN_LOG_EVIDENCE
    verdict = "broken" if is_broken else "sound"
    return f"Units: {counts}. The ratio is {verdict}: it is broken from 1,000 : 1 against equal parts."


def when(seconds: float) -> str:
    """Return a time for people."""
    return f"{utc(seconds):%Y-%m-%d %H:%M:%S} UTC"


def day(number: int | None) -> str:
    """Return a day since 1970."""
    return "earlier" if number is None else f"{utc(number * SECONDS_OF_DAY):%Y-%m-%d}"


def span(days: float) -> str:
    """Return a time since the start."""
    if days >= 1:
        return f"day {days:.1f}".removesuffix(".0")
    return short_duration(days * SECONDS_OF_DAY) if days else "the start"


def coverage_text(coverage: float) -> str:
    """Return a coverage without digits that say nothing."""
    return f"{coverage * 100:.3g}\u00a0%"


def _headline(report: ExperimentReport, arm: str, found: ChallengerFindings) -> Headline:
    outcome = found.outcome
    kind = "good" if outcome in _GOOD else "bad" if outcome in _BAD else "odd" if outcome in _ODD else "open"
    parts = []
    primary = found.metrics.get(report.primary)
    if primary is not None and primary.value is not None:
        least = figures.stated_difference(report.table["minimum_effect"])
        held = (
            f"{figures.interval(report.primary, primary)}, {figures.percents(report.confidence, 0)} at any time; "
            if primary.low is not None
            else ""
        )
        parts.append(
            f"{report.primary} {figures.effect(report.primary, primary)} ({held}the least that matters is {least})."
        )
    breached = ", ".join(found.breached)
    parts.append(f"Breached: {breached}." if breached else "No guard is breached." if report.table["guards"] else "")
    is_broken = report.latest is not None and report.latest.ratio_log_evidence >= BROKEN_LOG_EVIDENCE
    parts.append("The sample ratio is broken." if is_broken else "The sample ratio is sound.")
    if outcome not in ("wins", "breach", "broken") and found.because:
        parts.append(f"{found.because[0].upper()}{found.because[1:]}.")
    verdict = _HEADLINES.get(outcome, "{arm}: " + outcome.replace("{", "(") + ".")
    verdict = verdict.replace("{arm}", arm).replace("{because}", found.because)
    return Headline(kind, verdict, " ".join(part for part in parts if part))
