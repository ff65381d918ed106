"""The base of every task on this transport: its body runs only while the worker holds the job."""

from __future__ import annotations

from typing import Any, NoReturn

from celery import Task, signals
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.delivery.leases import process_leases
from dspyq.delivery.task_run import NOT_DELIVERED, begin_task_run, delivery_of


def park(context: Context, delay_seconds: float) -> NoReturn:
    """Return the running job for a while; this costs no retry and blocks no thread, and the job keeps its turn.

    Raises:
        Ignore: Always: the body ends here.
    """
    process_leases().park(delivery_of(context).tag, delay_seconds)
    raise Ignore


def sleep(context: Context, longest_seconds: float, *, is_stray: bool) -> NoReturn:
    """Put the running job to sleep until its calls in a lane have landed; this costs no retry and blocks no thread.

    Raises:
        Ignore: Always: the body ends here.
    """
    process_leases().sleep(delivery_of(context).tag, longest_seconds, is_stray=is_stray)
    raise Ignore


def pass_on(context: Context, version: str) -> NoReturn:
    """Move a job that this worker cannot run to the queue of its version, for workers that can.

    Raises:
        Ignore: Always: the body ends here.
    """
    process_leases().pass_on(delivery_of(context).tag, version)
    raise Ignore


class DeliveredTask(Task):  # type: ignore[misc]  # celery ships no types
    """A task whose job may have been given to another worker before its body begins."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the body under the job's lease.

        Raises:
            Ignore: If the job is no longer this worker's; the worker that has it answers.
        """
        request = self.request
        begin_task_run(request)
        delivery = delivery_of(request)
        # A task that acknowledges early has given up its job before its body begins, as its author chose.
        is_leased = not request.called_directly and self.acks_late and delivery is not NOT_DELIVERED
        if is_leased and not process_leases().begin(delivery.tag):
            raise Ignore
        try:
            return self.run(*args, **kwargs)
        except Ignore as ending:
            left = ending
        return _end_as_left(left)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the task in this process, with predictions among its arguments in the form that a message carries."""
        return super().apply(carried(args), carried(kwargs), **options)


def _end_as_left(ending: Ignore) -> NoReturn:
    """Raise what ended a body that left its job, without the way there.

    Celery formats its traceback twice, with that of each exception before it, and drops both. Of a body that stops deep
    in a program this takes as long as the body.
    """
    ending.__context__ = None
    raise ending.with_traceback(None)


def carried(value: Any) -> Any:
    """Return the form of an argument in a message: for a prediction its JSON form."""
    if isinstance(value, (list, tuple)):
        return [carried(part) for part in value]
    if isinstance(value, dict):
        return {name: carried(part) for name, part in value.items()}
    return value.__json__() if hasattr(value, "__json__") else value


def _note_end(task: Task, **_: Any) -> None:
    """Note that Celery is done with a run: its result is stored, however long that took, or never will be."""
    if tag := delivery_of(task.request).tag:
        process_leases().ended(tag)


signals.task_postrun.connect(_note_end, weak=False)
