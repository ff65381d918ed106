"""Parts of our log lines, independent of their format: an event's name, its fields and its request."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

NO_CONTEXT: Mapping[str, Any] = MappingProxyType({})
#: Fields added to each log line of the running code: its request, task, program and variant.
log_context: ContextVar[Mapping[str, Any]] = ContextVar("dspyq_log_context", default=NO_CONTEXT)


class Event:
    """A log line's message: ``logger.warning(Event("queue_paused", queue="qa.control"))``.

    A worker writes each field as a key of its JSON line; any other handler shows ``queue_paused queue=qa.control``.
    Fields hold no user's text and no secret.

    Attributes:
        name: What happened, as in ``queue_paused``.
        fields: Its details.
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, /, **fields: Any) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        """Return it as one line of text."""
        return " ".join([self.name, *(f"{name}={_shown(value)}" for name, value in self.fields.items())])


def _shown(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return repr(text) if " " in text or not text else text
