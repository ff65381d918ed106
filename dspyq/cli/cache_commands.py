"""``dspyq cache``: statistics, warming, invalidating, clearing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dspyq.cli.program_commands import ProgramOption, TenantOption, VariantOption, read_inputs
from dspyq.console.output import JsonOption, console, print_count, print_json, print_table
from dspyq.errors import DspyqError, InvalidInputs

app = typer.Typer(help="Look after the cache of answers.", no_args_is_help=True)

_WARM_ROWS = 200


@app.command()
def stats(as_json: JsonOption = False) -> None:
    """Show the cache's size, and its hits by level, over all producers and workers."""
    from dspyq.cache.admin import cache_statistics

    statistics = cache_statistics()
    if as_json:
        print_json(asdict(statistics))
        return
    print_table(
        "Cache", ["", ""], [[name.replace("_", " "), f"{value:,}"] for name, value in asdict(statistics).items()]
    )


@app.command()
def warm(
    file: Annotated[Path, typer.Argument(help="Rows of inputs: JSON lines, CSV or Parquet.", exists=True)],
    program: ProgramOption = None,
    variant: Annotated[str | None, typer.Option(help="Force one variant; else each row's own.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="jsonl, csv or parquet; else by the name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer every question of a file, so that later callers find the answers in the cache.

    Questions with a cached answer cost nothing. Warming has a lower priority than other predictions.

    Example: `dspyq cache warm questions.jsonl --program qa`
    """
    from dspyq import predict
    from dspyq.client.asking import LEAST_URGENT

    rows = list(_read_rows(file, program, form))
    counts = {"rows": len(rows), "computed": 0, "cached": 0, "failed": 0}
    columns = (TextColumn("warming"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal) as progress:
        bar = progress.add_task("warming", total=len(rows))
        for start in range(0, len(rows), _WARM_ROWS):
            window = rows[start : start + _WARM_ROWS]
            for job in predict.many(window, program=program, variant=variant, priority=LEAST_URGENT):
                try:
                    counts["cached" if job.get().metadata.cached else "computed"] += 1
                except DspyqError:
                    counts["failed"] += 1
                progress.advance(bar)
    if as_json:
        print_json(counts)
    else:
        console.print(
            f"{counts['rows']:,} rows: " + ", ".join(f"{counts[k]:,} {k}" for k in ("computed", "cached", "failed"))
        )
    if counts["failed"]:
        raise typer.Exit(1)


@app.command()
def invalidate(
    inputs: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="The question, or one JSON object.")],
    program: ProgramOption = None,
    variant: VariantOption = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget the answers to one question.

    Example: `dspyq cache invalidate --program qa question="What is a task queue?"`
    """
    from dspyq.cache.admin import invalidate as forget

    number = forget(read_inputs(inputs, program), program=program, variant=variant, tenant=tenant)
    print_count("forgotten", number, as_json=as_json)


@app.command()
def clear(
    program: ProgramOption = None,
    variant: VariantOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The answers of every program.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget the answers of a program, of one variant, or all.

    Example: `dspyq cache clear --program qa --variant control`
    """
    from dspyq.cache.admin import clear as forget

    if everything == bool(program or variant):
        raise typer.BadParameter("use --program, with or without --variant, or --all")
    print_count("forgotten", forget(program=program, variant=variant), as_json=as_json)


def _read_rows(file: Path, program: str | None, form: str | None) -> Iterator[dict[str, Any]]:
    from dspyq.batch.files.source import open_source
    from dspyq.core.scratch import scratch_folder
    from dspyq.prediction.request import find_program

    with scratch_folder() as folder:
        for row in open_source(file, spool=folder / "input", format=form).rows(find_program(program)):
            if row.inputs is None:
                raise InvalidInputs(f"{file}, {row.fault.message if row.fault else row.where}")
            yield row.inputs
