"""A job's header and request, read and checked against this worker's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from celery.app.task import Context

from dspyq.cache.claims import process_claims
from dspyq.config.settings import get_settings
from dspyq.core.names import HEADER
from dspyq.delivery.task_run import delivery_of
from dspyq.errors import InvalidRequest, VariantMismatch
from dspyq.experiments.exposure import read_exposure
from dspyq.prediction.header import Header
from dspyq.prediction.request import Request, build_request, hashes_of_job
from dspyq.worker.prediction_run import claim_of
from dspyq.worker.versions import leave_to_a_newer_worker, leave_to_its_version, mismatch, unknown_needs


def read_header(context: Context, inputs: Mapping[str, Any]) -> Header:
    """Return the header of a job.

    Raises:
        InvalidRequest: If it cannot be read, or its queue and inputs are no program's where there is none.
    """
    stated = context.get(HEADER)
    if stated is None:  # published by name, without Predict.apply_async
        program, variant = _named_by_queue(context)
        return build_request(inputs, program=program, variant=variant).header(is_claimed=False)
    try:
        return Header.read(stated)
    except InvalidRequest:
        _free_question(context, stated)
        raise


def _named_by_queue(context: Context) -> tuple[str | None, str | None]:
    """Return the program and variant of a job's queue; None for each if it is no variant's."""
    name, _, variant = str((context.delivery_info or {}).get("routing_key")).partition(".")
    program = get_settings().programs.get(name)
    return (name, variant) if program is not None and variant in program.variants else (None, None)


def _free_question(context: Context, stated: object) -> None:
    """Release the claim on a question so that its next caller computes it, if an unreadable header still names it."""
    known = stated if isinstance(stated, Mapping) else {}
    names = [known.get(name) for name in ("program", "variant", "input_hash")]
    if all(isinstance(name, str) for name in names):
        program, variant, input_hash = map(str, names)
        header = Header(program, variant, "", input_hash, "", refresh=False, is_claimed=False)
        process_claims().release(header, claim_of(context), {"failures": 1})


def read_request(context: Context, header: Header, inputs: Mapping[str, Any], *, is_served: bool) -> Request:
    """Return the request of the job's producer.

    Raises:
        Ignore: If this worker's answer would not belong under the same key; then another worker takes the job.
        VariantMismatch: If no worker of its version came for too long.
    """
    claim = claim_of(context)
    if needs := unknown_needs(header):
        longest = get_settings().delivery.version_wait_seconds
        leave_to_a_newer_worker(context, header, needs, longest)
        process_claims().release(header, claim, {"failures": 1})
        raise VariantMismatch(
            f"for {longest:g} s (delivery.version_wait_seconds) no worker that supports {', '.join(needs)} took a "
            f"job of {header.queue}: upgrade workers before producers, then ask again"
        )
    program = get_settings().programs.get(header.program)
    fingerprint = program.fingerprints.get(header.variant) if program else None
    if program is None or fingerprint != header.fingerprint or not is_served:
        reason = mismatch(header, fingerprint)
        if not delivery_of(context).is_given_up:
            leave_to_its_version(context, header, reason)
        process_claims().release(header, claim, {"failures": 1})
        raise VariantMismatch(
            f"for {get_settings().delivery.version_wait_seconds:g} s (delivery.version_wait_seconds) no worker could "
            f"answer a job of {header.queue}: they {reason}; give producers and workers the same configuration file "
            "and state files, then ask again"
        )
    canonical = orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)
    if header.input_hash not in _hashes(header, canonical):
        process_claims().release(header, claim, {"failures": 1})
        raise InvalidRequest(
            f"a job of {header.queue} holds other inputs than its producer asked with: something changed its message"
        )
    variant = program.variants[header.variant]
    served = program.served[variant.name]
    exposure = read_exposure(header.program, header.exposure)
    return Request(
        served,
        variant,
        canonical,
        header.input_hash,
        header.request_id,
        header.refresh,
        exposure=exposure,
        scope=header.scope,
        tenant=header.tenant,
    )


def _hashes(header: Header, canonical: bytes) -> Iterator[str]:
    """Yield the hashes that a job's question may have; its producer's file states who shares the answer."""
    for owner in dict.fromkeys((header.tenant, "")):
        yield from hashes_of_job(header.program, header.fingerprint, canonical, header.scope, owner)
