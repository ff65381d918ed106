"""``dspyq experiment export``: the rows that an experiment kept, as examples for an optimizer and rows for a batch."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from dspyq.console.output import JsonOption, console, print_json
from dspyq.console.periods import read_period
from dspyq.errors import DspyqError, ExperimentRefused
from dspyq.experiments import administration
from dspyq.experiments.export import ExportedRow, choose_rows, split_rows
from dspyq.experiments.rows import read_rows
from dspyq.experiments.state import ExperimentState


def export(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program's name.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, JSONL; one that is there is replaced.")],
    since: Annotated[str, typer.Option("--since", help="How far back, as in 14d, 12h or 30m; all by default.")] = "",
    with_feedback: Annotated[
        bool, typer.Option("--with-feedback", help="State the mean judgements of callers, and their number.")
    ] = False,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="NAME=VALUE", help="The least score or mean judgement of a row; repeatable."),
    ] = None,
    split: Annotated[
        float | None,
        typer.Option(
            "--split",
            min=0.01,
            max=0.99,
            help="The part of all questions to write; the others go, as rows of a batch, into a second file.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the questions and answers that an experiment kept (`keep_rows` in its table), each question once.

    `dspyq.examples.read(path)` reads them for an optimizer. With `--split 0.8 --out rows.jsonl`, a fifth of the
    questions goes into `rows.held-out.jsonl`, for `dspyq batch run`; a question is always on the same side.

    Example: `dspyq experiment export qa --since 14d --min grounded=0.8 --split 0.8 --out rows.jsonl`
    """
    minimums = dict(map(_minimum, least or []))
    began_at = time.time() - read_period(since, "--since") if since else 0.0
    state, table = _experiment(program)
    rows = choose_rows(read_rows(state, began_at), table, minimums)
    written, held_out = (rows, []) if split is None else split_rows(rows, split)
    _write(out, [row.stated(state.name, with_feedback=with_feedback) for row in written])
    shown: dict[str, Any] = {"rows": len(written), "out": str(out)}
    if split is not None:
        beside = out.with_name(f"{out.stem}.held-out{out.suffix or '.jsonl'}")
        _write(beside, map(_batch_row, held_out))
        shown |= {"held_out_rows": len(held_out), "held_out": str(beside)}
    if as_json:
        print_json(shown)
        return
    console.print(f"{shown['rows']} rows in {shown['out']}")
    if split is not None:
        console.print(f"{shown['held_out_rows']} rows in {shown['held_out']}")


def _experiment(program: str) -> tuple[ExperimentState, dict[str, Any]]:
    state, plan = administration.read_state(program), administration.read_plan(program)
    if state is None or plan is None:
        raise ExperimentRefused(f"{program} has no experiment; start one: dspyq experiment start {program}")
    if not plan.table.get("keep_rows"):
        raise ExperimentRefused(
            f"the experiment {state.name} keeps no rows: state the most rows to keep, "
            f"programs.{program}.experiment.keep_rows, before an experiment starts"
        )
    return state, plan.table


def _batch_row(row: ExportedRow) -> dict[str, Any]:
    return {"custom_id": row.row.question, "inputs": row.row.inputs}


def _minimum(stated: str) -> tuple[str, float]:
    name, _, value = stated.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise DspyqError("--min: state NAME=VALUE with a number, as in grounded=0.8") from None


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a file as a whole, readable by its owner alone: it holds what users asked.

    Raises:
        DspyqError: If it cannot be written.
    """
    try:
        descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
            Path(written).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(written).unlink()
            raise
    except OSError as error:
        raise DspyqError(f"cannot write {path}: {error.strerror or type(error).__name__}") from None
