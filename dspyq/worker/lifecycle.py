"""Lifecycle of a worker: steps before its first job and after its last."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import redis
from celery import signals
from click.core import ParameterSource

from dspyq.celery_app.application import app, configuration
from dspyq.celery_app.cancellations import store_cancelled
from dspyq.celery_app.revocation import notify_callers
from dspyq.config.settings import Settings, get_settings
from dspyq.core import process_tuning, systemd
from dspyq.core.events import Event
from dspyq.core.redis_address import parse_address
from dspyq.delivery.beat import process_beat
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.queues import stray_queues
from dspyq.delivery.quiet_queues import process_quiet_queues
from dspyq.delivery.served_spines import process_held_runs, process_served_spines
from dspyq.delivery.spine_shares import process_spine_share
from dspyq.delivery.versions import process_versions
from dspyq.errors import ConfigurationError, DspyqError, RedisUnavailable
from dspyq.guards.queue_pauser import QueuePauser, Upkeep
from dspyq.store.clients import answers_client, jobs_client, money_client, redis_errors
from dspyq.store.content import process_codec
from dspyq.store.server import look_at_server, look_at_servers
from dspyq.store.spines import current_spine
from dspyq.tracing.tracing import process_tracing
from dspyq.worker import consumer_watchdog, parent, privacy, shutdown
from dspyq.worker import scheduled_batches as batches
from dspyq.worker.logs import setup as logs
from dspyq.worker.logs.render import find_context_with
from dspyq.worker.refusal import refuse
from dspyq.worker.spine_pool import run_on_spines

if TYPE_CHECKING:
    from dspyq.guards.model import Guards
    from dspyq.store.server import Finding
    from dspyq.store.spines import Spine
    from dspyq.tracing.spans import Tracing
    from dspyq.worker.monitoring.scoring import Scoring
    from dspyq.worker.monitoring.serving import Monitoring
    from dspyq.worker.refereeing import Refereeing

logger = logging.getLogger("dspyq.worker")

#: Longest delay of a worker's end by a trace endpoint that does not answer.
_EXPORT_SECONDS = 3.0


#: Predictions run in threads, or one by one.
_POOLS = {"celery.concurrency.thread", "celery.concurrency.solo"}
#: Pattern in the command line's arguments, joined by NUL.
_ASKS_FOR_PREFORK = re.compile(r"\0(?:-P|--pool)[\0=]?prefork(?:\0|$)")


def refuse_a_faulty_configuration() -> None:
    """End the process with a line for each fault; Celery would show only the first, after a traceback."""
    try:
        get_settings()
    except ConfigurationError as error:
        refuse(error)


def connect() -> None:
    """Connect this module to Celery's signals; with strong references, as nothing else holds the receivers."""
    parent.end_with_parent()
    signals.celeryd_init.connect(privacy.hide_content, weak=False)
    logs.connect()
    signals.celeryd_after_setup.connect(_prepare, weak=False)
    signals.worker_init.connect(_leave_neighbors, weak=False)
    signals.worker_ready.connect(_begin, weak=False)
    signals.worker_shutting_down.connect(lambda **_: systemd.notify("STOPPING=1"), weak=False)
    signals.worker_shutting_down.connect(shutdown.begin, weak=False)
    signals.worker_shutdown.connect(_end, weak=False)
    signals.beat_init.connect(batches.begin_beat, weak=False)
    command = click.get_current_context(silent=True)  # Celery's command line, if it loads this module
    if command is not None and command.invoked_subcommand == "flower":
        _fit_flower()


def _fit_flower() -> None:
    from dspyq.worker import flower  # noqa: PLC0415 - only Flower itself is to load Flower

    privacy.hide_content()
    flower.fit(app)


