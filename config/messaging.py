"""How the application speaks: what its messages and events tell of a task, and what its connections call themselves."""

from __future__ import annotations

from typing import Any

from celery.app import amqp, events
from celery.events import dispatcher
from kombu import connection

from config.privacy import HIDDEN, exception_type, hides_content

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
    """Sends task events without content; of an exception they name the type."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        """Send a worker's event."""
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
    shown = {name: HIDDEN if name in _CONTENT else value for name, value in fields.items() if name != "traceback"}
    if "exception" in shown:
        shown["exception"] = exception_type(shown["exception"])
    return shown
