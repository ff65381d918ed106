"""Keeps what users wrote and what models answered out of the worker's log."""

from __future__ import annotations

import logging
from typing import Any

from config.settings import get_settings

#: Celery's loggers that print arguments, results and exceptions.
_CONTENT_LOGGERS = ("celery.app.trace", "celery.worker.request", "celery.worker.strategy", "celery.worker.job")
_CONTENT_FIELDS = ("args", "kwargs", "return_value", "exc", "traceback")


class _WithoutContent(logging.Filter):
    """Blanks the content of a record; an exception keeps the name of its type."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, dict):
            record.args = {
                name: "…" if name in _CONTENT_FIELDS and value is not None else value
                for name, value in record.args.items()
            }
        if record.exc_info and record.exc_info[0] is not None:
            record.msg = f"{record.msg} [{record.exc_info[0].__name__}]"
        record.exc_info = record.exc_text = None
        return True


def hide_content(**_: Any) -> None:
    """Filter Celery's own records, unless ``logging.include_content`` is set."""
    if get_settings().logging.include_content:
        return
    for name in _CONTENT_LOGGERS:
        logging.getLogger(name).addFilter(_WithoutContent())
