"""Display of a running batch: a progress bar on a terminal, plain lines elsewhere, or JSON for machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from dspyq.batch import events
from dspyq.batch.events import BatchEvent, BatchOutcome, Snapshot
from dspyq.console.output import console, dollars, percent, print_json
from dspyq.core.money import exact_dollars

Show = Callable[[BatchEvent], None]

_LINE_EVERY_SECONDS = 5.0
_CALLS_SHOWN = 20
_PAUSES = {
    "asked": "paused: go on with dspyq batch resume {id}",
    "window": "outside of its hours: it goes on by itself",
    "share": "its share of the day's budget is used up: it tries again every minute",
}
_STAGES = {
    "closing": "the hour is near: its shipments are cancelled, and what they leave is made live",
    "flex": "the hour is near: what still waits is made at the flex tier",
    "live": "the hour is near: what still waits is made live",
}


@contextmanager
def display(*, as_json: bool) -> Iterator[Show]:
    """Yield a function that shows events.

    Args:
        as_json: Whether to print each as one line of JSON on standard output.
    """
    if as_json:
        yield _show_json
    elif console.is_terminal:
        with _ProgressBar() as bar:
            yield bar.show
    else:
        yield _PlainLines().show


def _show_json(event: BatchEvent) -> None:
    value = {"event": type(event).__name__.lower(), **asdict(event)}
    if isinstance(event, events.Finished):
        value["outcome"] = outcome_json(event.outcome)
    print_json(value)


def outcome_json(outcome: BatchOutcome) -> dict[str, Any]:
    """Return an outcome as JSON values, with its computed properties."""
    value = {**asdict(outcome), "exit_code": outcome.exit_code}
    if (books := outcome.reconciliation) is not None:
        value["reconciliation"] |= {
            "uncollected_nano_usd": books.uncollected_nano_usd,
            "difference_nano_usd": books.difference_nano_usd,
        }
    return value


class _PlainLines:
    """Plain lines, one every few seconds and one for each event that matters."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def show(self, event: BatchEvent) -> None:
        """Show an event."""
        if isinstance(event, events.Progress):
            if time.monotonic() >= self._next_at:
                self._next_at = time.monotonic() + _LINE_EVERY_SECONDS
                _print(_progress(event.snapshot))
        else:
            show_event(event)


class _ProgressBar:
    """A bar with rate, hit rate, errors, spent and time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _ProgressBar:  # noqa: PYI034 - private
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: BatchEvent) -> None:
        """Show an event."""
        if not isinstance(event, events.Progress):
            if isinstance(event, events.Finished):
                self._progress.stop()
            show_event(event)
            return
        snapshot = event.snapshot
        total = snapshot.entries / snapshot.share_read if snapshot.share_read else None
        if self._task is None:
            self._task = self._progress.add_task("batch", total=total, text="")
        self._progress.update(self._task, total=total, completed=snapshot.done, text=_progress(snapshot))


def show_event(event: BatchEvent) -> None:
    """Print an event other than progress."""
    match event:
        case events.Started(batch_id, output, done, is_resumed):
            more = f", {done:,} rows done before" if is_resumed else ""
            _print(f"batch {batch_id} to {output}{more}")
        case events.Paused(batch_id, reason, recalled):
            taken_back = f"; {recalled:,} rows taken back, unpaid" if recalled else ""
            _print(_PAUSES[reason].format(id=batch_id) + taken_back)
        case events.Resumed():
            _print("going on")
        case events.LaneLeft(_, stage):
            _print(_STAGES[stage])
        case events.RedisAway(_, message):
            _print(f"waiting for Redis: {message}")
        case events.Finished(outcome):
            show_outcome(outcome)


def show_outcome(outcome: BatchOutcome) -> None:
    """Print the outcome of a run."""
    computed = outcome.ok - outcome.cached - outcome.joined
    _print(
        f"{outcome.rows:,} rows: {outcome.ok:,} answered ({computed:,} computed, {outcome.cached:,} cached, "
        f"{outcome.joined:,} joined), {sum(outcome.failed_by_type.values()):,} failed"
    )
    for name, count in sorted(outcome.failed_by_type.items(), key=lambda item: -item[1]):
        _print(f"  {count:,} {name}")
    if (books := outcome.reconciliation) is None:
        _print("cost: not compared with the ledger, for Redis does not answer")
    else:
        _print(f"cost: {books}")
        for call in books.uncollected[:_CALLS_SHOWN]:
            _print(
                f"  {exact_dollars(call.charged_nano_usd)} call {call.call_id} of task {call.task_id} ({call.state})"
            )
        if (more := len(books.uncollected) - _CALLS_SHOWN) > 0:
            _print(f"  and {more:,} more: --json lists them all")
    if outcome.remark:
        _print(outcome.remark)


def _progress(snapshot: Snapshot) -> str:
    hits = (snapshot.cached + snapshot.joined) / snapshot.done if snapshot.done else None
    total = f"{snapshot.entries:,}" if snapshot.is_read else f"{snapshot.entries:,}+"
    parts = [
        f"{snapshot.done:,} of {total} rows",
        f"{snapshot.rows_per_second:,.0f}/s",
        f"hits {percent(hits)}",
        f"errors {snapshot.failed:,}",
        f"in flight {snapshot.in_flight:,}",
        f"spent {dollars(snapshot.spent_usd)}",
    ]
    if snapshot.seconds_left is not None:
        parts.append(f"{time_left(snapshot.seconds_left)} left")
    if snapshot.waits_for:
        parts.append(f"waiting: {snapshot.waits_for}")
    return " · ".join(parts)


def time_left(seconds: float) -> str:
    """Return a duration for people, as in "2 h 05 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"  # noqa: PLR2004 - an hour


def _print(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