def _prepare(instance: Any, **_: Any) -> None:
    """Build the programs of the queues this worker serves; on faults, print a line for each and do not start."""
    # Celery removes the working directory from the path once it has found this app; the user's programs are there.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        _fit_pool(instance)
        _check_broker(instance.app)
        _reach_redis()
        # DSPy is loaded here, not with this module, which Flower and beat load too without a need for DSPy.
        from dspyq.guards.call_journal import process_call_journal  # noqa: PLC0415 - as stated above, and so all of these
        from dspyq.guards.killed import KilledArms  # noqa: PLC0415 - as above
        from dspyq.guards.model import Guards  # noqa: PLC0415 - as above
        from dspyq.programs.runner import build_programs  # noqa: PLC0415 - as above
        from dspyq.programs.running_ledger import running_log_context  # noqa: PLC0415 - as above
        from dspyq.worker.body import install  # noqa: PLC0415 - as above
        from dspyq.worker.monitoring.scoring import Scoring  # noqa: PLC0415 - as above
        from dspyq.worker.monitoring.serving import Monitoring, WorkerParts  # noqa: PLC0415 - as above
        from dspyq.worker.refereeing import Refereeing  # noqa: PLC0415 - as above
        from dspyq.worker.versions import serve_versions  # noqa: PLC0415 - as above

        process_tuning.share_heaps()
        settings = get_settings()
        find_context_with(running_log_context)
        instance.quiet = instance.quiet or logs.is_json(settings)  # no banner among lines of JSON
        if tracing := process_tracing():
            tracing.become_global()
            _count_lost_spans(tracing)
        served = set(instance.app.amqp.queues.consume_from)
        guards = Guards(settings, money_client(), process_call_journal)
        pauser = QueuePauser(process_pauses(), KilledArms(money_client()).queues)
        refereeing = Refereeing(settings, money_client(), instance.hostname)
        runners = build_programs(settings, served, guards)
        scoring, upkeep = Scoring(settings, served, guards), Upkeep(guards.catch_up, pauser.resume_due)
        serve_versions(settings, runners)
        install(runners, guards, pauser, scoring)
        _serve_lanes(settings, guards)
        logs.route_structlog()
        monitoring = None
        if settings.metrics.port is not None:
            parts = WorkerParts(served, guards, process_held_runs(), process_pauses(), upkeep, scoring)
            monitoring = Monitoring(settings, parts)
        _run_beside_jobs(scoring, upkeep, refereeing, monitoring)
    except DspyqError as error:
        refuse(error)


def _run_beside_jobs(scoring: Scoring, upkeep: Upkeep, refereeing: Refereeing, monitoring: Monitoring | None) -> None:
    def begin(sender: Any, **_: Any) -> None:
        scoring.start()
        upkeep.start()
        refereeing.start()
        watched = consumer_watchdog.watch(sender)
        if monitoring is not None:
            monitoring.begin(watched)

    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutdown.connect(lambda **_: refereeing.stop(), weak=False)
    signals.worker_shutdown.connect(lambda **_: upkeep.stop(), weak=False)
    if monitoring is not None:
        signals.worker_shutting_down.connect(monitoring.end, weak=False)


def _serve_lanes(settings: Settings, guards: Guards) -> None:
    from dspyq.lane.service import LaneService  # noqa: PLC0415 - beat and Flower serve no lanes

    def serve(spine: Spine | None) -> LaneService:
        lanes = LaneService(settings, jobs_client(), guards, spine)
        signals.worker_shutdown.connect(lambda **_: lanes.stop(), weak=False)
        return lanes

    def start(**_: Any) -> None:
        for lanes in services:
            lanes.start()

    services = process_served_spines().on_each(lambda: serve(current_spine()))
    process_served_spines().on_new.append(lambda spine: serve(spine).start())
    signals.worker_ready.connect(start, weak=False)


def _count_lost_spans(tracing: Tracing) -> None:
    from dspyq.guards.metrics import SPANS_LOST  # noqa: PLC0415 - beat and Flower have no metrics

    if tracing.export is not None:
        tracing.export.count_lost = SPANS_LOST.inc


def _fit_pool(instance: Any) -> None:
    """Check the pool, and have its threads run on the spines of their jobs, where there are several."""
    _check_pool(instance.pool_cls)
    if process_served_spines().all:
        run_on_spines(instance.pool)


def _check_pool(pool: Any) -> None:
    """Refuse pools that fork: children would share their parent's leases, connections to models and counts."""
    # Celery treats prefork on its command line as its default, and uses the pool of the settings instead.
    is_asked_for = _ASKS_FOR_PREFORK.search("\0".join(sys.argv)) is not None
    if is_asked_for or pool.__module__ not in _POOLS:
        name = "prefork" if is_asked_for else pool.__module__.rpartition(".")[2]
        raise ConfigurationError(
            f"the {name} pool cannot run predictions: leave -P out (threads, which -c or workers.concurrency counts), "
            "and start more workers to use more processors"
        )


