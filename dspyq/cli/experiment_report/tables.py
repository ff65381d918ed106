"""Lines of the tables of an experiment's report, as texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dspyq.cli.experiment_report import figures
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.experiment_report.texts import coverage_text, day, guard_state
from dspyq.cli.report.histograms import percentiles
from dspyq.cli.report.texts import money, short_duration, utc
from dspyq.experiments.feedback_days import FeedbackDay
from dspyq.experiments.look import MetricFinding

COST_COLUMNS = ("arm", "computed answers", "cost of one", "cost of all", "calls", "paid per call")
ACCOUNT_COLUMNS = ("account", "period", "spent", "limit")
TIME_METRICS = ("answer.time", "answer.slow", "call.waited", "call.slow_wait")
FEEDBACK_COLUMNS = ("day", "arm", "calls", "judged", "mean", "")
LOG_COLUMNS = ("time (UTC)", "version", "change", "to", "by", "reason")


def metric_columns(report: ExperimentReport, arm: str) -> tuple[str, ...]:
    """Return the titles of the table of a challenger's metrics."""
    return ("metric", report.state.control, arm, "difference", "interval", "p", "")


def metric_lines(report: ExperimentReport, arm: str) -> list[list[str]]:
    """Return the metrics of a challenger: those that decide, then the others."""
    found = report.found(arm)
    if found is None:
        return []
    ordered = sorted(found.metrics.items(), key=lambda each: (not each[1].is_primary, each[1].guard is None))
    return [
        [
            figures.title(name, report.table),
            figures.figure(name, each.control),
            figures.figure(name, each.challenger),
            figures.effect(name, each),
            figures.interval(name, each),
            figures.evidence(each.log_evidence),
            _role(each),
        ]
        for name, each in ordered
        if each.control_rows or each.challenger_rows
    ]


def stage_lines(report: ExperimentReport) -> list[list[str]]:
    """Return the stages from unit to judgement, by arm: where an arm loses rows, the arms are not alike."""
    look, arms = report.latest, report.state.arms
    if look is None:
        return []

    def counted(name: str, counts: dict[str, int]) -> list[str]:
        return [name, *(f"{counts.get(arm, 0):,}" for arm in arms)]

    def share(name: str, shares: Sequence[float | None]) -> list[str]:
        return [name, *("–" if each is None else figures.percents(each) for each in shares)]

    failed = [report.mean_of(arm, "call.failed") for arm in arms]
    lines = [
        counted("units", look.units),
        counted("calls", look.calls),
        counted("calls not counted (too many waited for one run)", look.dropped),
        share("calls answered", [None if each is None else 1 - each for each in failed]),
        share("calls answered by a fallback", [report.mean_of(arm, "call.fallback") for arm in arms]),
        share("calls answered from the cache", [report.mean_of(arm, "call.hit") for arm in arms]),
        counted("computed answers", look.answers),
    ]
    for name in report.table["scores"]:
        rows = [(report.rows_of(arm, f"answer.{name}"), look.answers.get(arm, 0)) for arm in arms]
        lines.append(share(f"answers with the score {name}", [part / all_ if all_ else None for part, all_ in rows]))
    for name in report.table["feedback"]:
        judged = [report.mean_of(arm, f"response.{name}") for arm in arms]
        lines.append(share(f"calls of mature days with {name}", judged))
    return lines


def cost_lines(report: ExperimentReport) -> list[list[str]]:
    """Return what the arms' answers have cost."""
    lines = []
    for arm in report.state.arms:
        answers, each = report.rows_of(arm, "answer.cost"), report.mean_of(arm, "answer.cost")
        calls, paid = report.rows_of(arm, "call.paid"), report.mean_of(arm, "call.paid")
        lines.append([
            arm,
            f"{answers:,}",
            figures.figure("answer.cost", each),
            money(answers * each) if each is not None else "–",
            f"{calls:,}",
            figures.figure("call.paid", paid),
        ])  # fmt: skip
    return lines


def account_lines(report: ExperimentReport) -> list[list[str]]:
    """Return what the experiment's accounts have spent."""
    return [
        [
            each.name,
            each.period or "in all",
            money(each.spent_usd),
            "–" if each.limit_usd is None else money(each.limit_usd),
        ]
        for each in report.accounts
    ]


