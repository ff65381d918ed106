"""What ``predict`` does in a worker: look the question up once more, run the program, account for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import orjson
import redis
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.cache.claims import ALIAS_PREFIX, Claim, Run, process_claims
from dspyq.cache.statistics import run_counts
from dspyq.celery_app.application import HEADER
from dspyq.client.predict import install_body
from dspyq.config.models import Variant
from dspyq.config.settings import get_settings
from dspyq.core.events import Event, log_context
from dspyq.delivery.task import hand_back, park
from dspyq.errors import PredictionFailed, VariantMismatch
from dspyq.guards.interruptions import BatchRefusal, Ending, Interruption, Loss, Postponement, Refusal
from dspyq.guards.ledger import ANSWERED, NO_EARLIER_RUNS, Answer, EarlierRuns, Job, Ledger
from dspyq.guards.model import Guards
from dspyq.guards.queue_pauser import Gates
from dspyq.prediction.prediction import Asker, CacheLevel, Metadata, Usage, metadata_from_json, to_json
from dspyq.prediction.request import Header, Request, build_request
from dspyq.programs.run_spans import run_context
from dspyq.programs.runner import Runner
from dspyq.worker.monitoring.measuring import Measured
from dspyq.worker.monitoring.scoring import Scoring
from dspyq.worker.run_report import Report

logger = logging.getLogger("dspyq.tasks")

_LOOK_AGAIN_SECONDS = (0.02, 0.5)
#: What was seen of a claim when its job was taken is good for so long.
_CLAIM_IS_FRESH_SECONDS = 0.5
#: A job waits this long in a thread for another's run, and then in Redis, this long at a time.
_WAIT_IN_THREAD_SECONDS = 2.0
_WAIT_IN_REDIS_SECONDS = 1.0
#: A job that this worker cannot answer is taken again after this, doubled each time, up to the longest.
_HAND_BACK_SECONDS = 0.1
_LONGEST_HAND_BACK_SECONDS = 5.0


class Body:
    """What ``predict`` does in this worker.

    Args:
        runners: The programs it answers with, by program and variant.
        guards: What stands before their models.
        gates: The queues that are paused while a model cannot be called.
    """

    def __init__(self, runners: Mapping[tuple[str, str], Runner], guards: Guards, gates: Gates) -> None:
        self._runners = runners
        self._guards = guards
        self._gates = gates

    def __call__(self, task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the task's question, and tell of it."""
        report = Report(task.request, inputs)
        try:
            answer = self._answer(task.request, inputs, report)
        except Ignore:  # parked, lost or revoked: another run tells of the prediction's end
            raise
        except Exception as error:
            report.failed(error)
            raise
        report.answered(answer)
        return answer

    def _answer(self, context: Context, inputs: Mapping[str, Any], report: Report) -> dict[str, Any]:
        properties = context.properties or {}
        run = Run.of_delivery_tag(context.id, properties.get("delivery_tag"), properties.get("run_count", 1))
        header = _header(context, inputs)
        report.begin(header)
        request = _request(context, header, run, inputs, is_served=(header.program, header.variant) in self._runners)
        is_first_look = not header.is_claimed and not run.is_repeated
        is_own = not run.is_repeated and _was_its_own_when_taken(properties)
        try:
            stored = None if is_own else _answered_by_another(context, request, run, is_first_look=is_first_look)
            earlier = self._earlier(run, request.variant) if stored is None else NO_EARLIER_RUNS
        except redis.RedisError as error:  # nothing is wrong with the job
            logger.warning(Event("job_waits_for_redis", error=f"{type(error).__name__}: {error}"))
            _park(context, _WAIT_IN_REDIS_SECONDS)
        if stored is not None:
            return stored
        ledger = _ledger(request, run, request.variant, earlier, properties.get("run_count", 1), header.batch)
        try:
            return self._compute(context, request, run, request.variant, ledger, inputs)
        except Postponement as postponement:
            report.interrupted(postponement)
            if postponement.seconds_left is not None:
                self._gates.hold_up(request.queue, postponement.seconds_left)
            self._park(context, request, ledger, postponement.wait_seconds)
        except Refusal as refusal:
            report.interrupted(refusal)
            if request.program.when_unavailable == "wait":
                wait_seconds = refusal.wait_seconds
                if refusal.pauses_queue:
                    self._gates.close(request.queue, refusal)
                    wait_seconds = 0.0  # in its queue, where whoever may serve it takes it at its turn
                self._park(context, request, ledger, wait_seconds)
            if request.program.when_unavailable == "fallback":
                return self._fall_back(context, request, run, ledger, inputs)
            _fail(context, request, run, ledger, refusal.error)
        except Ending as ending:
            _fail(context, request, run, ledger, ending.error)

    def _compute(  # noqa: PLR0913, PLR0917 - all that a run is
        self,
        context: Context,
        request: Request,
        run: Run,
        variant: Variant,
        ledger: Ledger,
        inputs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Run the program and return its answer.

        What its batch may not spend ends it for the batch. Whoever else waits for the answer gets it, at no cost of the
        batch's.

        Raises:
            Interruption: If a guard or the deadline ended it.
            PredictionFailed: If it failed; then the question is free again.
        """
        context.ledger = ledger  # for whoever measures and tells of the run
        try:
            answer = self._runners[request.program.name, variant.name].run(dict(inputs), ledger)
        except Loss:
            raise Ignore from None
        except BatchRefusal as refusal:
            batch = ledger.job.batch if ledger.job else ""
            _fail_batch(context, request, run, ledger, refusal.error, batch=batch)
            return self._compute(context, request, run, variant, ledger.without_batch(), inputs)
        except Interruption:
            raise
        except BaseException as error:  # leaked into Celery's threads, it would strand the job
            failure = error if isinstance(error, Exception) else PredictionFailed(f"{type(error).__name__}: {error}")
            if all(call.outcome == ANSWERED for call in ledger.calls[-1:]):  # else its model failed, not the program
                logger.exception(Event("program_raised"), exc_info=failure)
            _fail(context, request, run, ledger, failure)
        return to_json(answer.outputs, _metadata(request, ledger, variant))

    def _fall_back(
        self, context: Context, request: Request, run: Run, refused: Ledger, inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the configured outputs, or what the other variant answers; the cache serves neither."""
        program = request.program
        if program.fallback_outputs is not None:
            return to_json(program.fallback_outputs, _metadata(request, refused, request.variant, fallback="outputs"))
        variant = program.variants[str(program.fallback_variant)]
        try:
            earlier = self._earlier(run, variant)
        except redis.RedisError:
            _park(context, _WAIT_IN_REDIS_SECONDS)
        batch = refused.job.batch if refused.job else ""
        ledger = _ledger(request, run, variant, earlier, run_count=1, batch=batch)
        try:
            answer = self._compute(context, request, run, variant, ledger, inputs)
        except Postponement as postponement:
            self._park(context, request, refused, postponement.wait_seconds)
        except (Refusal, Ending) as interruption:
            _fail(context, request, run, ledger, interruption.error)
        return to_json(answer["outputs"], _metadata(request, ledger, variant, fallback=variant.name))

    def _earlier(self, run: Run, variant: Variant) -> EarlierRuns:
        return self._guards.paid.of(run.task_id, variant.name) if run.is_repeated else NO_EARLIER_RUNS

    def _park(self, context: Context, request: Request, ledger: Ledger, wait_seconds: float) -> NoReturn:
        if request.program.deadline_seconds is not None and ledger.job is not None:
            with suppress(redis.RedisError):  # then the job has a little more time
                self._guards.paid.remember_running_time(ledger.job, ledger.running_seconds)
        _park(context, wait_seconds)


def install(runners: Mapping[tuple[str, str], Runner], guards: Guards, gates: Gates, scoring: Scoring) -> None:
    """Let ``predict`` answer with these programs, counted and scored."""
    install_body(Measured(Body(runners, guards, gates), get_settings(), scoring))


def _park(context: Context, wait_seconds: float) -> NoReturn:
    with suppress(redis.RedisError):  # then its lease runs out
        park(context, wait_seconds)
    raise Ignore


def _fail(context: Context, request: Request, run: Run, ledger: Ledger, error: Exception) -> NoReturn:
    """End a run without an answer: its question is free again.

    Raises:
        Ignore: If another run has the job, or it was revoked: this one has nothing to say.
        Exception: The error, for its callers.
    """
    _fail_batch(context, request, run, ledger, error, batch="")
    raise error


def _fail_batch(  # noqa: PLR0913 - as _fail
    context: Context, request: Request, run: Run, ledger: Ledger, error: Exception, *, batch: str
) -> None:
    """As ``_fail``, but return, and end nothing, where others wait for the answer than the batch that pays."""
    spent = Answer(outputs={}, calls=ledger.calls)
    counts = _counts(spent, ledger.running_seconds, is_success=False)
    release = process_claims().release_for(batch, request, run, counts)
    if release == "lost":
        raise Ignore from error
    if release == "ended":
        context.spent = {  # for the stored result
            "cost_usd": spent.cost_usd,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "duration_seconds": ledger.running_seconds,
        }
        raise error


def _ledger(  # noqa: PLR0913, PLR0917 - whose calls these are
    request: Request, run: Run, variant: Variant, earlier: EarlierRuns, run_count: int, batch: str
) -> Ledger:
    alias = ALIAS_PREFIX + request.input_hash if batch else ""
    job = Job(run.task_id, run.fence, request.program.name, variant.name, run_count, batch, alias)
    ledger = Ledger(job, earlier, request.program.deadline_seconds)
    ledger.log_context, ledger.trace_context = log_context.get(), run_context()
    return ledger


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
        asked = request._replace(refresh=False) if waited_for else request
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


def _was_its_own_when_taken(properties: Mapping[str, Any]) -> bool:
    """Whether taking the job told, a moment ago, that its question is claimed for it: then nobody need be asked."""
    seen_at = properties.get("claim_seen_at")
    return seen_at is not None and time.monotonic() - seen_at < _CLAIM_IS_FRESH_SECONDS


def _copy(claim: Claim, request: Request, run: Run, cache_level: CacheLevel) -> dict[str, Any]:
    """Return a stored answer as this task's own result: at no cost, unless this very task computed it before."""
    result: dict[str, Any] = orjson.loads(claim.result)["result"]
    if claim.task_id == run.task_id:
        return result
    asker = Asker(request.variant.name, request.request_id, cache_level)
    return to_json(result["outputs"], metadata_from_json(result["metadata"]).seen_by(asker))


def _metadata(request: Request, ledger: Ledger, variant: Variant, fallback: str | None = None) -> Metadata:
    """Say how an answer came about; what it took is all that its job paid, over all of its runs."""
    spent = Answer(outputs={}, calls=ledger.calls)
    return Metadata(
        program=request.program.name,
        variant=request.variant.name,
        model=variant.model.model,
        input_hash=request.input_hash,
        request_id=request.request_id,
        timestamp=time.time(),
        usage=Usage(spent.prompt_tokens, spent.completion_tokens),
        cost_usd=spent.cost_usd,
        duration_seconds=ledger.running_seconds,
        fallback=fallback,
    )


def _counts(answer: Answer, duration_seconds: float, *, is_success: bool) -> dict[str, int]:
    return run_counts(
        is_success=is_success,
        duration_seconds=duration_seconds,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost_usd=answer.cost_usd,
    )
