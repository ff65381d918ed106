"""Keep users' inputs and models' outputs out of a worker's log and its replies to ``celery inspect``.

Records are cleaned where Python creates them, so that this holds for every handler, format and level. It covers our
own records, those of the libraries that handle jobs, and a running program's prints and warnings. Users' own loggers
are left alone: they log content deliberately.
"""

from __future__ import annotations

import logging
import re
import threading
import traceback
from typing import Any

import celery
import redis
from celery.app import trace
from celery.worker.consumer import consumer
from kombu.exceptions import OperationalError

from dspyq.config.privacy import HIDDEN, exception_type, hides_content
from dspyq.core.events import Event
from dspyq.delivery.task import DeliveredTask

logger = logging.getLogger(__name__)

_PACKAGES = frozenset({
    "asyncio", "celery", "concurrent", "config", "dspyq", "flower", "kombu", "producer", "tornado", "workers",
})  # fmt: skip
#: Fields that Celery's records on a task may show.
_SHOWN_FIELDS = frozenset({"description", "eta", "hostname", "id", "internal", "name", "runtime"})
#: Celery's records that contain a message's body as text.
_DUMPS = frozenset({
    consumer.INVALID_TASK_ERROR, consumer.MESSAGE_DECODE_ERROR, consumer.UNKNOWN_FORMAT, consumer.UNKNOWN_TASK_ERROR,
})  # fmt: skip
#: Loggers of pools, which log every call as text.
_POOL = "celery.pool"
#: Loggers whose messages are about Redis, which operators need.
_REDIS_ERRORS = (redis.RedisError, OperationalError)
_WARNING = re.compile(r".*?:\d+: \w+: ")
_OUTSIDE_BODY = "Exception raised outside body: "


def hide_content(**_: Any) -> None:
    """Hide content for the life of this process, unless ``logging.include_content`` is set."""
    if not hides_content():
        return
    DeliveredTask.Request = "dspyq.worker.job_request:JobRequest"
    trace.saferepr = _hide  # the text of a result, which is never shown and slow to make
    make_record = logging.getLogRecordFactory()

    def make_record_without_content(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        _clean(record)
        return record

    logging.setLogRecordFactory(make_record_without_content)
    logging.getLogger("celery.redirected").addFilter(_Printed())
    threading.excepthook = _report_thread


def _hide(*_: Any) -> str:
    return HIDDEN


class _Printed(logging.Filter):
    """Filter that drops what programs print, and logs that once."""

    _has_said_so = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Filter a piece of printed text."""
        if not _may_be_a_program():
            return True
        if self._has_said_so:
            return False
        self._has_said_so = True
        record.msg = "what programs print is left out; logging.include_content = true shows it"
        return True


def _report_thread(ended: threading.ExceptHookArgs) -> None:
    """Log that a thread was ended by an exception; Python would print it."""
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        logger.error(Event("thread_ended", error=ended.exc_type.__name__), exc_info=ended.exc_value)


def _clean(record: logging.LogRecord) -> None:
    if record.name == "py.warnings":
        record.msg, record.args = _clean_warning(record.getMessage()), ()
    elif record.name.partition(".")[0] in _PACKAGES:
        _clean_arguments(record)
        if record.exc_info and record.exc_info[1]:
            record.exc_text = _clean_traceback(record.exc_info[1])
        record.exc_info = None


def _may_be_a_program() -> bool:
    """Return True if this is a task's thread, or may have been started by one."""
    return bool(celery.current_task) or threading.current_thread() is not threading.main_thread()


def _clean_warning(text: str) -> str:
    place = _WARNING.match(text)
    if place and text.startswith(_OUTSIDE_BODY, place.end()):
        return f"{place[0]}{_OUTSIDE_BODY}{exception_type(text[place.end() + len(_OUTSIDE_BODY) :])}"
    if _may_be_a_program():
        return f"{place[0]}{HIDDEN}" if place else HIDDEN
    return text


def _clean_arguments(record: logging.LogRecord) -> None:
    given = record.args
    if isinstance(given, dict):
        # In place: Celery passes the same dict as ``record.data``, which some formatters write whole.
        given.update({name: _clean_field(name, value) for name, value in given.items()})
    elif isinstance(given, tuple):
        shows_text = record.msg not in _DUMPS and record.name != _POOL
        arguments = [_clean_argument(value, shows_text=shows_text) for value in given]
        if record.msg == consumer.UNKNOWN_TASK_ERROR:
            arguments[0] = str(given[0])  # a KeyError, whose text is the task's name
        record.args = tuple(arguments)


def _clean_field(name: str, value: object) -> object:
    if name == "exc":
        return exception_type(str(value))
    return value if name in _SHOWN_FIELDS else HIDDEN


def _clean_argument(value: object, *, shows_text: bool) -> object:
    """Keep numbers, texts and Redis's errors; show any other exception, message or collection by its type."""
    if isinstance(value, str):
        return value if shows_text else HIDDEN
    if value is None or isinstance(value, (int, float, *_REDIS_ERRORS)):
        return value
    return type(value).__name__


def _clean_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and its causes, with types in place of texts.

    Lines of code are left out too, as they may contain texts.
    """
    parts: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = [
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_qualname}\n'
            for frame, line in traceback.walk_tb(cause.__traceback__)
        ]
        parts.append(f"Traceback (most recent call last):\n{''.join(frames)}{type(cause).__name__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\nThis led to:\n\n".join(reversed(parts))
