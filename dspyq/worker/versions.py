"""Jobs of another version than this worker's: passed on to workers of their version, and logged for operators."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NoReturn

import redis
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.delivery.task import park, pass_on
from dspyq.delivery.task_run import delivery_of
from dspyq.delivery.versions import process_versions, version_queue
from dspyq.prediction.header import EXPERIMENT, TENANT, Header
from dspyq.store.spines import each_spine

logger = logging.getLogger("dspyq.tasks")

#: Features that a job may need and workers of this version have; later versions add names.
KNOWN_NEEDS = frozenset({EXPERIMENT, TENANT})
#: Longest delay of a job that needs more; the first times are shorter.
_LONGEST_WAIT_SECONDS = 30.0
#: The versions that were logged, at most this many: producers may send any number of versions.
_TOLD_AT_MOST = 1000
_told: set[str] = set()


def serve_versions(settings: Settings, runners: Mapping[tuple[str, str], object]) -> None:
    """Record this worker's version of each variant that it answers."""
    for _ in each_spine():
        for program, variant in runners:
            found = settings.programs[program]
            process_versions().serve(found.variants[variant].queue, found.fingerprints[variant])


def mismatch(header: Header, fingerprint: str | None) -> str:
    """Return the reason for which this worker cannot answer a job, to follow "it" or "they".

    Args:
        header: The job's.
        fingerprint: This worker's, of the same variant.
    """
    if fingerprint is None:
        return "have no such variant"
    return "do not serve it" if fingerprint == header.fingerprint else "have another fingerprint for it"


def leave_to_its_version(context: Context, header: Header, reason: str) -> NoReturn:
    """Pass a job on to workers of its version; log that once for each version.

    Raises:
        Ignore: Always.
    """
    version = version_queue(header.queue, header.fingerprint)
    _tell_once(header.queue, version, f"workers here {reason}")
    try:
        pass_on(context, version)
    except redis.RedisError as error:  # then its lease expires, and another worker takes it
        logger.warning(Event("job_waits_for_redis", error=type(error).__name__))
    raise Ignore


def unknown_needs(header: Header) -> list[str]:
    """Return the job's needs that are unknown to this worker."""
    return sorted(set(header.needs) - KNOWN_NEEDS)


def leave_to_a_newer_worker(context: Context, header: Header, needs: list[str], wait_seconds: float) -> None:
    """Return a job with unknown needs to its queue; return normally once no newer worker took it in ``wait_seconds``.

    Raises:
        Ignore: If the job was returned to its queue.
    """
    waits = [min(2.0**run, _LONGEST_WAIT_SECONDS) for run in range(delivery_of(context).run_count)]
    if sum(waits[:-1]) >= wait_seconds:
        return
    _tell_once(header.queue, f"{header.queue} {needs}", f"workers here do not know {', '.join(needs)}")
    try:
        park(context, waits[-1])
    except redis.RedisError as error:  # then its lease expires, and another worker takes it
        logger.warning(Event("job_waits_for_redis", error=type(error).__name__))
    raise Ignore


def _tell_once(queue: str, waits_in: str, reason: str) -> None:
    if waits_in not in _told and len(_told) < _TOLD_AT_MOST:
        _told.add(waits_in)
        logger.info(Event("jobs_left_to_another_version", queue=queue, waits_in=waits_in, reason=reason))
