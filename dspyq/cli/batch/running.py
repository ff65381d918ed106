"""Runs a batch in the foreground: shows how it goes, hears signals, and says in one line why it could not be run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from dspyq.core import process_tuning as memory
from dspyq.errors import ConfigurationError, DspyqError

if TYPE_CHECKING:
    from dspyq.batch.options import BatchOptions

_COULD_NOT_RUN = 2


@contextmanager
def refusals() -> Iterator[None]:
    """Say in one line why a batch could not be run, and exit with 2."""
    try:
        yield
    except ConfigurationError as error:
        for fault in error.faults:
            typer.secho(f"dspyq: {fault}", fg="red", err=True)
        raise typer.Exit(_COULD_NOT_RUN) from None
    except DspyqError as error:
        typer.secho(f"dspyq: {error}", fg="red", err=True)
        raise typer.Exit(_COULD_NOT_RUN) from None


def run_and_show(options: BatchOptions, *, as_json: bool) -> None:
    """Run a batch, show how it goes, and exit with its status."""
    from dspyq.batch.run import run_batch  # noqa: PLC0415 - as above
    from dspyq.cli.batch.display import display  # noqa: PLC0415 - a command imports what it needs: --help is quick

    memory.settle()
    with refusals(), display(as_json=as_json) as show, _stopped_by_signals() as stop:
        outcome = run_batch(options, report=show, stop=stop)
    raise typer.Exit(outcome.exit_code)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one ends the run at once."""
    stop = threading.Event()

    def hear(number: int, _: object) -> None:
        if stop.is_set():
            raise SystemExit(1)
        stop.set()
        typer.echo(
            f"{signal.Signals(number).name}: taking back what has not begun, and waiting a little for what has; "
            "once more ends it at once. Run the same command again to go on.",
            err=True,
        )

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
