"""Celery AMQP, event and connection classes that keep content out of messages' descriptions and events."""

from __future__ import annotations

import threading
from typing import Any

from celery.app import amqp, events
from celery.events import dispatcher
from kombu import connection

from dspyq.config.privacy import HIDDEN, exception_type, hides_content
from dspyq.config.secrets import scrub
from dspyq.config.settings import get_settings
from dspyq.core.redis_address import parse_address

#: Longest time for which a worker buffers task events, and the most of them, to send them together.
_EVENTS_INTERVAL_SECONDS = 0.25
_MOST_BUFFERED_EVENTS = 1_000
#: Fields of a task's events with content of users or models.
_CONTENT = frozenset({"args", "kwargs", "result"})
_MAKING_POOL = threading.Lock()


class Connection(connection.Connection):
    """Connection that shows the address its channels use: Flower and the banner detect Redis by its scheme."""

    def as_uri(self, *_: Any, **__: Any) -> str:
        """Return the address, without user and password."""
        return str(parse_address(get_settings().control_url))


class AMQP(amqp.AMQP):  # type: ignore[misc]  # celery ships no types
    """AMQP that describes a task's arguments in its message (for events, logs and remote control) only if allowed."""

    Connection = Connection

    @property
    def producer_pool(self) -> Any:
        """The pool of producers. Celery shows the one it makes before its limit is set, which fails once it is used."""
        with _MAKING_POOL:
            return super().producer_pool

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Return a task's message."""
        if hides_content():
            options |= {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
        return super().as_task_v2(*args, **options)


class QuietEventDispatcher(dispatcher.EventDispatcher):  # type: ignore[misc]  # celery ships no types
    """Sends task events without content; of an exception they name the type.

    A worker's events are sent in batches; sent after each task they would take a fifth of a busy worker's CPU time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: threading.Timer | None = None
        if options.get("on_send_buffered") is not None:
            self.on_send_buffered = self._flush_soon
            self.buffer_limit = _MOST_BUFFERED_EVENTS

    def _flush_soon(self) -> None:
        if self._timer is None:  # two threads may both start one; then the second finds no events
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

    dispatcher_cls = QuietEventDispatcher


def _without_content(event_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    if not event_type.startswith("task-"):
        return fields
    if not hides_content():
        return fields | {name: scrub(str(fields[name])) for name in ("exception", "traceback") if fields.get(name)}
    shown = fields | dict.fromkeys(_CONTENT & fields.keys(), HIDDEN)
    shown.pop("traceback", None)
    if "exception" in shown:
        shown["exception"] = exception_type(shown["exception"])
    return shown
