"""The Celery application: queues, delivery settings and transport, all read from the settings at first use."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.app import utils
from kombu import pools
from kombu.utils.collections import eqhash

from dspyq.config.settings import get_settings
from dspyq.core.names import BATCH_QUEUE, DEFAULT_QUEUE, TICK_NAME
from dspyq.core.plain_json import SERIALIZER, register_json
from dspyq.core.redis_address import parse_address
from dspyq.core.runtime import DEFAULT, Runtime, current, per_runtime

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

_TICK_EXPIRES_SECONDS = 55
#: What Celery makes once of an application's configuration.
_OF_CONFIGURATION = {"amqp", "annotations", "control", "events", "timezone"}
_BACKEND = "dspyq.celery_app.result_backend"
_TRANSPORT = "dspyq.delivery.transport:Transport"
_SPINE_TRANSPORT = "dspyq.delivery.spine_transport:SpineTransport"


class CelerySettings(utils.Settings):  # type: ignore[misc]  # celery ships no types
    """Celery's settings without its environment variables, which name the broker of the user's own application.

    Celery gives ``CELERY_BROKER_URL``, ``CELERY_RESULT_BACKEND`` and their kind to every application of a process.
    """

    @property
    def broker_url(self) -> Any:
        """The broker's URL."""
        return self.first("broker_url")

    broker_read_url = broker_write_url = broker_url

    @property
    def result_backend(self) -> Any:
        """The result backend's URL."""
        return self.first("result_backend")


class App(Celery):  # type: ignore[misc]  # celery ships no types
    """Celery with the project's connection, its own tasks, and events without content.

    Attributes:
        runtime: What it is configured by.
    """

    # By name: Celery loads them when it first needs them, and importing a producer costs less.
    amqp_cls = "dspyq.celery_app.messaging:AMQP"
    events_cls = "dspyq.celery_app.messaging:Events"
    task_cls = "dspyq.delivery.task:DeliveredTask"
    control_cls = "dspyq.celery_app.remote_control:Control"

    _conf: Any

    def __init__(self, *args: Any, runtime: Runtime = DEFAULT, **options: Any) -> None:
        self.runtime = runtime
        super().__init__(*args, **options)
        object.__setattr__(self._conf, "__class__", CelerySettings)  # Celery replaces its values in place

    @property
    def pool(self) -> Any:
        """The pool of connections to the broker."""
        if self._pool is None:
            # All pools of a process have one limit, which cannot be lowered while one of them is in use.
            self.conf.broker_pool_limit = max(self.conf.broker_pool_limit, pools.get_limit())
        return super().pool

    def begin_anew(self) -> None:
        """Read the configuration and connect when it is next used; what was set by hand stays set."""
        if isinstance(self._conf.changes, dict):  # it has been read, which Celery does once for each application
            twin = type(self)(self.main, set_as_current=False, runtime=self.runtime)
            twin.config_from_object(self._config_source)
            twin.conf.update(self._conf.changes)
            self._conf = twin.conf
        self._pool = self._backend_cache = None
        for name in _OF_CONFIGURATION & self.__dict__.keys():
            del self.__dict__[name]

    @functools.cached_property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of the results of users' own tasks."""
        return self.subclass_with_self(
            "dspyq.celery_app.groups:OwnTaskResult", name="AsyncResult", reverse="AsyncResult"
        )

    @functools.cached_property
    def GroupResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of a group's results."""
        return self.subclass_with_self("dspyq.celery_app.groups:AwaitableGroup", reverse="GroupResult")

    # Django's imports Celery's whole worker, and does nothing without this variable.
    builtin_fixups = Celery.builtin_fixups if "DJANGO_SETTINGS_MODULE" in os.environ else frozenset()


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for these settings."""
    queues = [variant.queue for program in settings.programs.values() for variant in program.variants.values()]
    batch_queues = [BATCH_QUEUE] if settings.batches else []
    connections = 4 * settings.workers.concurrency + 100
    return {
        "broker_url": parse_address(
            settings.control_url
        ).celery_url,  # without secrets: our channels make their own connections
        "broker_transport": _SPINE_TRANSPORT if len(settings.spine_urls) > 1 else _TRANSPORT,
        "broker_transport_options": {
            "global_keyprefix": f"{parse_address(settings.control_url).tag}{settings.key_prefix}",
            "max_connections": connections,
            "socket_connect_timeout": settings.redis_timeout_seconds,
            "socket_timeout": settings.redis_timeout_seconds,
            "socket_keepalive": True,
            "runtime": current().number,  # kombu gives applications of the same address and options one pool
        },
        "broker_pool_limit": connections,  # remote control takes two at a time: a small pool deadlocks Flower's threads
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker that gives up would stay broken even when Redis is back
        "broker_channel_error_retry": True,  # else a Redis that refuses writes, such as a replica, ends the worker
        "result_backend": f"{_BACKEND}:PredictionBackend+{parse_address(settings.answers_url).celery_url}",
        "result_backend_transport_options": {"global_keyprefix": settings.key_prefix},
        "task_serializer": SERIALIZER,
        "result_serializer": SERIALIZER,
        "result_accept_content": ["json"],
        "result_expires": settings.cache.result_ttl_seconds,
        "result_extended": False,
        "result_backend_thread_safe": True,
        "redis_max_connections": connections,
        "redis_socket_keepalive": True,
        "redis_socket_timeout": settings.redis_timeout_seconds,
        "task_queues": {name: {} for name in [*queues, DEFAULT_QUEUE, *batch_queues]},
        "task_default_queue": DEFAULT_QUEUE,
        "task_acks_late": True,
        "task_track_started": False,
        "task_store_errors_even_if_ignored": True,
        "worker_pool": "threads",
        "worker_concurrency": settings.workers.concurrency,
        "worker_prefetch_multiplier": settings.workers.prefetch_multiplier,
        "worker_send_task_events": True,
        "worker_enable_remote_control": settings.workers.remote_control,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "imports": settings.workers.imports,
        "timezone": "UTC",
        "beat_scheduler": "dspyq.worker.beat:Scheduler",
        "beat_schedule": _beat_schedule() if settings.batches else {},
    }


def _beat_schedule() -> dict[str, Any]:
    """Return the schedule of ``celery -A dspyq beat``. A missed or doubled tick is harmless: claims are in Redis."""
    from celery.schedules import crontab  # noqa: PLC0415 - costs an import what only scheduled batches need

    # Old ticks would find nothing that the next one does not.
    options = {"queue": BATCH_QUEUE, "expires": _TICK_EXPIRES_SECONDS, "priority": 0}
    return {TICK_NAME: {"task": TICK_NAME, "schedule": crontab(), "options": options}}


def __getattr__(name: str) -> dict[str, Any]:
    """Build ``lazy_configuration`` on Celery's first access, so that importing a producer reads no file."""
    if name == "lazy_configuration":
        with DEFAULT.active():
            return configuration(get_settings())
    raise AttributeError(name)


