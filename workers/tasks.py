"""What ``predict`` does in a worker: look the question up once more, run the program, account for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import redis
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore

from config.celery import HEADER
from config.errors import PredictionFailed, VariantMismatch
from config.settings import get_settings
from producer.claims import Claim, Run, process_claims
from producer.delivery.task import hand_back, park
from producer.predict import install_body
from producer.prediction import Asker, CacheLevel, Metadata, Usage, metadata_from_json, to_json
from producer.request import Header, Request, build_request
from producer.statistics import run_counts
from workers.programs import Answer, Runner

logger = logging.getLogger("dspyq.tasks")

_LOOK_AGAIN_SECONDS = (0.02, 0.5)
#: A job waits this long in a thread for another's run, and then in Redis, this long at a time.
_WAIT_IN_THREAD_SECONDS = 2.0
_WAIT_IN_REDIS_SECONDS = 1.0
#: A job that this worker cannot answer is taken again after this, doubled each time, up to the longest.
_HAND_BACK_SECONDS = 0.1
_LONGEST_HAND_BACK_SECONDS = 5.0


def install(runners: Mapping[tuple[str, str], Runner]) -> None:
    """Let ``predict`` answer with these programs, by program and variant."""

    def answer(task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        context = task.request
        properties = context.properties or {}
        run = Run.of_delivery_tag(context.id, properties.get("delivery_tag"), properties.get("run_count", 1))
        header = _header(context, inputs)
        served = (header.program, header.variant)
        request = _request(context, header, run, inputs, is_served=served in runners)
        is_first_look = not header.is_claimed and not run.is_repeated
        try:
            stored = _answered_by_another(context, request, run, is_first_look=is_first_look)
        except redis.RedisError as error:  # nothing is wrong with the job
            logger.warning("job %s waits: Redis could not be asked for its answer: %s", context.id, error)
            with suppress(redis.RedisError):  # then its lease runs out
                park(context, _WAIT_IN_REDIS_SECONDS)
            raise Ignore from error
        return stored if stored is not None else _compute(request, run, runners[served], inputs)

    install_body(answer)


def _header(context: Context, inputs: Mapping[str, Any]) -> Header:
    stated = context.get(HEADER)
    if stated is None:  # published by name, past Predict.apply_async
        return build_request(inputs).header(is_claimed=False)
    return Header(**stated)


def _request(context: Context, header: Header, run: Run, inputs: Mapping[str, Any], *, is_served: bool) -> Request:
    """Return what the job's producer asked for.

    Raises:
        Ignore: If this worker would answer something else under the same key: then another is to take the job.
        VariantMismatch: If too many have given it back.
    """
    program = get_settings().programs.get(header.program)
    fingerprint = program.fingerprints.get(header.variant) if program else None
    if program is None or fingerprint != header.fingerprint or not is_served:
        hand_backs = (context.properties or {}).get("hand_backs", 0)
        if hand_backs < get_settings().delivery.max_hand_backs:
            hand_back(context, min(_HAND_BACK_SECONDS * 2**hand_backs, _LONGEST_HAND_BACK_SECONDS))
        process_claims().release(header, run, {"failures": 1})
        reason = "have no such variant" if fingerprint is None else "do not serve it"
        if fingerprint not in {None, header.fingerprint}:
            reason = "have another fingerprint for it"
        raise VariantMismatch(
            f"no worker can answer a job of {header.queue}: they {reason}; give producers and workers the same "
            "configuration file and state files"
        )
    canonical = orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)
    variant = program.variants[header.variant]
    return Request(program, variant, canonical, header.input_hash, header.request_id, header.refresh)


def _answered_by_another(context: Context, request: Request, run: Run, *, is_first_look: bool) -> dict[str, Any] | None:
    """Return the answer that is there or that another task is about to give; None if this run is to answer."""
    pause_seconds, longest_pause_seconds = _LOOK_AGAIN_SECONDS
    park_at = time.monotonic() + _WAIT_IN_THREAD_SECONDS
    waited_for: str | None = None
    while True:
        # A refresh passes over the answer that is there, but takes the one of the refresh it waited for.
        asked = replace(request, refresh=False) if waited_for else request
        claim = process_claims().look(asked, run, is_first_look=is_first_look and waited_for is None)
        if claim.verdict == "claim":
            return None
        if claim.verdict == "lost":
            raise Ignore  # another run has the job, or it was revoked
        if claim.verdict == "hit":
            if not request.refresh or claim.task_id in (waited_for, run.task_id):
                return _copy(claim, request, run, "joined" if waited_for else "redis")
            waited_for = None
            continue
        waited_for = claim.task_id
        if time.monotonic() > park_at and not request.refresh:
            park(context, _WAIT_IN_REDIS_SECONDS)
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, longest_pause_seconds)


def _copy(claim: Claim, request: Request, run: Run, cache_level: CacheLevel) -> dict[str, Any]:
    """Return a stored answer as this task's own result: at no cost, unless this very task computed it before."""
    result: dict[str, Any] = orjson.loads(claim.result)["result"]
    if claim.task_id == run.task_id:
        return result
    asker = Asker(request.variant.name, request.request_id, cache_level)
    return to_json(result["outputs"], metadata_from_json(result["metadata"]).seen_by(asker))


def _compute(request: Request, run: Run, runner: Runner, inputs: Mapping[str, Any]) -> dict[str, Any]:
    started_at = time.monotonic()
    try:
        answer = runner.run(dict(inputs))
    except BaseException as error:
        duration_seconds = time.monotonic() - started_at
        spent = Answer(outputs={}, calls=getattr(error, "calls", ()))
        counts = _counts(spent, duration_seconds, is_success=False)
        if not process_claims().release(request, run, counts):
            raise Ignore from error  # another run has the job, or it was revoked: this one has nothing to say
        if isinstance(error, Exception):
            raise
        # Leaked into Celery's threads, it would end the thread and strand the job.
        raise PredictionFailed(f"{type(error).__name__}: {error}") from error
    duration_seconds = time.monotonic() - started_at
    metadata = Metadata(
        program=request.program.name,
        variant=request.variant.name,
        model=request.variant.model.model,
        input_hash=request.input_hash,
        request_id=request.request_id,
        timestamp=time.time(),
        usage=Usage(answer.prompt_tokens, answer.completion_tokens),
        cost_usd=answer.cost_usd,
        duration_seconds=duration_seconds,
    )
    return to_json(answer.outputs, metadata)


def _counts(answer: Answer, duration_seconds: float, *, is_success: bool) -> dict[str, int]:
    return run_counts(
        is_success=is_success,
        duration_seconds=duration_seconds,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost_usd=answer.cost_usd,
    )