def _check_broker(app: Any) -> None:
    """Refuse a broker or result backend set by Celery's own options: producers would use another one."""
    settings = get_settings()
    wanted = configuration(settings)
    if not all(_is_broker(url, settings) for url in (app.conf.broker_url, *_stated("broker"))):
        raise ConfigurationError("the broker is another one than the settings': set DSPYQ_REDIS_URL, not Celery's -b")
    if app.conf.result_backend != wanted["result_backend"] or _stated("result_backend"):
        raise ConfigurationError("the result backend is another one than the settings': set DSPYQ_RESULT_URL instead")


def _stated(option: str) -> list[str]:
    """Return an option stated on Celery's command line, not one from the environment."""
    command = click.get_current_context(silent=True)
    if command is None or (root := command.find_root()).get_parameter_source(option) != ParameterSource.COMMANDLINE:
        return []
    return [root.params[option]]


def _is_broker(url: str, settings: Settings) -> bool:
    """Return True if a URL is the broker of the settings, or equivalent to it."""
    address = parse_address(settings.control_url)
    with suppress(ValueError):
        return url == address.celery_url or parse_address(url) == address
    return False


def _leave_neighbors(sender: Any, **_: Any) -> None:
    """Ask no other worker at this one's start where none obeys remote control."""
    if not sender.app.conf.worker_enable_remote_control:
        sender.options["without_mingle"] = True


def _reach_redis() -> None:
    process_codec()  # refuses keys that cannot be read
    with redis_errors("start the worker"):
        if (share := process_spine_share()) is not None:
            with _naming("DSPYQ_MONEY_URL"):
                process_served_spines().choose(share.choose())
        found = _look_at_all_servers(get_settings())
    if faults := [each.text for each in found if each.is_fault]:
        raise ConfigurationError(faults)
    for each in found:
        logger.warning(Event("redis_not_looked_at", reason=each.text))


def _look_at_all_servers(settings: Settings) -> list[Finding]:
    found = []
    for spine in process_served_spines().each():
        if spine is None:
            found += look_at_servers(settings, jobs_client(), answers_client())
        else:
            with _naming(f"DSPYQ_REDIS_URLS, for {spine.name},"):
                found += look_at_server(jobs_client(), f"redis_urls ({spine.name})", holds_jobs=True)
    if settings.money_url is not None:
        with _naming("DSPYQ_MONEY_URL"):
            found += look_at_server(money_client(), "money_url", holds_jobs=True)
    return found


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise RedisUnavailable(
            f"cannot start the worker: {type(error).__name__}; check {setting} and that its Redis is running"
        ) from error


def _begin(sender: Any, **_: Any) -> None:
    queues = sorted(sender.app.amqp.queues.consume_from)
    concurrency = sender.controller.concurrency
    served = process_served_spines()
    spines = {"spines": served.names} if served.all else {}
    logger.info(Event("worker_started", worker=sender.hostname, concurrency=concurrency, queues=queues, **spines))
    room = concurrency * sender.app.conf.worker_prefetch_multiplier or math.inf  # 0 is Celery's word for no limit
    held = process_held_runs()

    def consumed() -> list[str]:
        return list(sender.app.amqp.queues.consume_from)

    def begin(_: Spine | None) -> None:
        beat = process_beat()
        beat.sweeper.notify_callers, beat.sweeper.store_cancelled = notify_callers, store_cancelled
        process_versions().consumed = consumed
        beat.start()
        process_quiet_queues().start(consumed, lambda: held.held_count < room)

    for spine in served.each():
        begin(spine)
        with suppress(redis.RedisError):  # the beat logs it
            for stray in stray_queues():
                logger.warning(Event("queue_without_worker", reason=stray))
    served.on_new.append(begin)
    if (share := process_spine_share()) is not None:
        share.start()
    process_tuning.settle()
    systemd.notify("READY=1")


def _end(**_: Any) -> None:
    served = process_served_spines()
    if (share := process_spine_share()) is not None:
        share.stop()
    for _spine in served.each():
        process_quiet_queues().stop()
    shutdown.wait_for_batches()
    for _spine in served.each():
        process_beat().stop()
    if tracing := process_tracing():
        tracing.close(_EXPORT_SECONDS)