def _forget_connections(own: App) -> None:
    """Drop inherited connections in a forked child: web servers fork after they have loaded the application."""
    own._after_fork()  # noqa: SLF001 - Celery runs it only for forks by multiprocessing
    if (backend := own._backend_cache) is not None:  # noqa: SLF001 - looking must not create one
        backend.result_consumer._after_fork()  # noqa: SLF001 - as above


def _close_connections(own: App) -> None:
    """Close a runtime's pools, and have kombu forget them."""
    if own._pool is not None:  # noqa: SLF001 - looking must not create one
        connection = own.connection_for_write()
        for group in (pools.producers, pools.connections):
            if (pool := group.pop(eqhash(connection), None)) is not None:
                pool.force_close_all()
    if (backend := own._backend_cache) is not None:  # noqa: SLF001 - as above
        backend.close_idle()
    own.begin_anew()


@per_runtime(is_kept=True, renew=_forget_connections, close=_close_connections)
def process_app() -> App:
    """Return the application of the runtime."""
    runtime = current()
    if runtime is DEFAULT:  # with other settings now; tasks are declared to this one, so it stays
        app.begin_anew()
        return app
    own = App("dspyq", set_as_current=False, runtime=runtime)
    own.config_from_object(configuration(get_settings()))
    return own


register_json()
#: The process's own, which workers run; it reads its configuration at its first use.
app = App("dspyq", set_as_current=False)
app.config_from_object("dspyq.celery_app.application:lazy_configuration")
DEFAULT.put(process_app, app)
