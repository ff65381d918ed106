"""Run a batch in the foreground: show its progress, handle signals, and print errors in one line."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from dspyq.console.output import print_faults
from dspyq.core import process_tuning
from dspyq.errors import DspyqError

if TYPE_CHECKING:
    from dspyq.batch.options import BatchOptions

_COULD_NOT_RUN = 2


@contextmanager
def refusals() -> Iterator[None]:
    """Print the reason for a refused batch in one line, and exit with 2."""
    try:
        yield
    except DspyqError as error:
        print_faults(error)
        raise typer.Exit(_COULD_NOT_RUN) from None


def run_and_show(options: BatchOptions, *, as_json: bool) -> None:
    """Run a batch, show its progress, and exit with its status."""
    from dspyq.batch.run import run_batch  # noqa: PLC0415 - as above
    from dspyq.cli.batch.display import display  # noqa: PLC0415 - a command imports what it needs: --help is quick

    process_tuning.settle()
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
            file=sys.stderr,
        )

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
