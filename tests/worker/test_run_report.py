"""The report of a run: it goes with the run, without the garbage collector."""

from __future__ import annotations

import contextvars
import gc
import weakref

from celery.app.task import Context

from dspyq.delivery.task_run import begin_task_run
from dspyq.worker.run_report import RunReport


def test_a_report_ends_with_its_task_without_the_garbage_collector():
    """Two hundred threads end hundreds of runs a second: what waits for the collector is the worker's growth."""

    def run() -> weakref.ref[RunReport]:
        context = Context(id="a task")
        begin_task_run(context)
        return weakref.ref(RunReport(context, {}))

    gc.disable()
    try:
        assert contextvars.copy_context().run(run)() is None
    finally:
        gc.enable()
