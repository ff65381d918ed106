"""``dspyq forget``: deletes content of a tenant, a unit or from before a day, and guards' state of what is gone."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_text
from dspyq.errors import DspyqError, InvalidOption
from dspyq.prediction.tenants import check_tenant
from dspyq.store.clients import jobs_client, redis_errors

if TYPE_CHECKING:
    from dspyq.batch.journal import Journal
    from dspyq.retention.removal import Removal


def forget(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A model, PROGRAM or PROGRAM.VARIANT; all that can be, if left out."),
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
    """Delete content of a tenant, of a unit, or from before a day; or guards' state of what is configured no more.

    With `--tenant`, `--unit` or `--before`: answers, failures, streams, dead-lettered jobs and rows of experiments in
    Redis, and with `--files` journals of batches and what they keep of standard input. A tenant's own key is destroyed,
    with its comments on answers: without it nothing of the tenant can be read. What could not be reached is printed.

    Without them: breakers, rates and set limits of models, programs and variants that are not configured. Run that
    with the newest configuration, once no worker has an older one. `dspyq queues forget` deletes statistics.

    Example: `dspyq forget --tenant acme --files out/ --yes`, `dspyq forget --before 2026-11-01` or `dspyq forget`
    """
    whose = [each for each in (tenant, unit, before) if each is not None]
    if name is not None or not whose:
        if whose or files is not None:
            raise InvalidOption("state NAME alone, or one of --tenant, --unit and --before; --files goes with those")
        _forget_removed(name, as_json=as_json)
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


def _forget_removed(name: str | None, *, as_json: bool) -> None:
    from dspyq.guards import removed
    from dspyq.guards.limits import configured_scopes

    settings, client = get_settings(), jobs_client()
    with redis_errors("forget what was removed"):
        found = removed.find_leftovers(client, settings)
        if name is not None:
            found = found.of(name)
            if not found.models and not found.limits:
                scopes = {f"program:{name}", f"variant:{name}"} & configured_scopes(settings)
                is_configured = bool(scopes) or name in settings.models
                why = "it is configured" if is_configured else "nothing is kept of such a model, program or variant"
                raise DspyqError(f"{name!r} cannot be forgotten: {why}")
        removed.forget(client, found)
    if as_json:
        print_json({"models": list(found.models), "limits": list(found.limits)})
    else:
        names = [*(f"model:{model}" for model in found.models), *found.limits]
        console.print(f"forgotten: {', '.join(names) or 'nothing'}", markup=False)
