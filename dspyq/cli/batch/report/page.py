"""A report as a page of HTML: one file, no script, nothing fetched; light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from dspyq.batch.reports.comparison import Comparison
from dspyq.batch.reports.summary import Summary
from dspyq.cli.batch.report import plots
from dspyq.cli.batch.report.texts import (
    VARIANT_COLUMNS,
    comparison_lines,
    headline,
    money,
    retry_hint,
    rows,
    variant_cells,
    when,
)
from dspyq.core.money import to_usd

_LEGEND = (("computed", "computed"), ("shared", "cached, or shared a run"), ("failed", "failed"))


def to_html(summary: Summary) -> str:
    """Return a summary as a page."""
    style = (files("dspyq.cli.batch.report") / "style.css").read_text()
    title = escape(f"Batch of {summary.program}: {summary.output.name}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>\n'
        f"<style>\n{style}</style></head>\n<body><main>\n{''.join(_parts(summary))}</main></body></html>\n"
    )


def _parts(summary: Summary) -> Iterable[str]:
    known = (f"program {summary.program}", f"batch {summary.batch_id}" if summary.batch_id else "", when(summary))
    yield f"<h1>{escape(summary.output.name)}</h1>"
    yield f'<div class="quiet">{escape(" · ".join(part for part in known if part))}</div>\n'
    yield _tiles(summary)
    if summary.timeline is not None:
        yield _section("Rows a minute", plots.throughput(summary.timeline) + _legend())
    if summary.variants:
        table = _table(VARIANT_COLUMNS, [variant_cells(variant) for variant in summary.variants])
        yield _section("Variants", table)
        yield _section("How long runs took", plots.durations(summary.variants))
    if len(summary.variants) > 1:
        costs = [(v.variant, float(v.cost_nano_usd), money(to_usd(v.cost_nano_usd))) for v in summary.variants]
        yield _section("Cost", plots.shares(costs, "computed"))
    for comparison in summary.comparisons:
        yield _comparison(comparison)
    if summary.failed:
        yield _errors(summary)


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
    table = _table(("custom_id", "variant", "error", "can be retried"), failed, are_texts=True)
    return _section(
        "Errors",
        f'{plots.shares(counts, "failed")}<p class="hint">{escape(retry_hint(summary))}</p>'
        f"<details><summary>{shown} that failed</summary>{table}</details>",
    )


def _comparison(comparison: Comparison) -> str:
    lines = [[name, amount] for name, amount in comparison_lines(comparison)]
    remark = f"{rows(comparison.rows)} that both answered; in brackets what holds the true figure 95 times in 100."
    table = _table(("", f"{comparison.variant} against {comparison.control}"), lines, are_texts=True)
    return _section(f"{comparison.variant} beside {comparison.control}", f'<p class="quiet">{remark}</p>{table}')


def _legend() -> str:
    items = "".join(f'<span><i class="{kind}"></i>{name}</span>' for kind, name in _LEGEND)
    return f'<div class="legend">{items}</div>'


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]], *, are_texts: bool = False) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in lines)
    kind = ' class="texts"' if are_texts else ""
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n" if content else ""
