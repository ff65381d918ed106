"""A throwaway Celery app on the transport: plain tasks, which note in Redis what they did."""

from __future__ import annotations

import time
from typing import Any

import redis
from celery import Celery, signals
from celery.exceptions import Ignore, Reject
from config.settings import get_settings

from producer.delivery.leases import process_leases

QUEUE = "plain"

app = Celery("delivery_app", set_as_current=False, task_cls="producer.delivery.task:DeliveredTask")
app.conf.update(
    broker_url=get_settings().jobs_url,
    broker_transport="producer.delivery.transport:Transport",
    broker_connection_retry_on_startup=True,
    result_backend=get_settings().jobs_url,
    task_acks_late=True,
    task_default_queue=QUEUE,
    worker_pool="threads",
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
notes: redis.Redis = redis.Redis.from_url(get_settings().jobs_url, decode_responses=True)


@signals.worker_ready.connect(weak=False)
def _begin(**_: Any) -> None:
    process_leases().start()


@signals.worker_shutdown.connect(weak=False)
def _end(**_: Any) -> None:
    process_leases().stop()


@app.task(name="note")
def note(text: str, seconds: float = 0.0) -> str:
    notes.rpush("began", text)
    time.sleep(seconds)
    notes.rpush("notes", text)
    return text


@app.task(name="nothing")
def nothing() -> None:
    pass


@app.task(name="add")
def add(first: int, second: int) -> int:
    return first + second


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="fail_twice", bind=True, max_retries=2)
def fail_twice(self: Any, text: str, countdown: float) -> str:
    notes.rpush("began", text)
    if self.request.retries < self.max_retries:
        raise self.retry(countdown=countdown)
    return text


@app.task(name="replaced", bind=True)
def replaced(self: Any, text: str) -> Any:
    return self.replace(note.s(text))


@app.task(name="reject_first", bind=True)
def reject_first(self: Any, text: str, *, requeue: bool) -> str:
    notes.rpush("began", text)
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not yet", requeue=requeue)
    return text


@app.task(name="leak_first", bind=True)
def leak_first(self: Any, text: str) -> str:
    """End without an ack, as where Celery cannot store a result."""
    notes.rpush("began", text)
    if not self.request.delivery_info["redelivered"]:
        raise SystemError("leaks") from None
    return text


__all__ = ["Ignore", "app"]
