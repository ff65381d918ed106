"""A worker's life: what happens before it takes its first job and after its last."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from celery import signals

from dspyq.celery_app.application import app, configuration
from dspyq.celery_app.revocation import tell
from dspyq.config.settings import get_settings
from dspyq.core import process_tuning as memory
from dspyq.core.events import Event
from dspyq.delivery.leases import process_leases
from dspyq.delivery.pauses import process_pauses
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.guards.queue_pauser import Gates, Upkeep
from dspyq.store.clients import answers_client, jobs_client, redis_errors
from dspyq.tracing.tracing import process_tracing
from dspyq.worker import consumer_watchdog as progress
from dspyq.worker import privacy, shutdown
from dspyq.worker import scheduled_batches as batches
from dspyq.worker.logs import setup as logs
from dspyq.worker.logs.render import find_context_with

logger = logging.getLogger("dspyq.worker")

#: What an endpoint of traces that does not answer may cost a worker's end.
_EXPORT_SECONDS = 3.0


#: Predictions run in threads, or one by one.
_POOLS = {"celery.concurrency.thread", "celery.concurrency.solo"}
#: In the command line's arguments, joined by NUL.
_ASKS_FOR_PREFORK = re.compile(r"\0(?:-P|--pool)[\0=]?prefork(?:\0|$)")


def refuse_a_faulty_configuration() -> None:
    """End the process with a line for each fault: Celery would show the first of them at the end of a traceback."""
    try:
        get_settings()
    except ConfigurationError as error:
        refuse(error)


def connect() -> None:
    """Have Celery call this module; receivers are held strongly, for nothing else does."""
    signals.celeryd_init.connect(privacy.hide_content, weak=False)
    logs.connect()
    signals.celeryd_after_setup.connect(_prepare, weak=False)
    signals.worker_ready.connect(_begin, weak=False)
    signals.worker_shutting_down.connect(shutdown.begin, weak=False)
    signals.worker_shutdown.connect(_end, weak=False)
    signals.beat_init.connect(batches.begin_beat, weak=False)
    command = click.get_current_context(silent=True)  # Celery's command line, where it is what loads this module
    if command is not None and command.invoked_subcommand == "flower":
        _fit_flower()


def _fit_flower() -> None:
    from dspyq.worker import flower  # noqa: PLC0415 - only Flower itself is to load Flower

    privacy.hide_content()
    flower.fit(app)


def _prepare(instance: Any, **_: Any) -> None:
    """Build the programs of the queues this worker serves; say in a line each what is wrong, and do not start."""
    # Celery takes the working directory off the path again once it has found this app; the user's programs are there.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        _check_pool(instance.pool_cls)
        _check_broker(instance.app)
        _reach_redis()
        # DSPy is loaded here, not when this module is: Flower and beat load it too and have no use for DSPy.
        from dspyq.guards.model import Guards  # noqa: PLC0415
        from dspyq.programs.engine import running_log_context  # noqa: PLC0415
        from dspyq.programs.runner import build_programs  # noqa: PLC0415
        from dspyq.worker.body import install  # noqa: PLC0415
        from dspyq.worker.monitoring.scoring import Scoring  # noqa: PLC0415
        from dspyq.worker.monitoring.serving import Monitoring  # noqa: PLC0415

        memory.share_heaps()
        settings = get_settings()
        find_context_with(running_log_context)
        instance.quiet = instance.quiet or logs.is_json(settings)  # no banner among lines of JSON
        if tracing := process_tracing():
            tracing.become_global()
        served = set(instance.app.amqp.queues.consume_from)
        guards, gates = Guards(settings, jobs_client()), Gates(process_pauses())
        scoring, upkeep = Scoring(settings, served), Upkeep(guards.catch_up, gates.open_what_may_be)
        install(build_programs(settings, served, guards), guards, gates, scoring)
        logs.route_structlog()
        monitoring = None
        if settings.metrics.port is not None:
            monitoring = Monitoring(settings, served, guards, process_leases(), process_pauses(), upkeep, scoring)

        def begin(sender: Any, **_: Any) -> None:
            scoring.start()
            upkeep.start()
            watched = progress.watch(sender)
            if monitoring is not None:
                monitoring.begin(watched)

        signals.worker_ready.connect(begin, weak=False)
        signals.worker_shutdown.connect(lambda **_: upkeep.stop(), weak=False)
        if monitoring is not None:
            signals.worker_shutting_down.connect(monitoring.end, weak=False)
    except DspyqError as error:
        refuse(error)


def refuse(error: DspyqError) -> NoReturn:
    """End the process with a line for each fault."""
    for fault in error.faults if isinstance(error, ConfigurationError) else (str(error),):
        # Plain text, past the log: nothing runs yet, and whoever starts the worker reads it.
        print(f"dspyq: {fault}", file=sys.__stderr__)
    raise SystemExit(1) from None


def _check_pool(pool: Any) -> None:
    """Forked children would share what their parent holds: leases, connections to models and counts."""
    # Celery takes prefork on its command line for its own default, and the pool of the settings in its place.
    is_asked_for = _ASKS_FOR_PREFORK.search("\0".join(sys.argv)) is not None
    if is_asked_for or pool.__module__ not in _POOLS:
        name = "prefork" if is_asked_for else pool.__module__.rpartition(".")[2]
        raise ConfigurationError(
            f"the {name} pool cannot run predictions: leave -P out (threads, which -c or workers.concurrency counts), "
            "and start more workers to use more processors"
        )


def _check_broker(app: Any) -> None:
    """Celery's own ways of naming a broker or backend would have it listen, or store, where nobody else looks."""
    wanted = configuration(get_settings())
    if app.conf.broker_url != wanted["broker_url"]:
        raise ConfigurationError("the broker is another one than the settings': set DSPYQ_REDIS_URL, not Celery's -b")
    if app.conf.result_backend != wanted["result_backend"]:
        raise ConfigurationError("the result backend is another one than the settings': set DSPYQ_RESULT_URL instead")


def _reach_redis() -> None:
    with redis_errors("start the worker"):
        jobs_client().ping()
        answers_client().ping()


def _begin(sender: Any, **_: Any) -> None:
    queues = sorted(sender.app.amqp.queues.consume_from)
    concurrency = sender.controller.concurrency
    logger.info(Event("worker_started", worker=sender.hostname, concurrency=concurrency, queues=queues))
    leases = process_leases()
    leases.tell = tell
    leases.start()
    memory.settle()


def _end(**_: Any) -> None:
    shutdown.wait_for_batches()
    process_leases().stop()
    if tracing := process_tracing():
        tracing.close(_EXPORT_SECONDS)
