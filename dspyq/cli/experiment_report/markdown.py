"""Report of an experiment in Markdown: tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dspyq.cli.experiment_report import tables, texts
from dspyq.cli.experiment_report.content import ExperimentReport
from dspyq.cli.report.markdown import cell, table


def to_markdown(report: ExperimentReport) -> str:
    """Return a report as Markdown."""
    return "\n\n".join(part for part in _parts(report) if part) + "\n"


def _parts(report: ExperimentReport) -> Iterable[str]:
    yield f"# Experiment {cell(report.state.name)}"
    yield cell(texts.subtitle(report))
    for _, verdict, grounds in texts.headlines(report):
        yield f"**{cell(verdict)}** {cell(grounds)}"
    yield cell(" ".join(texts.remarks(report)))
    for arm in report.challengers:
        if lines := tables.metric_lines(report, arm):
            yield f"## {cell(arm)} beside {cell(report.state.control)}"
            yield cell(texts.information(report, arm))
            yield table(tables.metric_columns(report, arm), lines)
    if report.latest is not None:
        yield "## Sample ratio"
        yield cell(texts.ratio_text(report))
        yield table(("", *report.state.arms), tables.stage_lines(report))
    yield from _titled("Time", tables.DURATION_COLUMNS, tables.duration_lines(report))
    yield from _feedback(report)
    if report.latest is not None:
        yield "## What it cost"
        yield table(tables.COST_COLUMNS, tables.cost_lines(report))
    if report.accounts:
        yield table(tables.ACCOUNT_COLUMNS, tables.account_lines(report))
    yield from _titled("Plan", ("", "plan"), list(tables.plan_lines(report)))
    yield from _titled("Fingerprints and versions", ("", "version"), list(tables.version_lines(report)))
    yield from _titled("Log", tables.LOG_COLUMNS, tables.log_lines(report))


def _feedback(report: ExperimentReport) -> Iterable[str]:
    for name, days in report.feedback.items():
        yield from _titled(
            f"{name} by day of exposure", tables.FEEDBACK_COLUMNS, list(tables.feedback_lines(name, days))
        )


def _titled(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterable[str]:
    if lines:
        yield f"## {cell(title)}"
        yield table(columns, lines)
