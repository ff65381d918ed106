"""Report in Markdown: tables, and lines of block characters for plots."""

from __future__ import annotations

import math
from collections.abc import Iterable

from dspyq.batch.reports.summary import Summary, Timeline
from dspyq.cli.batch.report.texts import (
    VARIANT_COLUMNS,
    clock,
    clusters_remark,
    comparison_lines,
    headline,
    retry_hint,
    rows_a_minute,
    variant_cells,
    when,
)
from dspyq.cli.report.markdown import cell, table

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLOT_COLUMNS = 60


def to_markdown(summary: Summary) -> str:
    """Return a summary as Markdown."""
    return "\n\n".join(part for part in _parts(summary) if part) + "\n"


def _parts(summary: Summary) -> Iterable[str]:
    yield f"# Batch of {cell(summary.program)}: {cell(summary.output.name)}"
    yield " · ".join(
        part for part in (f"batch {cell(summary.batch_id)}" if summary.batch_id else "", when(summary)) if part
    )
    figures = [[name, amount, remark] for name, amount, remark in headline(summary)]
    yield table(("", "", ""), figures)
    if summary.timeline is not None:
        yield "## Rows a minute"
        yield _plot(summary.timeline)
    if summary.variants:
        yield "## Variants"
        yield table(VARIANT_COLUMNS, [variant_cells(variant) for variant in summary.variants])
    for comparison in summary.comparisons:
        yield f"## {cell(comparison.variant)} beside {cell(comparison.control)}"
        yield clusters_remark(comparison)
        yield table(("", comparison.variant), [list(line) for line in comparison_lines(comparison)])
    if summary.failed:
        yield "## Errors"
        errors = summary.failed_by_type.most_common()
        yield table(("error", "rows"), [[kind, f"{number:,}"] for kind, number in errors])
        yield cell(retry_hint(summary))


def _plot(timeline: Timeline) -> str:
    """Return a line of blocks, each as high as the rows of its time."""
    totals = [bar.computed + bar.shared + bar.failed for bar in timeline.bars]
    each = -(-len(totals) // _PLOT_COLUMNS)
    means = [sum(totals[start : start + each]) / each for start in range(0, len(totals), each)]
    highest = max(means)
    blocks = "".join(_BLOCKS[math.ceil(mean / highest * (len(_BLOCKS) - 1))] for mean in means)
    first, last = timeline.bars[0].starts_at, timeline.bars[-1].starts_at + timeline.bar_seconds
    start, end = clock(first, timeline), clock(last, timeline)
    axis = f"{start}  {end:>{max(0, len(blocks) - len(start) - 2)}}"
    return f"```\n{blocks}\n{axis} UTC, at most {rows_a_minute(max(totals), timeline):,.0f} a minute\n```"
