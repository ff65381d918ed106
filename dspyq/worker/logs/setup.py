"""Puts our writer where Celery sets up handlers of its own; ``-l``, ``-f`` and ``--no-color`` keep their meaning."""

from __future__ import annotations

import atexit
import functools
import logging
import sys
from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from dspyq.celery_app.application import TASK_NAME, app
from dspyq.config.settings import Settings, get_settings
from dspyq.worker.logs import tasks
from dspyq.worker.logs.loki import Loki
from dspyq.worker.logs.render import Render, console_renderer, json_renderer, secrets_of
from dspyq.worker.logs.writer import Writer

#: What a slow reader, and a Loki that does not answer, may cost the end of a worker.
_FLUSH_SECONDS = 2.0
#: Celery's records of each task, with inputs and results; entries of ours stand in their place.
_RECEIVED, _TRACED = logging.getLogger("celery.worker.strategy"), logging.getLogger("celery.app.trace")

_open: list[Writer | Loki] = []


def connect() -> None:
    """Have Celery call this module whenever it sets up a log: in workers, and in beat."""
    signals.after_setup_logger.connect(_take_over, weak=False)
    signals.after_setup_task_logger.connect(_pass_on, weak=False)


def close() -> None:
    """Write and push what waits, so long at most; called last of all, and before a process is ended."""
    for each in _open:
        each.flush(_FLUSH_SECONDS) if isinstance(each, Writer) else each.close(_FLUSH_SECONDS)


def is_json(settings: Settings) -> bool:
    """Whether standard error is to get JSON."""
    stated = settings.logging.format
    return stated == "json" or (stated == "auto" and not sys.__stderr__.isatty())  # type: ignore[union-attr]  # a worker has one


def route_structlog() -> None:
    """Have the programs' structlog loggers say it here too, unless they set structlog up by themselves.

    Where none has loaded it, nor will: it takes four megabytes, with what it loads.
    """
    structlog = sys.modules.get("structlog")
    if structlog is None or structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _take_over(logger: logging.Logger, logfile: Any, colorize: bool, **_: Any) -> None:  # noqa: FBT001 - Celery's signature
    """Write what the root logger gets, in place of the handler that Celery gave it a moment ago."""
    if not app.conf.worker_hijack_root_logger:
        return  # whoever says so has handlers of their own
    settings = get_settings()
    secrets = secrets_of(settings)
    as_json = json_renderer(secrets)
    render: Render = as_json if logfile or is_json(settings) else console_renderer(secrets, colours=bool(colorize))
    options: dict[str, Any] = {"count_dropped": functools.partial(_count_dropped, "stderr")}
    if settings.logging.loki_url:
        loki = Loki(settings.logging, as_json, count_dropped=functools.partial(_count_dropped, "loki"))
        options["push"] = loki.push
        _open.append(loki)
    (target,) = logger.handlers
    writer = Writer(target, render, **options)  # type: ignore[arg-type]  # Celery makes no others
    _open.insert(0, writer)
    atexit.register(close)
    logger.handlers = [writer]
    logger.setLevel(_level(settings, logger.level))
    _replace_task_records()


def _pass_on(logger: logging.Logger, **_: Any) -> None:
    """Have loggers of tasks say it to the root logger as well, which has the one handler."""
    if app.conf.worker_hijack_root_logger:
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _level(settings: Settings, stated: int) -> int:
    """The level of ``-l`` where it was given: Celery's own default would leave out what predictions did."""
    context = click.get_current_context(silent=True)
    if context is not None and context.get_parameter_source("loglevel") is ParameterSource.COMMANDLINE:
        return stated
    return logging.getLevelNamesMapping()[settings.logging.level]


def _replace_task_records() -> None:
    _RECEIVED.setLevel(logging.WARNING)
    _TRACED.setLevel(logging.WARNING)
    _TRACED.addFilter(_is_no_prediction)
    tasks.connect()


def _is_no_prediction(record: logging.LogRecord) -> bool:
    """Leave out that a prediction failed, but not that its failure could not be handled."""
    task = record.__dict__.get("data") or {}
    return record.levelno >= logging.CRITICAL or task.get("name") != TASK_NAME


def _count_dropped(sink: str, number: int) -> None:
    from dspyq.guards.metrics import LOG_ENTRIES_DROPPED  # noqa: PLC0415 - beat has no metrics

    LOG_ENTRIES_DROPPED.labels(sink).inc(number)
