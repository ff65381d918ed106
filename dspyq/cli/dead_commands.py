"""``dspyq dead``: jobs that were set aside."""

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
    help="Look after jobs that were set aside: whose workers died under them too often, or that nobody can run.",
    no_args_is_help=True,
)

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Task ids, as `dspyq dead list` shows them.")]


@app.command("list")
def show_all(
    limit: Annotated[int, typer.Option(help="The most jobs to show, the latest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the jobs that were set aside, the latest first."""
    from dspyq.delivery.dead import dead_jobs

    with redis_errors("read the dead jobs"):
        rows = [_described(job) for job in dead_jobs().find(limit)]
        total = len(dead_jobs())
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
    content: Annotated[bool, typer.Option("--content", help="Its inputs too: what a user wrote.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one of them."""
    from dspyq.delivery.dead import dead_jobs
    from dspyq.delivery.job_messages import read_request

    with redis_errors("read the dead job"):
        found = dead_jobs().find(job_ids=[job_id])
    if not found:
        raise DspyqError(f"there is no dead job {job_id}")
    (job,) = found
    row: dict[str, Any] = _described(job)
    request = read_request(job.message)
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
    """Queue jobs again, as if they were new."""
    from dspyq.delivery.dead import dead_jobs

    with redis_errors("replay the jobs"):
        number = dead_jobs().replay(job_ids)
    print_count("replayed", number, as_json=as_json)


@app.command()
def drop(job_ids: IdsArgument, as_json: JsonOption = False) -> None:
    """Forget jobs for good; their callers were told when they were set aside."""
    from dspyq.celery_app import revocation as ending

    with redis_errors("drop the jobs"):
        number = ending.drop(job_ids)
    print_count("dropped", number, as_json=as_json)


def _described(job: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(job.set_aside_at, UTC).isoformat()
    return {"id": job.id, "queue": job.queue, "reason": job.reason, "lost": job.lost, "set_aside_at": at}
