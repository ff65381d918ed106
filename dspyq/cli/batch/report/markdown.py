"""A report in Markdown: tables, and lines of blocks for plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dspyq.batch.reports.summary import Summary, Timeline
from dspyq.cli.batch.report.texts import (
    VARIANT_COLUMNS,
    clock,
    comparison_lines,
    headline,
    retry_hint,
    rows,
    rows_a_minute,
    variant_cells,
    when,
)

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLOT_COLUMNS = 60


def to_markdown(summary: Summary) -> str:
    """Return a summary as Markdown."""
    return "\n\n".join(part for part in _parts(summary) if part) + "\n"


def _parts(summary: Summary) -> Iterable[str]:
    yield f"# Batch of {summary.program}: {_cell(summary.output.name)}"
    yield " · ".join(part for part in (f"batch {summary.batch_id}" if summary.batch_id else "", when(summary)) if part)
    figures = [[name, amount, remark] for name, amount, remark in headline(summary)]
    yield _table(("", "", ""), figures)
    if summary.timeline is not None:
        yield "## Rows a minute"
        yield _plot(summary.timeline)
    if summary.variants:
        yield "## Variants"
        yield _table(VARIANT_COLUMNS, [variant_cells(variant) for variant in summary.variants])
    for comparison in summary.comparisons:
        yield f"## {comparison.variant} beside {comparison.control}"
        yield f"{rows(comparison.rows)} that both answered; in brackets what holds the true figure 95 times in 100."
        yield _table(("", comparison.variant), [list(line) for line in comparison_lines(comparison)])
    if summary.failed:
        yield "## Errors"
        errors = summary.failed_by_type.most_common()
        yield _table(("error", "rows"), [[kind, f"{number:,}"] for kind, number in errors])
        yield retry_hint(summary)


def _plot(timeline: Timeline) -> str:
    """A line of blocks, each as high as the rows of its time."""
    totals = [bar.computed + bar.shared + bar.failed for bar in timeline.bars]
    each = -(-len(totals) // _PLOT_COLUMNS)
    means = [sum(totals[start : start + each]) / each for start in range(0, len(totals), each)]
    highest = max(means)
    blocks = "".join(_BLOCKS[math.ceil(mean / highest * (len(_BLOCKS) - 1))] for mean in means)
    first, last = timeline.bars[0].starts_at, timeline.bars[-1].starts_at + timeline.bar_seconds
    axis = f"{clock(first, timeline)}{clock(last, timeline):>{max(6, len(blocks) - 8)}}"
    return f"```\n{blocks}\n{axis} UTC, at most {rows_a_minute(max(totals), timeline):,.0f} a minute\n```"


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (columns, rule, *lines))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
