"""Report on a batch as an HTML page."""

from __future__ import annotations

from collections.abc import Iterable

from dspyq.batch.reports.comparison import Comparison
from dspyq.batch.reports.summary import Summary
from dspyq.cli.batch.report import plots
from dspyq.cli.batch.report.texts import (
    SHIPMENT_COLUMNS,
    VARIANT_COLUMNS,
    clusters_remark,
    comparison_lines,
    headline,
    retry_hint,
    rows,
    shipment_cells,
    variant_cells,
    when,
)
from dspyq.cli.report.histograms import durations
from dspyq.cli.report.page import document, section, table
from dspyq.cli.report.plots import legend, shares
from dspyq.cli.report.texts import escape, money
from dspyq.core.money import to_usd

_LEGEND = (("computed", "computed"), ("shared", "cached, or shared a run"), ("failed", "failed"))
_SHIPMENTS = (
    ("shared", "waits"),
    ("computed", "at the provider"),
    ("failed", "at the provider, which left some calls undone"),
)

_OF_LANES = (
    "A row in the provider's lane runs once in each round: this is its last run, without the time at the provider."
)


def to_html(summary: Summary) -> str:
    """Return a summary as a page."""
    return document(f"Batch of {summary.program}: {summary.output.name}", "".join(_parts(summary)))


def _parts(summary: Summary) -> Iterable[str]:
    known = (f"program {summary.program}", f"batch {summary.batch_id}" if summary.batch_id else "", when(summary))
    yield f"<h1>{escape(summary.output.name)}</h1>"
    yield f'<div class="quiet">{escape(" · ".join(part for part in known if part))}</div>\n'
    yield _tiles(summary)
    if summary.timeline is not None:
        yield section("Rows a minute", plots.throughput(summary.timeline) + legend(_LEGEND))
    if summary.shipments:
        yield _shipments(summary)
    if summary.variants:
        variants = table(VARIANT_COLUMNS, [variant_cells(variant) for variant in summary.variants])
        yield section("Variants", variants)
        runs = durations({v.variant: v.durations for v in summary.variants}, "row")
        yield section(
            "How long runs took", runs + (f'<p class="hint">{_OF_LANES}</p>' if runs and summary.shipments else "")
        )
    if len(summary.variants) > 1:
        costs = [(v.variant, float(v.cost_nano_usd), money(to_usd(v.cost_nano_usd))) for v in summary.variants]
        yield section("Cost", shares(costs, "computed"))
    for comparison in summary.comparisons:
        yield _comparison(comparison)
    if summary.failed:
        yield _errors(summary)


def _shipments(summary: Summary) -> str:
    shown = summary.shipments[-plots.MOST_SHIPMENTS :]
    title = "Shipments" if len(shown) == len(summary.shipments) else f"The last {len(shown)} shipments"
    lines = table(SHIPMENT_COLUMNS, map(shipment_cells, shown))
    details = f"<details><summary>Each of them</summary>{lines}</details>"
    return section(title, plots.shipments(shown) + legend(_SHIPMENTS) + details)


def _tiles(summary: Summary) -> str:
    tiles = []
    for name, amount, remark in headline(summary):
        is_bad = name in {"failed", "not done"} and amount != "0"
        kind = "tile bad" if is_bad else "tile"
        tiles.append(
            f'<div class="{kind}"><span>{escape(name)}</span><b>{escape(amount)}</b><span>{escape(remark)}</span></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _errors(summary: Summary) -> str:
    counts = [(kind, float(number), f"{number:,}") for kind, number in summary.failed_by_type.most_common()]
    failed = [
        [row.custom_id, row.variant or "–", row.error_type, "yes" if row.is_retryable else "no"]
        for row in summary.failed_rows
    ]
    shown = "The rows" if len(failed) == summary.failed else f"The first {rows(len(failed))}"
    failures = table(("custom_id", "variant", "error", "can be retried"), failed, are_texts=True)
    return section(
        "Errors",
        f'{shares(counts, "failed")}<p class="hint">{escape(retry_hint(summary))}</p>'
        f"<details><summary>{shown} that failed</summary>{failures}</details>",
    )


def _comparison(comparison: Comparison) -> str:
    lines = [[name, amount] for name, amount in comparison_lines(comparison)]
    remark = clusters_remark(comparison)
    differences = table(("", f"{comparison.variant} against {comparison.control}"), lines, are_texts=True)
    return section(f"{comparison.variant} beside {comparison.control}", f'<p class="quiet">{remark}</p>{differences}')
