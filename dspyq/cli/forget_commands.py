"""``dspyq forget``: deletes content of a tenant, of a unit or from before a day."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspyq.cli.guard_commands import forget_removed
from dspyq.console.output import JsonOption, print_error, print_json, print_text
from dspyq.errors import InvalidOption
from dspyq.prediction.tenants import check_tenant

if TYPE_CHECKING:
    from dspyq.batch.journal import Journal
    from dspyq.retention.removal import Removal


def forget(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="As of `dspyq guards forget`.", hidden=True),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Delete what a tenant's questions left.")] = None,
    unit: Annotated[str | None, typer.Option(help="Delete what a unit's questions left.")] = None,
    before: Annotated[str | None, typer.Option(help="Delete what is older than a day, as in 2026-11-30.")] = None,
    files: Annotated[
        Path | None, typer.Option(help="A folder with outputs of batches, whose journals are looked at too.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not prompt for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete content of a tenant, of a unit, or from before a day.

    That is answers, failures, streams, dead-lettered jobs, rows of experiments and comments in Redis, and with
    `--files` journals of batches and what they keep of standard input. A tenant's own key is destroyed: without it
    nothing of the tenant can be read. What could not be reached is printed.

    `dspyq guards forget` deletes what breakers, rates and limits left of removed models, programs and variants.

    Example: `dspyq forget --tenant acme --files out/ --yes` or `dspyq forget --before 2026-11-01`
    """
    whose = [each for each in (tenant, unit, before) if each is not None]
    if name is not None or not whose:
        if whose or files is not None:
            raise InvalidOption("state one of --tenant, --unit and --before alone; --files goes with those")
        print_error("`dspyq forget [NAME]` is `dspyq guards forget [NAME]` now; version 0.3 refuses it")
        forget_removed(name, as_json=as_json)
        return
    if len(whose) > 1:
        raise InvalidOption("state one of --tenant, --unit and --before")
    moment = None if before is None else _moment(before)
    if tenant is not None:
        check_tenant(tenant)
    if files is not None and (unit is not None or not files.is_dir()):
        raise InvalidOption("--files names a folder, and goes with --tenant or --before: journals name no units")
    if not yes:
        typer.confirm("Delete what is stored of it, for good?", abort=True)
    removal = _forget_content(tenant, unit, moment)
    if files is not None:
        _forget_files(files, tenant, moment, removal)
    _print(removal, as_json=as_json)


def _forget_content(tenant: str | None, unit: str | None, moment: float | None) -> Removal:
    from dspyq.retention import forgetting

    if tenant is not None:
        return forgetting.forget_tenant(tenant)
    if unit is not None:
        return forgetting.forget_unit(unit)
    return forgetting.forget_before(moment or 0.0)


def _forget_files(folder: Path, tenant: str | None, moment: float | None, removal: Removal) -> None:
    from dspyq.batch.forgetting import remove_batch_files

    def is_wanted(journal: Journal) -> bool:
        if tenant is not None:
            return journal.identity().get("tenant") == tenant
        return journal.path.stat().st_mtime < (moment or 0.0)

    removal.files, not_reached = remove_batch_files(folder, is_wanted)
    removal.not_reached += not_reached


def _moment(day: str) -> float:
    try:
        moment = datetime.fromisoformat(day).astimezone().timestamp()
    except ValueError:
        raise InvalidOption(f"--before is a day or a time, as in 2026-11-30 or 2026-11-30T12:00; not {day!r}") from None
    if moment > time.time():
        raise InvalidOption("--before lies in the future")
    return moment


def _print(removal: Removal, *, as_json: bool) -> None:
    if as_json:
        print_json(vars(removal))
        return
    print_text(
        f"removed: {removal.answers:,} cached answers, {removal.results:,} results, {removal.streams:,} streams, "
        f"{removal.dead_jobs:,} dead jobs, {removal.rows:,} rows, {removal.comments:,} comments, "
        f"{removal.calls:,} calls in lanes, {removal.files:,} files"
    )
    if removal.key_id:
        print_text(f"destroyed: the key {removal.key_id}")
    for each in removal.not_reached:
        print_text(f"not reached: {each}")
