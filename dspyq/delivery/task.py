"""The base of every task on this transport: its body runs only while the worker holds the job."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from celery import Task, signals
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.delivery.leases import process_leases


def park(context: Context, delay_seconds: float) -> NoReturn:
    """Give the running job back for a while; no retry is spent, nothing waits here, and it regains its turn.

    Raises:
        Ignore: Always: the body ends here.
    """
    process_leases().park(context.properties["delivery_tag"], delay_seconds)
    raise Ignore


def hand_back(context: Context, delay_seconds: float) -> NoReturn:
    """Give back a job that this worker cannot run and others may; its message's ``hand_backs`` says how often so far.

    Raises:
        Ignore: Always: the body ends here.
    """
    process_leases().refuse(context.properties["delivery_tag"], delay_seconds)
    raise Ignore


class DeliveredTask(Task):  # type: ignore[misc]  # celery ships no types
    """A task whose job may have been given to another worker before its body begins."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body under the job's lease.

        Raises:
            Ignore: If the job is no longer this worker's; the worker that has it answers.
        """
        request = self.request
        request.began_at = time.monotonic()  # for whoever tells of the task's end
        delivery_tag = (request.properties or {}).get("delivery_tag")
        # A task that acknowledges early has given its job up before its body begins, as its author wanted.
        if request.called_directly or not self.acks_late or not isinstance(delivery_tag, str):
            return self.run(*args, **kwargs)
        if not process_leases().begin(delivery_tag):
            raise Ignore
        return self.run(*args, **kwargs)


def _note_end(task: Task, **_: Any) -> None:
    """Note that Celery is done with a run: its result is stored, however long that took, or never will be."""
    if delivery_tag := (task.request.properties or {}).get("delivery_tag"):
        process_leases().ended(delivery_tag)


signals.task_postrun.connect(_note_end, weak=False)
