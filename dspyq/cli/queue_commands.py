"""``dspyq queues``: list queues with jobs, and clean up those without workers."""

from __future__ import annotations

from typing import Annotated

import typer

from dspyq.console.output import JsonOption, print_count, print_json, print_table, seconds
from dspyq.errors import DspyqError
from dspyq.store.clients import redis_errors

app = typer.Typer(
    help="Look at queues, empty them, and forget what removed programs and variants left.", no_args_is_help=True
)


@app.command("list")
def show_all(as_json: JsonOption = False) -> None:
    """List all queues: configured ones, and others that hold jobs or left statistics or bindings."""
    from dspyq.delivery.queues import FleetQueues

    with redis_errors("read the queues"):
        queues = FleetQueues().all()
    if as_json:
        print_json([queue._asdict() for queue in queues])
        return
    rows = [
        [
            queue.name,
            f"{queue.waiting:,}",
            f"{queue.delayed:,}",
            f"{queue.leased:,}",
            seconds(queue.oldest_age_seconds) if queue.waiting else "",
            "yes" if queue.is_configured else "NO",
            "yes" if queue.is_served else "NO",
        ]
        for queue in queues
    ]
    print_table("Queues", ["queue", "waiting", "delayed", "leased", "oldest", "configured", "served"], rows)


@app.command()
def drain(name: Annotated[str, typer.Argument(metavar="QUEUE")], as_json: JsonOption = False) -> None:
    """End all jobs of a queue that no worker holds; their callers get `TaskRevokedError`, their questions are free."""
    from dspyq.celery_app import revocation
    from dspyq.delivery.queues import FleetQueues

    with redis_errors("drain the queue"):
        if name not in {queue.name for queue in FleetQueues().all()}:
            raise DspyqError(f"there is no queue {name!r}: see dspyq queues list")
        done: set[str] = set()
        while ids := [job_id for job_id in FleetQueues().job_ids(name) if job_id not in done]:
            revocation.revoke(ids)
            done.update(ids)
    print_count("ended", len(done), as_json=as_json)


@app.command()
def forget(
    name: Annotated[str | None, typer.Argument(metavar="QUEUE", help="All that can be forgotten, if left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete statistics and bindings of queues that hold no jobs, have no worker and are configured nowhere."""
    from dspyq.delivery.queues import FleetQueues

    with redis_errors("forget the queue"):
        found = [queue for queue in FleetQueues().all() if name in {None, queue.name}]
        idle = [queue.name for queue in found if not queue.jobs and not queue.is_configured and not queue.is_served]
        if name and not idle:
            why = "there is no such queue" if not found else "it is configured, served or holds jobs: dspyq queues list"
            raise DspyqError(f"queue {name!r} cannot be forgotten: {why}")
        number = FleetQueues().forget(idle)
    print_count("forgotten", number, as_json=as_json)
