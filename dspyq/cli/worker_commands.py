"""``dspyq worker``: its help and completion; ``dspyq.__main__`` runs it without this module."""

from __future__ import annotations

from typing import Annotated

import typer


def worker(
    context: typer.Context,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of workers; by default as many as there are processors.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Predictions at once in each; by default workers.concurrency.")
    ] = None,
    app: Annotated[str, typer.Option("--app", "-A", help="The Celery application.")] = "dspyq",
    hostname: Annotated[
        str, typer.Option("--hostname", "-n", help="Their name; a number is added before the @.")
    ] = "worker",
) -> None:
    """Run workers, one for each processor, under one parent: one command, one page of metrics, one of health.

    It takes all options of `celery worker` besides: `-Q`, `--loglevel`, `--logfile=%n.log`, … A worker that ends by
    itself is started again. SIGTERM and Ctrl-C let running predictions finish for delivery.shutdown_grace_seconds; a
    second one, or SIGQUIT, does not. SIGHUP starts one worker after another again.

    Metrics and health of all of them are at metrics.port; each worker has its own at one of the ports that follow.

    Examples: `dspyq worker`; `dspyq worker -A workers --processes 4 --threads 50 -Q qa.control`
    """
    from dspyq.processes.command import main

    stated = {"--processes": processes, "--threads": threads, "--app": app, "--hostname": hostname}
    options = [f"{name}={value}" for name, value in stated.items() if value is not None]
    raise typer.Exit(main([*options, *context.args]))
