"""``dspyq batch schedule``: the schedule of configured batches, and their last runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.console.output import JsonOption, console, print_json, print_table
from dspyq.errors import BatchRefused, ConfigurationError
from dspyq.store.clients import redis_errors

if TYPE_CHECKING:
    from dspyq.batch.schedule import ScheduledTime
    from dspyq.config.batches import ScheduledBatch


def schedule(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One batch, with its last times.")] = None,
    last: Annotated[int, typer.Option(help="How many last times of one batch to show.", min=1, max=200)] = 14,
    again: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run a failed or skipped time again, as in 2026-11-24T22:00.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the next times of the configured batches, and the outcome of the last ones.

    Example: `dspyq batch schedule nightly --again 2026-11-24T22:00`
    """
    from dspyq.batch.schedule import process_schedule
    from dspyq.config.settings import get_settings

    batches = get_settings().batches
    if name is not None and name not in batches:
        raise ConfigurationError(f"there is no [batches.{name}] table; there are: {', '.join(batches) or 'none'}")
    if again is not None:
        if name is None:
            raise typer.BadParameter("--again needs the batch's name")
        with redis_errors("change the schedule"):
            if not process_schedule().again(name, again):
                raise BatchRefused(f"{again} of {name} has neither failed nor been skipped: see dspyq batch schedule")
    wanted = [batches[name]] if name is not None else list(batches.values())
    with redis_errors("read the schedule"):
        times = {batch.name: process_schedule().times(batch.name, last if name else 1) for batch in wanted}
    if as_json:
        print_json([_described(batch, times[batch.name]) for batch in wanted])
    elif not wanted:
        console.print("There are no scheduled batches: add a [batches.NAME] table to the configuration.")
    elif name is not None:
        _show_one(wanted[0], times[name])
    else:
        _show_all(wanted, times)


def _show_all(batches: list[ScheduledBatch], times: dict[str, list[ScheduledTime]]) -> None:
    rows = []
    for batch in batches:
        last = times[batch.name][0] if times[batch.name] else None
        rows.append(
            [batch.name, batch.schedule, batch.timezone, _next(batch), last.label if last else "–", _came(last)]
        )
    print_table("Scheduled batches", ["name", "schedule", "timezone", "next", "last", "came of it"], rows)


def _show_one(batch: ScheduledBatch, times: list[ScheduledTime]) -> None:
    rows = [[each.label, _came(each), _at(each.started_at), _at(each.ended_at)] for each in times]
    title = f"{batch.name}: {batch.schedule} {batch.timezone}, next {_next(batch)}"
    print_table(title, ["time", "came of it", "started (UTC)", "ended (UTC)"], rows)
    for each in times:
        if each.note:
            console.print(f"{each.label} {each.note}", highlight=False, markup=False, soft_wrap=True)


def _next(batch: ScheduledBatch) -> str:
    return batch.crontab.next_after(time.time()).label


def _came(last: ScheduledTime | None) -> str:
    if last is None:
        return "–"
    if last.is_lost:
        return "running, but its runner is silent"
    lost = f", its runner lost {last.losses} times" if last.losses else ""
    return (f"failed ({last.exit_code})" if last.state == "failed" and last.exit_code else last.state) + lost


def _at(seconds: float | None) -> str:
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _described(batch: ScheduledBatch, times: list[ScheduledTime]) -> dict[str, Any]:
    upcoming = batch.crontab.next_after(time.time())
    return {
        "name": batch.name,
        "schedule": batch.schedule,
        "timezone": batch.timezone,
        "window": batch.window_text,
        "next": {"label": upcoming.label, "due_at": upcoming.due_at},
        "times": [each._asdict() for each in times],
    }
