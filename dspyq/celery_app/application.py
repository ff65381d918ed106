"""The Celery application: queues, delivery settings and transport, all read from the settings at first use."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from dspyq.config.settings import Settings, get_settings

#: Tasks of the user's own that name no queue.
DEFAULT_QUEUE = "dspyq"
#: Looks for scheduled batches whose time has come; served by default where there are any.
BATCH_QUEUE = "dspyq.batches"
TASK_NAME = "dspyq.predict"
TICK_NAME = "dspyq.batches.tick"
#: The message header that holds what a prediction's producer asked for.
HEADER = "dspyq"
_TICK_EXPIRES_SECONDS = 55


class App(Celery):  # type: ignore[misc]  # celery ships no types
    """Celery with the project's connection, its own tasks, and events without content."""

    # By name: Celery loads them when it first needs them, and importing a producer costs less.
    amqp_cls = "dspyq.celery_app.messaging:AMQP"
    events_cls = "dspyq.celery_app.messaging:Events"
    task_cls = "dspyq.delivery.task:DeliveredTask"
    control_cls = "dspyq.celery_app.remote_control:Control"
    # Django's imports Celery's whole worker, and does nothing without this variable.
    builtin_fixups = Celery.builtin_fixups if "DJANGO_SETTINGS_MODULE" in os.environ else frozenset()


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for these settings."""
    queues = [variant.queue for program in settings.programs.values() for variant in program.variants.values()]
    batch_queues = [BATCH_QUEUE] if settings.batches else []
    connections = 4 * settings.workers.concurrency + 100
    return {
        "broker_url": settings.jobs_url,
        "broker_transport": f"dspyq.delivery.transport:{_flavour(settings.jobs_url)}Transport",
        "broker_transport_options": {
            "master_name": settings.sentinel_master,
            "max_connections": connections,
            "socket_connect_timeout": 10,
            "socket_keepalive": True,
        },
        "broker_pool_limit": connections,  # remote control holds two at a time: a small pool deadlocks Flower's threads
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,  # or a Redis that refuses writes, as a replica does, ends the worker
        "result_backend": f"dspyq.celery_app.result_backend:{_flavour(settings.answers_url)}PredictionBackend"
        f"+{settings.answers_url}",
        "result_backend_transport_options": {"master_name": settings.sentinel_master},
        "result_expires": settings.cache.result_ttl_seconds,
        "result_extended": False,
        "result_backend_thread_safe": True,
        "redis_max_connections": connections,
        "redis_socket_keepalive": True,
        "task_queues": {name: {} for name in [*queues, DEFAULT_QUEUE, *batch_queues]},
        "task_default_queue": DEFAULT_QUEUE,
        "task_acks_late": True,
        "task_track_started": False,
        "task_store_errors_even_if_ignored": True,
        "worker_pool": "threads",
        "worker_concurrency": settings.workers.concurrency,
        "worker_prefetch_multiplier": settings.workers.prefetch_multiplier,
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "imports": settings.workers.imports,
        "timezone": "UTC",
        "beat_scheduler": "dspyq.worker.beat:Scheduler",
        "beat_schedule": _beat_schedule() if settings.batches else {},
    }


def _beat_schedule() -> dict[str, Any]:
    """What ``celery -A dspyq beat`` sends. A tick that is missed or doubled does no harm: claims are in Redis."""
    from celery.schedules import crontab  # noqa: PLC0415 - costs an import what only scheduled batches need

    # Old ticks would find nothing that the next one does not.
    options = {"queue": BATCH_QUEUE, "expires": _TICK_EXPIRES_SECONDS, "priority": 0}
    return {TICK_NAME: {"task": TICK_NAME, "schedule": crontab(), "options": options}}


def _flavour(url: str) -> str:
    return "Sentinel" if url.startswith("sentinel://") else ""


def __getattr__(name: str) -> dict[str, Any]:
    """Build ``lazy_configuration`` when Celery first asks, so that importing a producer reads no file."""
    if name == "lazy_configuration":
        return configuration(get_settings())
    raise AttributeError(name)


app = App("dspyq", set_as_current=False)
app.config_from_object("dspyq.celery_app.application:lazy_configuration")
