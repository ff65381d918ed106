"""``dspyq dead``: dead-lettered jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.text import Text

from dspyq.console.output import JsonOption, console, print_count, print_json, print_table
from dspyq.errors import DspyqError
from dspyq.store.clients import redis_errors

app = typer.Typer(
    help="Manage dead-lettered jobs: their workers died too often, or no worker can run them.",
    no_args_is_help=True,
)

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Task ids, as `dspyq dead list` shows them.")]


@app.command("list")
def show_all(
    limit: Annotated[int, typer.Option(help="The most jobs to show, the latest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead-lettered jobs, the latest first."""
    from dspyq.delivery.dead import count_dead, find_dead

    with redis_errors("read the dead jobs"):
        rows = [_described(job) for job in find_dead(limit)]
        total = count_dead()
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("No job was set aside.")
        return
    table = [[row["id"], row["queue"], row["set_aside_at"][:19], row["reason"]] for row in rows]
    print_table(f"{total:,} jobs were set aside", ["id", "queue", "at (UTC)", "reason"], table)


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    content: Annotated[bool, typer.Option("--content", help="Show its inputs too, which users wrote.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a dead-lettered job."""
    from dspyq.delivery.dead import find_dead
    from dspyq.delivery.job_messages import request_of_message

    with redis_errors("read the dead job"):
        found = find_dead(job_ids=[job_id])
    if not found:
        _refuse([job_id])
    (job,) = found
    row: dict[str, Any] = _described(job)
    request = request_of_message(job.message)
    row |= {"task": request.task, "origin": request.origin} if request else {"task": "(its message cannot be read)"}
    if content:
        row["content"] = to_jsonable_python(request.kwargs) if request else job.message.decode(errors="replace")
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        console.print(Text(f"{name:>12}", style="dim"), Text(str(value)))


@app.command()
def replay(job_ids: IdsArgument, as_json: JsonOption = False) -> None:
    """Queue jobs again, as if they were new; their callers' errors are withdrawn."""
    from dspyq.celery_app import revocation

    with redis_errors("replay the jobs"):
        missing = _missing(job_ids)
        number = revocation.replay_dead_jobs(job_ids)
    print_count("replayed", number, as_json=as_json)
    _refuse(missing)


@app.command()
def drop(job_ids: IdsArgument, as_json: JsonOption = False) -> None:
    """Delete jobs for good; their callers got an error when the jobs were dead-lettered."""
    from dspyq.celery_app import revocation

    with redis_errors("drop the jobs"):
        missing = _missing(job_ids)
        number = revocation.drop_dead_jobs(job_ids)
    print_count("dropped", number, as_json=as_json)
    _refuse(missing)


def _missing(job_ids: list[str]) -> list[str]:
    """Return those of these jobs that were not set aside, or are gone."""
    from dspyq.delivery.dead import find_dead

    found = {job.id for job in find_dead(job_ids=job_ids)}
    return [job_id for job_id in job_ids if job_id not in found]


def _refuse(missing: list[str]) -> None:
    if missing:
        raise DspyqError(f"there is no dead job {', '.join(missing)}: see dspyq dead list")


def _described(job: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(job.set_aside_at, UTC).isoformat()
    return {"id": job.id, "queue": job.queue, "reason": job.reason, "lost": job.lost, "set_aside_at": at}
