"""The Celery application: queues, delivery settings and transport, all read from the settings at first use."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from kombu.connection import Connection
from kombu.entity import Queue

from config.privacy import HIDDEN, exception_type, hides_content
from config.settings import Settings, get_settings

#: Tasks of the user's own that name no queue.
DEFAULT_QUEUE = "dspyq"
TASK_NAME = "dspyq.predict"
#: Fields of a task's events that hold what users wrote or models answered.
_CONTENT = frozenset({"args", "kwargs", "result"})


class _Connection(Connection):
    """Names its scheme as the URL does: Flower and the banner read it to know the broker is Redis."""

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        uri: str = super().as_uri(*args, **kwargs)
        return uri.replace(str(self.transport_cls), "redis", 1)


class _AMQP(AMQP):  # type: ignore[misc]  # celery ships no types
    """Describes a task's arguments in its message, for events, logs and remote control, only where that may be seen."""

    Connection = _Connection

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        if hides_content():
            options |= {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
        return super().as_task_v2(*args, **options)


class _Dispatcher(EventDispatcher):  # type: ignore[misc]  # celery ships no types
    """Sends task events without content; of an exception they name the type."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        return super().send(type, *args, **_without_content(type, fields))

    def publish(self, type: str, fields: dict[str, Any], *args: Any, **options: Any) -> Any:  # noqa: A002 - Celery's name
        return super().publish(type, _without_content(type, fields), *args, **options)


class _Events(Events):  # type: ignore[misc]  # celery ships no types
    dispatcher_cls = _Dispatcher


def _without_content(event_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    if not event_type.startswith("task-") or not hides_content():
        return fields
    shown = {name: HIDDEN if name in _CONTENT else value for name, value in fields.items() if name != "traceback"}
    if "exception" in shown:
        shown["exception"] = exception_type(shown["exception"])
    return shown


class App(Celery):  # type: ignore[misc]  # celery ships no types
    """Celery with the project's connection, its own tasks, and events without content."""

    amqp_cls = _AMQP
    events_cls = _Events
    task_cls = "producer.delivery.task:DeliveredTask"


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for these settings."""
    queues = [variant.queue for program in settings.programs.values() for variant in program.variants.values()]
    connections = 4 * settings.workers.concurrency + 100
    return {
        "broker_url": settings.jobs_url,
        "broker_transport": "producer.delivery.transport:Transport",
        "broker_transport_options": {
            "max_connections": connections,
            "socket_connect_timeout": 10,
            "socket_keepalive": True,
        },
        "broker_pool_limit": connections,  # remote control holds two at a time: a small pool deadlocks Flower's threads
        "broker_connection_retry_on_startup": True,
        "result_backend": f"producer.results:PredictionBackend+{settings.answers_url}",
        "result_expires": settings.cache.result_ttl_seconds,
        "result_extended": False,
        "result_backend_thread_safe": True,
        "redis_max_connections": connections,
        "redis_socket_keepalive": True,
        "task_queues": [Queue(name, routing_key=name) for name in [*queues, DEFAULT_QUEUE]],
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
    }


def __getattr__(name: str) -> dict[str, Any]:
    """Build ``lazy_configuration`` when Celery first asks, so that importing a producer reads no file."""
    if name == "lazy_configuration":
        return configuration(get_settings())
    raise AttributeError(name)


app = App("dspyq", set_as_current=False)
app.config_from_object("config.celery:lazy_configuration")
