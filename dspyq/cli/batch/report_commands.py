"""``dspyq batch retry`` and ``dspyq batch report``: commands for finished batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspyq.cli.batch.running import refusals, run_and_show
from dspyq.cli.report.writing import write_report
from dspyq.console.output import JsonOption, print_text

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The batch's output, its journal beside it.")]


def retry(
    out: OutArgument,
    output: Annotated[
        Path | None, typer.Option(help="The file of the new answers; by default OUT, in place of the errors.")
    ] = None,
    input_path: Annotated[Path | None, typer.Option("--input", help="The batch's IN, where that was moved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Retry the rows that failed transiently, and no others.

    Permanent failures stay as they are. Rows that an earlier run left are sent too.

    Exit status: as of `dspyq batch run`.

    Example: `dspyq batch retry answers.jsonl`
    """
    from dspyq.batch.retry import retry_elsewhere, retry_in_place

    with refusals():
        options = retry_in_place(out, input_path) if output is None else retry_elsewhere(out, output, input_path)
    run_and_show(options, as_json=as_json)


def report(
    out: OutArgument,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML, with plots, here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here; printed if you pass neither.")] = None,
) -> None:
    """Report on a batch: by variant its cost, durations, errors and tokens, and its rows a minute over time.

    Reads OUT and its journal, also while the batch runs. It shows no inputs and no answers.

    Example: `dspyq batch report answers.jsonl --html report.html`
    """
    from dspyq.batch.reports.summary import summarize
    from dspyq.cli.batch.report import to_html, to_markdown

    with refusals():
        summary = summarize(out)
        for path, render in ((html, to_html), (markdown, to_markdown)):
            if path is not None:
                write_report(path, render(summary))
    if html is None and markdown is None:
        print_text(to_markdown(summary), end="")
