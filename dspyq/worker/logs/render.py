"""Conversion of log records to entries, and of entries to lines: JSON, or readable text for a terminal."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from celery._state import get_current_task

from dspyq.config.secrets import process_secrets
from dspyq.core.events import Event, log_context
from dspyq.core.visible import escape_in_json, visible, visible_line
from dspyq.processes.worker_process import NAME

LogEntry = dict[str, Any]
Render = Callable[[LogEntry], str]

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "_logger", "_name"}
#: Celery's records have the task in ``data``, with arguments and results if content may be shown.
_CELERY = "celery."
#: Fields omitted on a terminal, and fields at the end of its lines.
_FOR_MACHINES = frozenset({"cache_hit", "input_hash", "service"})
_IDS = ("request_id", "task_id")
_OF_SEVERAL_LINES = frozenset({"event", "exception", "stack"})


def entry_of(record: logging.LogRecord) -> LogEntry:
    """Convert a record to an entry, in the record's own thread: arguments and context may change later."""
    message = record.msg
    entry: LogEntry = {"timestamp": record.created, "level": record.levelname.lower(), "event": ""}
    if isinstance(message, Event):
        entry["event"] = message.name
        entry |= log_context.get() or _find_context()
        entry |= message.fields
    else:
        entry["logger"] = record.name
        entry |= log_context.get() or _find_context() or _task_context()
        if isinstance(message, dict) and hasattr(record, "_name"):  # of a structlog logger
            entry |= message
        else:
            entry["event"] = record.getMessage()
            entry |= _extras(record)
    if record.exc_text or (record.exc_info and record.exc_info[0]):
        entry["traceback"] = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip()  # type: ignore[misc]  # checked in the line above
    if record.stack_info:
        entry["stack"] = record.stack_info
    return entry


def find_context_with(find: Callable[[], Mapping[str, Any]]) -> None:
    """Set the function that finds the context of a thread without one, such as those of ``dspy.Parallel``."""
    global _find_context  # noqa: PLW0603 - one log and one such function for each process
    _find_context = find


_find_context: Callable[[], Mapping[str, Any]] = dict


def json_renderer() -> Render:
    """Return a renderer of entries as lines of JSON, without secrets and control sequences."""
    scrub = process_secrets().scrub_line
    own = {"worker": name} if (name := os.environ.get(NAME)) else {}  # of several under one parent

    def render(entry: LogEntry) -> str:
        shown = {**entry, "timestamp": _iso(entry["timestamp"])}
        if own:
            shown = own | shown
        line = orjson.dumps(shown, default=repr, option=_JSON_OPTIONS)
        return escape_in_json(scrub(line.decode()))

    return render


def console_renderer(*, colours: bool) -> Render:
    """Return a renderer of entries for people, without secrets and control sequences."""
    import structlog  # noqa: PLC0415 - JSON does not need it, and it takes four megabytes

    scrub = process_secrets().scrub_line
    renderer = structlog.dev.ConsoleRenderer(
        colors=colours,
        pad_event_to=24,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(entry: LogEntry) -> str:
        shown = {name: value for name, value in entry.items() if value is not None and name not in _FOR_MACHINES}
        shown |= {name: shown.pop(name) for name in _IDS if name in shown}  # last: they are long
        shown["timestamp"] = _local(entry["timestamp"])
        if (places := shown.pop("traceback", None)) is not None:
            shown["exception"] = places
        return scrub(str(renderer(None, "", {name: _visible(name, value) for name, value in shown.items()})))

    return render


_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS


def _visible(name: str, value: object) -> object:
    """Return a field safe for a terminal; only these fields may span lines."""
    if isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    return visible(text) if name in _OF_SEVERAL_LINES else visible_line(text)


def _extras(record: logging.LogRecord) -> LogEntry:
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
    if record.name.startswith(_CELERY):
        task = given.get("data") or {}
        return {"task": task["name"], "task_id": task["id"]} if "name" in task and "id" in task else {}
    return {name: value if isinstance(value, (str, int, float, bool)) else repr(value) for name, value in given.items()}


def _task_context() -> LogEntry:
    """Return the name and id of the running task: one of the user's own, since predictions set their own context."""
    task = get_current_task()
    return {"task": task.name, "task_id": task.request.id} if task is not None and task.request else {}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - the reader's local time
