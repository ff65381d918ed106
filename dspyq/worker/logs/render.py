"""Turns log records into entries, and entries into lines: JSON, or what reads well in a terminal."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from celery._state import get_current_task

from dspyq.config.privacy import HIDDEN
from dspyq.config.settings import Settings
from dspyq.core.events import Event, log_context

Entry = dict[str, Any]
Render = Callable[[Entry], str]

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "_logger", "_name"}
#: Celery gives its records the task as ``data``: with arguments and results, where content may be shown.
_CELERY = "celery."
_PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*:)[^\s/@]+(?=@)")
#: What a terminal does not show, and what it shows at the end of a line.
_FOR_MACHINES = frozenset({"cache_hit", "input_hash", "service"})
_IDS = ("request_id", "task_id")
#: A shorter secret is a word that lines hold for other reasons; in a URL it is hidden all the same.
_SHORTEST_SECRET = 6


def entry_of(record: logging.LogRecord) -> Entry:
    """Return what a record says, in its own thread: its arguments may change, and its context is that thread's."""
    message = record.msg
    entry: Entry = {"timestamp": record.created, "level": record.levelname.lower(), "event": ""}
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
    """Ask this for the context of a thread that has none: those of ``dspy.Parallel`` inherit no context variable."""
    global _find_context  # noqa: PLW0603 - one log, one way to ask, for the life of the process
    _find_context = find


_find_context: Callable[[], Mapping[str, Any]] = dict


def json_renderer(secrets: Iterable[str]) -> Render:
    """Return what writes an entry as a line of JSON, without these secrets."""
    hide = _hider([*secrets, *(orjson.dumps(secret).decode()[1:-1] for secret in secrets)])

    def render(entry: Entry) -> str:
        line = orjson.dumps({**entry, "timestamp": _iso(entry["timestamp"])}, default=repr, option=_JSON_OPTIONS)
        return hide(line.decode())

    return render


def console_renderer(secrets: Iterable[str], *, colours: bool) -> Render:
    """Return what writes an entry for people, without these secrets."""
    import structlog  # noqa: PLC0415 - JSON has no use for it, and it takes four megabytes

    hide = _hider([*secrets, *(repr(secret)[1:-1] for secret in secrets)])
    renderer = structlog.dev.ConsoleRenderer(
        colors=colours,
        pad_event_to=24,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(entry: Entry) -> str:
        shown = {name: value for name, value in entry.items() if value is not None and name not in _FOR_MACHINES}
        shown |= {name: shown.pop(name) for name in _IDS if name in shown}  # last: they are long
        shown["timestamp"] = _local(entry["timestamp"])
        if (places := shown.pop("traceback", None)) is not None:
            shown["exception"] = places
        return hide(str(renderer(None, "", shown)))

    return render


def secrets_of(settings: Settings) -> list[str]:
    """Return what no line may hold: API keys, passwords of Redis, and what Loki asks for."""
    variables = [model.api_key_env for model in settings.models.values()] + [settings.logging.loki_authorization_env]
    found = {os.environ.get(name, "") for name in variables if name}
    found |= {value.split()[-1] for value in found if " " in value}  # behind "Bearer" or "Basic"
    for url in (settings.redis_url, settings.broker_url, settings.result_url, settings.logging.loki_url):
        password = urlsplit(url or "").password or ""
        found |= {password, unquote(password)}
    return sorted(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS


def _hider(secrets: Iterable[str]) -> Callable[[str], str]:
    known = sorted(set(secrets), key=len, reverse=True)

    def hide(line: str) -> str:
        for secret in known:
            if secret in line:
                line = line.replace(secret, HIDDEN)
        if "@" in line and "://" in line:
            line = _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}", line)
        return line

    return hide


def _extras(record: logging.LogRecord) -> Entry:
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
    if record.name.startswith(_CELERY):
        task = given.get("data") or {}
        return {"task": task["name"], "task_id": task["id"]} if "name" in task and "id" in task else {}
    return {name: value if isinstance(value, (str, int, float, bool)) else repr(value) for name, value in given.items()}


def _task_context() -> Entry:
    """Name the running task: one of the user's own, for a prediction says so itself."""
    task = get_current_task()
    return {"task": task.name, "task_id": task.request.id} if task is not None and task.request else {}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - the time of whoever looks
