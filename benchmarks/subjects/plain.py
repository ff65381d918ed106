"""Plain Celery's side where rows are compared: new questions sent by ``delay()``, with its own subscription to each."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from benchmarks.repetition import seconds_per_call
from benchmarks.subjects import celery_worker

_numbers = itertools.count()


def new_question() -> str:
    """Return a question that this process has not asked."""
    return f"What is question number {next(_numbers)}?"


def delay() -> None:
    """Send a new question."""
    celery_worker.answer.delay(question=new_question())


def seconds_per_delay(calls: int) -> Callable[[], float]:
    """Return a block that sends new questions and returns what one took; it is connected already."""
    delay()
    return seconds_per_call(calls, delay)
