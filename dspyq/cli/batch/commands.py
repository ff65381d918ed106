"""``dspyq batch``: a file of rows in, a file of answers out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.cli.batch import report_commands
from dspyq.cli.batch.lane_options import LaneChoice, options_of_lane
from dspyq.cli.batch.running import refusals, run_and_show
from dspyq.cli.batch.schedule_commands import schedule
from dspyq.cli.program_commands import ProgramOption
from dspyq.console.output import JsonOption, console, dollars, print_json, print_table
from dspyq.store.clients import redis_errors

if TYPE_CHECKING:
    from dspyq.batch.registry import RegisteredBatch, Wanted

app = typer.Typer(help="Answer a file of rows, each row once, each question paid for once.", no_args_is_help=True)


for command in (schedule, report_commands.retry, report_commands.report):
    app.command()(command)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The batch, or the beginning of its id.")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="IN", help="JSON lines, CSV or Parquet; `-` for standard input.")],
    output: Annotated[
        Path | None, typer.Option(help="OUT, with its journal beside it. The same command again goes on.")
    ] = None,
    program: ProgramOption = None,
    variant: Annotated[str | None, typer.Option(help="One variant for all rows; else each row's own.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="The tenant of the rows: its account, its cached answers, its books.")
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Ask every variant, for comparison.")] = False,
    score: Annotated[bool, typer.Option("--score", help="Score every answer by the program's scorers.")] = False,
    cluster: Annotated[
        str | None, typer.Option(metavar="FIELD", help="With --paired: a row's document or user, for honest intervals.")
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Write OUT in the order of IN.")] = False,
    max_usd: Annotated[float | None, typer.Option(help="The most the batch may cost.", min=0)] = None,
    budget_share: Annotated[
        float | None, typer.Option(help="The most it may use of the rest of the day's budget.", min=0, max=1)
    ] = None,
    rate_share: Annotated[
        float | None, typer.Option(help="The most it may take of a model's rate limit.", min=0, max=1)
    ] = None,
    lane: Annotated[
        LaneChoice | None,
        typer.Option(
            help="`provider`: by its batch interface, within a day; what is left for too little money is made live, or "
            "with `provider,stop` not at all. `flex`: at its flex tier. Else live."
        ),
    ] = None,
    finish_by: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="With --lane: what is not there by then is made live in time.")
    ] = None,
    window: Annotated[str | None, typer.Option(help="The hours in which it runs, such as 22:00-06:00.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="The time zone of --window and --finish-by; by default the budget's.")
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            help="The most rows on their way; 2000, or 50000 with --lane provider.", min=1, show_default=False
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="Its priority: 0 (most urgent) to 9.", min=0, max=9)] = 9,
    name: Annotated[str, typer.Option(help="What lists call it.")] = "",
    format: Annotated[str | None, typer.Option(help="jsonl, csv or parquet; else by the name.")] = None,  # noqa: A002 - the option's name
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; return once it has begun.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show its cost and time, and run nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer every row of IN, or resume where an earlier run of the same command ended.

    Exit status: 0 if every row has an answer, 1 if some failed or are left, 2 if the batch could not be run.

    Example: `dspyq batch run questions.jsonl --program qa --output answers.jsonl`
    """
    from dspyq.batch.options import BatchOptions
    from dspyq.config.settings import get_settings
    from dspyq.core.window import Window
    from dspyq.prediction.tenants import check_tenant

    source = None if str(file) == "-" else file
    if timezone is not None and window is None and finish_by is None:
        raise typer.BadParameter("--timezone is that of --window and --finish-by: give one, or leave it out")
    with refusals():
        zone = timezone or get_settings().budget.timezone
        if tenant is not None:
            check_tenant(tenant)
        try:
            hours = None if window is None else Window.parse(window, zone)
        except ValueError as error:
            raise typer.BadParameter(f"--window: {error}") from None
        lane_options = options_of_lane(lane, finish_by, zone)
        if dry_run:
            from dspyq.batch.quotes.quote import QuoteOptions
            from dspyq.cli.batch.quote import show_quote

            quoted = QuoteOptions(
                variant, paired, max_usd, hours, cluster, tenant, lane_options.lane, lane_options.finish_by
            )
            show_quote(source, program, quoted, format=format, as_json=as_json)
            return
        if output is None:
            raise typer.BadParameter("state the file of answers with --output")
        if detach:
            from dspyq.cli.batch.detach import run_detached

            raise typer.Exit(run_detached(output, as_json=as_json))
        options = BatchOptions(
            input=source,
            output=output,
            program=program,
            variant=variant,
            tenant=tenant,
            is_ordered=ordered,
            is_paired=paired,
            cluster=cluster,
            is_scored=score,
            in_flight_rows=in_flight or lane_options.in_flight_rows,
            max_usd=max_usd,
            budget_share=budget_share,
            rate_share=rate_share,
            window=hours,
            priority=priority,
            name=name,
            format=format,
            lane=lane_options.lane,
            rest_goes_live=lane_options.rest_goes_live,
            finish_by=lane_options.finish_by,
        )
    run_and_show(options, as_json=as_json)


