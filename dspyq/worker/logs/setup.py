"""Setup of our log writer in place of Celery's handlers; ``-l``, ``-f`` and ``--no-color`` keep their meaning."""

from __future__ import annotations

import atexit
import functools
import logging
import sys
from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from dspyq.celery_app.application import app
from dspyq.config.settings import Settings, get_settings
from dspyq.core.names import TASK_NAME
from dspyq.errors import ConfigurationError
from dspyq.worker.logs import tasks
from dspyq.worker.logs.loki import Loki
from dspyq.worker.logs.render import Render, console_renderer, json_renderer
from dspyq.worker.logs.writer import Writer
from dspyq.worker.refusal import refuse

#: Longest delay of a worker's end by a slow reader, or by a Loki that does not answer.
_FLUSH_SECONDS = 2.0
#: Celery's records of each task, with inputs and results; our entries replace them.
_RECEIVED, _TRACED = logging.getLogger("celery.worker.strategy"), logging.getLogger("celery.app.trace")

_open: list[Writer | Loki] = []


def connect() -> None:
    """Connect this module to Celery's signal for the setup of a log, in workers and in beat."""
    signals.after_setup_logger.connect(_take_over, weak=False)
    signals.after_setup_task_logger.connect(_pass_on, weak=False)


def close() -> None:
    """Write and push waiting entries within the given time; called last, and before a process is ended."""
    for each in _open:
        each.flush(_FLUSH_SECONDS) if isinstance(each, Writer) else each.close(_FLUSH_SECONDS)


def is_json(settings: Settings) -> bool:
    """Return True if standard error gets JSON."""
    stated = settings.logging.format
    return stated == "json" or (stated == "auto" and not sys.__stderr__.isatty())  # type: ignore[union-attr]  # a worker has one


def route_structlog() -> None:
    """Route the programs' structlog loggers to this log, unless the programs configured structlog themselves.

    It is not imported if no program has done so: with its dependencies, it takes four megabytes.
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
    """Replace the handler that Celery has just given to the root logger."""
    if not app.conf.worker_hijack_root_logger:
        return  # then the user has handlers of their own
    settings = get_settings()
    as_json = json_renderer()
    render: Render = as_json if logfile or is_json(settings) else console_renderer(colours=bool(colorize))
    options: dict[str, Any] = {"count_dropped": functools.partial(_count_dropped, "stderr")}
    if settings.logging.loki_url:
        loki = _loki(settings, as_json)
        options["push"] = loki.push
        _open.append(loki)
    (target,) = logger.handlers
    writer = Writer(target, render, **options)  # type: ignore[arg-type]  # Celery makes no others
    _open.insert(0, writer)
    atexit.register(close)
    logger.handlers = [writer]
    logger.setLevel(_level(settings, logger.level))
    _replace_task_records()


def _loki(settings: Settings, as_json: Render) -> Loki:
    try:
        return Loki(settings.logging, as_json, count_dropped=functools.partial(_count_dropped, "loki"))
    except ConfigurationError as error:
        refuse(error)


def _pass_on(logger: logging.Logger, **_: Any) -> None:
    """Propagate task loggers to the root logger, which has the only handler."""
    if app.conf.worker_hijack_root_logger:
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _level(settings: Settings, stated: int) -> int:
    """Return the level of ``-l`` if stated; Celery's own default would hide entries of predictions."""
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
    """Drop Celery's record of a failed prediction, but not of a failure that could not be handled."""
    task = record.__dict__.get("data") or {}
    return record.levelno >= logging.CRITICAL or task.get("name") != TASK_NAME


def _count_dropped(sink: str, number: int) -> None:
    from dspyq.guards.metrics import LOG_ENTRIES_DROPPED  # noqa: PLC0415 - beat has no metrics

    LOG_ENTRIES_DROPPED.labels(sink).inc(number)