def time_lines(report: ExperimentReport, arm: str) -> list[list[str]]:
    """Return the metrics of time of a challenger, without those that nothing has a threshold for."""
    stated = {guard["metric"] for guard in report.table["guards"]} | {report.primary}
    return [
        [
            figures.title(name, report.table),
            figures.figure(name, found.control),
            figures.figure(name, found.challenger),
            figures.effect(name, found),
            figures.interval(name, found),
        ]
        for name in TIME_METRICS
        if (found := report.metric(arm, name)) is not None
        and found.control_rows
        and (not name.partition(".")[2].startswith("slow") or name in stated)
    ]


DURATION_COLUMNS = ("computed answers", "number", "p50", "p95", "p99")


def duration_lines(report: ExperimentReport) -> list[list[str]]:
    """Return the percentiles of the arms' times, exact to 15 %; they are shown, and decide nothing."""
    return [
        [arm, f"{each.number:,}", *map(short_duration, percentiles(each).values())]
        for arm, each in report.durations.items()
        if each.number
    ]


def feedback_lines(name: str, days: Sequence[FeedbackDay]) -> Iterator[list[str]]:
    """Return the judgements of each day and arm."""
    for each in days:
        for arm, found in each.arms.items():
            share = found.judged / found.exposed if found.exposed else None
            judged = f"{found.judged:,}" + ("" if share is None else f" ({figures.percents(share, 1)})")
            mean = figures.figure(f"feedback.{name}", found.mean)
            yield [
                day(each.day),
                arm,
                f"{found.exposed:,}",
                judged,
                mean,
                "mature" if each.is_mature else "not mature yet",
            ]


def plan_lines(report: ExperimentReport) -> Iterator[list[str]]:
    """Return the plan, line by line."""
    table = report.table
    yield [
        "primary metric",
        f"{report.primary}; the least that matters is {figures.stated_difference(table['minimum_effect'])}",
    ]
    yield ["chance of a false verdict", figures.percents(float(table["alpha"]), 1)]
    yield [
        "planned calls",
        f"{table['planned_calls']:,}" if table.get("planned_calls") else "as many as the least effect needs",
    ]
    yield ["at least", f"{table['at_least_days']:g} days"]
    yield ["ramp", "; ".join(_ramp_steps(table["ramp"]))]
    for guard in table["guards"]:
        stated = figures.stated_difference(guard["margin"])
        yield ["guard", f"{figures.title(guard['metric'], table)}: worse by no more than {stated}"]
    for name, span in table["scores"].items():
        share = float(span.get("share", 1.0))
        part = "" if share >= 1 else f", of {figures.percents(share, 1)} of the questions"
        yield ["score", f"{name}: {span['low']:g} to {span['high']:g}{part}"]
    for name, span in table["feedback"].items():
        yield ["feedback", f"{name}: {span['low']:g} to {span['high']:g}, for {span['window_days']} days"]
    yield ["on a breach", str(table["on_breach"])]
    yield ["on a win", str(table["on_win"])]
    yield ["draws", str(table["draws"])]
    if judge := table.get("judge"):
        yield ["judge", f"{judge['model']}, at most {money(float(judge['daily_usd']))} a day"]
    if shadow := table.get("shadow"):
        limit = f"at most {money(float(shadow['daily_usd']))} a day"
        yield [
            "shadow",
            f"{', '.join(shadow['variants'])}, {figures.percents(float(shadow['share']), 1)} of the questions, {limit}",
        ]


def version_lines(report: ExperimentReport) -> Iterator[list[str]]:
    """Return fingerprints and versions."""
    for arm, fingerprint in report.plan.fingerprints.items():
        yield [f"fingerprint of {arm}", fingerprint]
    for name, version in report.versions.items():
        yield [name, version]
    yield ["plan", report.plan.sha256]
    yield ["state", f"version {report.state.version}, start {report.state.epoch}"]


def log_lines(report: ExperimentReport) -> list[list[str]]:
    """Return the changes."""
    return [
        [
            f"{utc(each.at):%Y-%m-%d %H:%M:%S}",
            str(each.version),
            each.what,
            each.detail or "–",
            each.who,
            each.reason or "–",
        ]
        for each in report.log
    ]


def _role(found: MetricFinding) -> str:
    parts = []
    if found.is_primary:
        parts.append("primary")
    if found.guard is not None:
        parts.append(f"guard: {guard_state(found)[1]}")
    elif found.too_early:
        parts.append(f"too early: {found.too_early}")
    return ", ".join(parts)


def _ramp_steps(steps: Sequence[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        hours = f" for {step['hours']:g} h" if step.get("hours") else ""
        yield f"{coverage_text(float(step['coverage']))}{hours}"
