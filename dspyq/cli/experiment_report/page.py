"""Report of an experiment as an HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from dspyq.cli.experiment_report import figures, plots, scatter, tables, texts
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.report.histograms import durations
from dspyq.cli.report.page import document, section, table
from dspyq.cli.report.plots import legend
from dspyq.cli.report.texts import escape


def to_html(report: ExperimentReport) -> str:
    """Return a report as a page."""
    style = (files("dspyq.cli.experiment_report") / "style.css").read_text(encoding="utf-8")
    return document(f"Experiment {report.state.name} of {report.state.program}", "".join(_parts(report)), style)


def _parts(report: ExperimentReport) -> Iterable[str]:
    yield f"<h1>{escape(report.state.name)}</h1>"
    yield f'<div class="quiet">{escape(texts.subtitle(report))}</div>\n'
    for kind, verdict, grounds in texts.headlines(report):
        yield f'<div class="verdict {kind}"><b>{escape(verdict)}</b> {escape(grounds)}</div>\n'
    if remarks := texts.remarks(report):
        yield f'<div class="remarks">{escape(" ".join(remarks))}</div>\n'
    for arm in report.challengers:
        yield _primary(report, arm)
        yield _guards(report, arm)
    yield _sample_ratio(report)
    for arm in report.challengers:
        lines = tables.metric_lines(report, arm)
        yield section(
            f"All metrics: {arm} beside {report.state.control}",
            table(tables.metric_columns(report, arm), lines) if lines else "",
        )
    yield _cost_and_quality(report)
    yield _time(report)
    yield _feedback(report)
    yield _cost(report)
    yield _plan(report)


def _primary(report: ExperimentReport, arm: str) -> str:
    drawn = plots.primary(report, arm)
    if not drawn:
        return ""
    confidence = f"interval, {figures.percents(report.confidence, 0)} at any time"
    kinds = (("band", confidence), ("computed", "effect"), ("least", "the least effect that matters"))
    steps = ", ".join(
        f"{texts.coverage_text(coverage)} from {texts.span(at)}" for at, coverage in plots.coverage_steps(report)
    )
    remark = f"{texts.information(report, arm)} Coverage: {steps}."
    return section(
        f"{report.primary}: {arm} minus {report.state.control}", f"{drawn}{legend(kinds)}<p>{escape(remark)}</p>"
    )


def _guards(report: ExperimentReport, arm: str) -> str:
    found = report.found(arm)
    parts = []
    for name, each in found.metrics.items() if found else ():
        if each.guard is None:
            continue
        kind, state = texts.guard_state(each)
        title = f"<h3>{escape(figures.title(name, report.table))}</h3>"
        line = f'<span class="state {kind}">{escape(state)}</span> · {escape(texts.margin(name, each))}'
        now = "" if each.value is None else f"<br>{escape(texts.now(name, each))}"
        parts.append(f'<div class="small">{title}<p>{line}{now}</p>{plots.guard(report, arm, name)}</div>')
    remark = "<p>Beyond the dashed margin, in the shaded part, a challenger is worse than the plan puts up with.</p>"
    return section(f"Guards of {arm}", f'<div class="multiples">{"".join(parts)}</div>{remark}' if parts else "")


def _sample_ratio(report: ExperimentReport) -> str:
    if report.latest is None:
        return ""
    arms = [arm for arm in report.state.arms if arm not in report.state.killed]
    kinds = [(f"arm{number % 4}", arm) for number, arm in enumerate(arms)]
    drawn = f'<div class="middle">{plots.shares(report)}</div>{legend(kinds)}' if report.latest.units else ""
    evidence = f'<div class="small">{plots.ratio_evidence(report)}</div>'
    stages = table(("", *report.state.arms), tables.stage_lines(report))
    return section(
        "Sample ratio",
        f"<p>{escape(texts.ratio_text(report))}</p>{drawn}<h3>Evidence against equal parts</h3>{evidence}"
        f"<h3>Stages</h3>{stages}",
    )


def _cost_and_quality(report: ExperimentReport) -> str:
    if report.latest is None:
        return ""
    quality = scatter.quality_metric(report)
    if quality is None:
        return section("Cost and quality", "<p>The plan states no score, so there is no quality beside the cost.</p>")
    drawn = scatter.cost_and_quality(report)
    if not drawn:
        return section("Cost and quality", "<p>An arm has no answer yet whose cost and quality are known.</p>")
    remark = (
        f"{quality} upwards, the cost of a computed answer to the right. A cross is the interval of a challenger's "
        "difference from the control, at any time: where it is clear of a dashed line, the difference is real."
    )
    return section("Cost and quality", f"{drawn}<p>{escape(remark)}</p>")


def _time(report: ExperimentReport) -> str:
    parts = [
        table(("", report.state.control, arm, "difference", "interval"), lines)
        for arm in report.challengers
        if (lines := tables.time_lines(report, arm))
    ]
    return section("Time", durations(report.durations, "answer") + "".join(parts))


def _feedback(report: ExperimentReport) -> str:
    parts = []
    for name, days in report.feedback.items():
        lines = list(tables.feedback_lines(name, days))
        if not lines:
            continue
        drawn = scatter.feedback(name, days, report.state.arms)
        details = f"<details><summary>Days of {escape(name)}</summary>{table(tables.FEEDBACK_COLUMNS, lines)}</details>"
        parts.append(f'<h3>{escape(name)}</h3><div class="middle">{drawn}</div>{details}')
    kinds = [(f"arm{number % 4}", arm) for number, arm in enumerate(report.state.arms)] + [("unripe", "not mature yet")]
    remark = (
        "<p>The mean judgement by day of exposure. Only mature days are compared: others are still being judged.</p>"
    )
    return section("Feedback by day of exposure", f"{remark}{''.join(parts)}{legend(kinds)}" if parts else "")


def _cost(report: ExperimentReport) -> str:
    if report.latest is None and not report.accounts:
        return ""
    arms = table(tables.COST_COLUMNS, tables.cost_lines(report)) if report.latest else ""
    accounts = table(tables.ACCOUNT_COLUMNS, tables.account_lines(report)) if report.accounts else ""
    return section(
        "What it cost", arms + (f"<h3>Budgets, of all calls: enrolled or not</h3>{accounts}" if accounts else "")
    )


def _plan(report: ExperimentReport) -> str:
    plan = table(("", "plan"), list(tables.plan_lines(report)), are_texts=True)
    versions = table(("", "version"), list(tables.version_lines(report)), are_texts=True)
    log = table(tables.LOG_COLUMNS, tables.log_lines(report)) if report.log else ""
    return section("Plan", plan) + section("Fingerprints and versions", versions) + section("Log", log)
