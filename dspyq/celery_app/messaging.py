"""How the application speaks: what its messages and events tell of a task, and what its connections call themselves."""

from __future__ import annotations

import threading
from typing import Any

from celery.app import amqp, events
from celery.events import dispatcher
from kombu import connection

from dspyq.config.privacy import HIDDEN, exception_type, hides_content

#: How long a worker's task events wait for others to be sent with, and how many do.
_EVENTS_INTERVAL_SECONDS = 0.25
_MOST_BUFFERED_EVENTS = 1_000
#: Fields of a task's events that hold what users wrote or models answered.
_CONTENT = frozenset({"args", "kwargs", "result"})


class Connection(connection.Connection):
    """Names its scheme as the URL does: Flower and the banner read it to know the broker is Redis."""

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return the URL, with the scheme it was given."""
        uri: str = super().as_uri(*args, **kwargs)
        return uri.replace(str(self.transport_cls), "redis", 1)


class AMQP(amqp.AMQP):  # type: ignore[misc]  # celery ships no types
    """Describes a task's arguments in its message, for events, logs and remote control, only where that may be seen."""

    Connection = Connection

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Return a task's message."""
        if hides_content():
            options |= {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
        return super().as_task_v2(*args, **options)


class Dispatcher(dispatcher.EventDispatcher):  # type: ignore[misc]  # celery ships no types
    """Sends task events without content; of an exception they name the type.

    A worker's go in batches: Celery would send them after almost every task, a fifth of a busy worker's processor time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: threading.Timer | None = None
        if options.get("on_send_buffered") is not None:
            self.on_send_buffered = self._flush_soon
            self.buffer_limit = _MOST_BUFFERED_EVENTS

    def _flush_soon(self) -> None:
        if self._timer is None:  # two threads may both start one: then there are two, and the second finds nothing
            self._timer = threading.Timer(_EVENTS_INTERVAL_SECONDS, self._flush_batch)
            self._timer.daemon = True
            self._timer.start()

    def _flush_batch(self) -> None:
        self._timer = None
        self.flush()

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        """Send a worker's event."""
        if type == "worker-offline":
            self.flush()
        return super().send(type, *args, **_without_content(type, fields))

    def publish(self, type: str, fields: dict[str, Any], *args: Any, **options: Any) -> Any:  # noqa: A002 - Celery's name
        """Send a producer's event."""
        return super().publish(type, _without_content(type, fields), *args, **options)


class Events(events.Events):  # type: ignore[misc]  # celery ships no types
    """Dispatches events without content."""

    dispatcher_cls = Dispatcher


def _without_content(event_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    if not event_type.startswith("task-") or not hides_content():
        return fields
    shown = fields | dict.fromkeys(_CONTENT & fields.keys(), HIDDEN)
    shown.pop("traceback", None)
    if "exception" in shown:
        shown["exception"] = exception_type(shown["exception"])
    return shown