@app.command("list")
def show_all(
    limit: Annotated[int, typer.Option(help="The most to show, the latest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List batches, those of other hosts too."""
    from dspyq.batch.registry import process_registry

    with refusals(), redis_errors("read the batches"):
        batches = process_registry().all()[:limit]
    if as_json:
        print_json([_described(batch) for batch in batches])
        return
    if not batches:
        console.print("There is no batch.")
        return
    columns = ["id", "name", "state", "done", "of", "failed", "spent", "started (UTC)", "on"]
    print_table("Batches", columns, [_row(batch) for batch in batches])


@app.command()
def status(batch_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show one batch."""
    from dspyq.batch.registry import process_registry

    with refusals(), redis_errors("read the batch"):
        batch = process_registry().find(batch_id)
    _show(batch, as_json=as_json)


@app.command()
def pause(batch_id: IdArgument, as_json: JsonOption = False) -> None:
    """Pause a batch: jobs that have not begun are recalled, and nothing is sent until it is resumed.

    Shipments at a provider go on and are collected.
    """
    _want(batch_id, "pause", as_json=as_json)


@app.command()
def resume(batch_id: IdArgument, as_json: JsonOption = False) -> None:
    """Resume a paused batch."""
    _want(batch_id, "run", as_json=as_json)


@app.command()
def cancel(batch_id: IdArgument, as_json: JsonOption = False) -> None:
    """End a batch: jobs that have not begun are freed, unpaid. Other callers of the same questions get their answers.

    Shipments in which it alone has calls are cancelled at the provider; what is finished there is paid.

    Finished rows are kept, and the same command as before resumes with the others.
    """
    _want(batch_id, "cancel", as_json=as_json)


def _want(stated: str, wanted: Wanted, *, as_json: bool) -> None:
    from dspyq.batch.registry import process_registry
    from dspyq.client.spread_bulk import process_bulk

    with refusals(), redis_errors(f"{wanted} the batch"):
        registry = process_registry()
        batch = registry.want(registry.find(stated).id, wanted)
        if wanted == "cancel" and not batch.is_alive:
            registry.free(batch.id, process_bulk())
        batch = registry.find(batch.id)
    _show(batch, as_json=as_json)


def _show(batch: RegisteredBatch, *, as_json: bool) -> None:
    facts = _described(batch)
    if as_json:
        print_json(facts)
        return
    print_table(f"Batch {batch.id}", ["", ""], [[name.replace("_", " "), str(value)] for name, value in facts.items()])
    if batch.state == "not running":
        console.print(f"Not running since {facts['seen_at']}: run the same command again to go on.")


def _described(batch: RegisteredBatch) -> dict[str, Any]:
    texts = {name: batch.facts.get(name, "") for name in ("name", "program", "input", "output", "host", "pid", "pause")}
    counts = ("rows", "done", "ok", "failed", "cached", "joined", "in_flight")
    return {
        "id": batch.id,
        "state": batch.state,
        "wanted": batch.facts.get("wanted", "run"),
        **texts,
        **{name: int(batch.facts.get(name, 0)) for name in counts},
        "is_read": batch.facts.get("is_read") == "1",
        "spent_usd": float(batch.facts.get("spent_usd", 0)),
        "rows_per_second": round(float(batch.facts.get("rows_per_second", 0)), 1),
        "waits_for": batch.facts.get("waits_for", "") if batch.state == "running" else "",
        **_lane_of(batch.facts),
        "started_at": _at(batch.facts["started_at"]),
        "seen_at": _at(batch.facts["seen_at"]),
    }


def _lane_of(facts: dict[str, str]) -> dict[str, Any]:
    """Return what the runner of a batch with a lane states of it."""
    if not facts.get("lane"):
        return {}
    counts = ("round", "asleep", "shipments", "oldest_shipment_seconds", "woken")
    lane: dict[str, Any] = {"lane": facts["lane"], **{name: int(facts[name]) for name in counts if name in facts}}
    if finish_at := facts.get("finish_at"):
        lane |= {"finish_at": _at(finish_at), "lane_stage": facts.get("lane_stage", "lane")}
    return lane


def _row(batch: RegisteredBatch) -> list[str]:
    facts = _described(batch)
    rows = f"{facts['rows']:,}" + ("" if facts["is_read"] else "+")
    spent, started = dollars(facts["spent_usd"]), facts["started_at"][:19]
    counts = [f"{facts['done']:,}", rows, f"{facts['failed']:,}"]
    return [batch.id, facts["name"], batch.state, *counts, spent, started, facts["host"]]


def _at(seconds: str) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="seconds")
