"""Body of ``predict`` in a worker: check the cache once more, run the program, account for its calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NoReturn

import orjson
import redis
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.cache.claim import Claim, Run
from dspyq.cache.moves import look_where_it_is
from dspyq.client.predict import install_body
from dspyq.config.secrets import process_secrets
from dspyq.config.settings import get_settings
from dspyq.config.variants import Variant
from dspyq.core.events import Event
from dspyq.delivery.task import park, sleep
from dspyq.delivery.task_run import DeliveryProperties, delivery_of
from dspyq.errors import BudgetExceeded, ExperimentRefused, PredictionFailed, RedisUnavailable
from dspyq.experiments.shadows import is_under_way, process_shadow_log
from dspyq.guards.call_records import ANSWERED, NO_EARLIER_RUNS, EarlierRuns
from dspyq.guards.half_settled import settle_again
from dspyq.guards.interruptions import (
    ArmKilled,
    BatchRefusal,
    Deferral,
    FailPrediction,
    Interruption,
    JobLost,
    Refusal,
    RetryLater,
)
from dspyq.guards.killed import KilledArms, killed_error
from dspyq.guards.model import Guards
from dspyq.guards.queue_pauser import QueuePauser
from dspyq.prediction.prediction import AnsweredCaller, CacheLevel, metadata_from_json, to_json
from dspyq.prediction.request import Request
from dspyq.programs.runner import Runner
from dspyq.worker.elsewhere import ask_elsewhere
from dspyq.worker.monitoring.measuring import MeasuredBody
from dspyq.worker.monitoring.scoring import Scoring
from dspyq.worker.prediction_run import WAIT_IN_REDIS_SECONDS, PredictionRun, claim_of, job_run_of, leave, open_ledger
from dspyq.worker.received import read_header, read_request
from dspyq.worker.run_report import RunReport
from dspyq.worker.stand_in import served_instead
from dspyq.worker.streams import streamed

logger = logging.getLogger("dspyq.tasks")

_LOOK_AGAIN_SECONDS = (0.02, 0.5)
#: The claim read when its job was taken stays valid this long.
_CLAIM_IS_FRESH_SECONDS = 0.5
#: A job whose tenant may not pay looks so often for others that wait for the same answer, where tenants share it.
_SHARED_POSTPONEMENT_SECONDS = 2.0
#: Wait for another job's run in a thread, before it waits in Redis.
_WAIT_IN_THREAD_SECONDS = 2.0


class Body:
    """Body of ``predict`` in this worker.

    Args:
        runners: The programs it runs, by program and variant.
        guards: The guards of their models.
        pauser: The queues that are paused while a model cannot be called.
    """

    def __init__(self, runners: Mapping[tuple[str, str], Runner], guards: Guards, pauser: QueuePauser) -> None:
        self._runners = runners
        self._guards = guards
        self._pauser = pauser
        self._killed = KilledArms(guards.client)

    def __call__(self, task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the task's question, and report the run."""
        report = RunReport(task.request, inputs)
        try:
            answer = self._answer(task.request, inputs, report)
        except Ignore:  # parked, lost or revoked: another run reports the prediction's end
            raise
        except Exception as error:
            report.failed(error)
            raise
        report.answered(answer)
        return answer

    def _answer(self, context: Context, inputs: Mapping[str, Any], report: RunReport) -> dict[str, Any]:
        delivery, claim = delivery_of(context), claim_of(context)
        header = read_header(context, inputs)
        report.begin(context, header)
        is_served = (header.program, header.variant) in self._runners
        request = read_request(context, header, inputs, is_served=is_served)
        is_first_look = not header.is_claimed and not claim.is_repeated
        is_own = not claim.is_repeated and _was_its_own_when_taken(delivery)
        try:
            stored = None if is_own else _answered_by_another(context, request, claim, is_first_look=is_first_look)
            earlier = self._earlier(claim, request.variant) if stored is None else NO_EARLIER_RUNS
        except redis.RedisError as error:  # the job itself is fine
            logger.warning(Event("job_waits_for_redis", error=f"{type(error).__name__}: {error}"))
            leave(context, WAIT_IN_REDIS_SECONDS)
        if stored is not None:
            return stored
        batch = "" if header.batch == delivery.disowned_by else header.batch  # it has left the question to others
        job = job_run_of(request, claim, request.variant, batch, delivery.run_count)
        settle_again(self._guards, job, earlier)
        ledger = open_ledger(job, request, earlier)
        run = PredictionRun(context, inputs, request, claim, request.variant, ledger)
        if request.is_shadow:
            return self._run_unseen(run, report)
        is_streamed = (header.stream or delivery.is_streamed) and not batch
        with streamed(ledger, claim, request.tenant, is_wanted=is_streamed):
            return self._run(run, report)

    def _run(self, run: PredictionRun, report: RunReport) -> dict[str, Any]:
        """Answer by the run's own variant; on a refusal, do as its program's ``when_unavailable`` states."""
        request = run.request
        try:
            return self._compute(run, report)
        except RetryLater as postponement:
            report.interrupted(postponement)
            if postponement.seconds_left is not None:
                self._pauser.pause_until(request.queue, postponement.seconds_left)
            self._park(run, postponement.wait_seconds)
        except ArmKilled as killed:
            report.interrupted(killed)
            return self._stand_in(run, report)
        except Refusal as refusal:
            report.interrupted(refusal)
            if self._is_killed(run):  # its own model's state does not matter any more
                return self._stand_in(run, report)
            if request.program.when_unavailable == "wait":
                wait_seconds = refusal.wait_seconds
                if refusal.pauses_queue:
                    self._pauser.close(request.queue, refusal)
                    wait_seconds = 0.0  # in its queue, where a worker that may serve it takes it at its turn
                self._park(run, wait_seconds)
            if request.program.when_unavailable == "fallback":
                return self._fall_back(run, report)
            run.fail(refusal.error)
        except FailPrediction as ending:
            run.fail(ending.error)

    def _run_unseen(self, run: PredictionRun, report: RunReport) -> dict[str, Any]:
        """Answer a shadow run, for which no caller waits: a refusal ends it, and no other job waits for that."""
        self._end_if_over(run)
        try:
            return self._compute(run, report)
        except Ignore:
            raise
        except RetryLater as postponement:
            report.interrupted(postponement)
            self._park(run, postponement.wait_seconds)
        except (Refusal, ArmKilled) as interruption:
            report.interrupted(interruption)
            self._end_unseen(run, interruption.error)
            run.fail(interruption.error)
        except FailPrediction as ending:
            self._end_unseen(run, ending.error)
            run.fail(ending.error)
        except Exception as failure:
            self._end_unseen(run, failure)
            raise

    def _end_if_over(self, run: PredictionRun) -> None:
        """End a shadow run whose experiment was stopped or paused while it waited in its queue."""
        program, arm = run.request.program.name, run.request.variant.name
        try:
            if is_under_way(program, arm):
                return
        except RedisUnavailable:
            leave(run.context, WAIT_IN_REDIS_SECONDS)
        error = ExperimentRefused(f"the experiment of {program} does not run {arm} any more")
        self._end_unseen(run, error)
        run.fail(error)

    def _end_unseen(self, run: PredictionRun, error: Exception) -> None:
        reason: Literal["refused", "failed"] = "refused" if isinstance(error, BudgetExceeded) else "failed"
        with suppress(redis.RedisError):  # it is given up after a day
            process_shadow_log().end(run.request.program.name, run.claim.task_id, reason)

    def _compute(self, run: PredictionRun, report: RunReport) -> dict[str, Any]:
        """Run the program and return its answer.

        A call beyond its batch's limits ends it for the batch. Other callers still get the answer, at no cost to the
        batch. Where tenants share answers, a call beyond the limits of the tenant that pays is made at the expense of
        none, if others wait for it.

        Raises:
            Interruption: If a guard or the deadline ended it.
            PredictionFailed: If it failed; then the question is free again.
        """
        report.ledger = ledger = run.ledger
        try:
            answer = self._runners[run.request.program.name, run.variant.name].run(dict(run.inputs), ledger)
        except JobLost:
            raise Ignore from None
        except Deferral as deferral:
            self._sleep(run, deferral)
        except BatchRefusal as refusal:
            run.fail_batch(refusal.error)
            return self._compute(run.without_batch(), report)
        except Interruption as interruption:
            if interruption.is_of_tenant and self._is_for_others(run, interruption):
                return self._compute(run.without_tenant(), report)
            raise
        except BaseException as error:  # in Celery's threads it would strand the job
            failure = error if isinstance(error, Exception) else PredictionFailed(f"{type(error).__name__}: {error}")
            if all(call.outcome == ANSWERED for call in ledger.calls[-1:]):  # else the model failed, not the program
                logger.exception(Event("program_raised"), exc_info=failure)
            run.fail(failure)
        return to_json(process_secrets().scrub_answer(answer.outputs), run.metadata())

    def _is_for_others(self, run: PredictionRun, refusal: Interruption) -> bool:
        """Return True if a run that its tenant's limit refuses goes on for others; else have it ask again soon."""
        if run.request.program.share != "everyone":
            return False
        try:
            if run.is_awaited_by_others():
                return True
        except redis.RedisError:  # the next look decides
            pass
        if isinstance(refusal, Refusal | RetryLater):
            refusal.wait_seconds = min(refusal.wait_seconds, _SHARED_POSTPONEMENT_SECONDS)
        return False

    def _fall_back(self, refused: PredictionRun, report: RunReport) -> dict[str, Any]:
        """Return the configured outputs, or the other variant's answer; the cache serves neither."""
        program = refused.request.program
        if program.fallback_outputs is not None:
            return to_json(program.fallback_outputs, refused.metadata(fallback="outputs"))
        return self._answer_by(program.variants[str(program.fallback_variant)], refused, report)

    def _stand_in(self, killed: PredictionRun, report: RunReport) -> dict[str, Any]:
        """Return the answer of the variant that the experiment serves in place of a killed arm.

        A batch's row fails instead: it would pay for the answer of another variant. If others wait for the same
        question, all get that answer, at no cost to the batch.
        """
        program, arm = killed.request.program, killed.request.variant.name
        if killed.batch:
            killed.fail_batch(killed_error(program.name, arm))
            killed = killed.without_batch()
        try:
            name = served_instead(program)
        except RedisUnavailable:
            leave(killed.context, WAIT_IN_REDIS_SECONDS)
        if name is None or name == arm or name not in program.variants:
            killed.fail(killed_error(program.name, arm))
        if (program.name, name) not in self._runners:  # another worker serves it
            leave(killed.context, WAIT_IN_REDIS_SECONDS)
        return self._answer_by(program.variants[name], killed, report, waits=program.when_unavailable == "wait")

    def _answer_by(
        self, variant: Variant, refused: PredictionRun, report: RunReport, *, waits: bool = False
    ) -> dict[str, Any]:
        """Return another variant's answer, which is not cached.

        Args:
            variant: The variant.
            refused: The run in whose place it answers.
            report: The run's report.
            waits: Whether the job waits for it while it cannot be called either; else it fails.
        """
        try:
            earlier = self._earlier(refused.claim, variant)
        except redis.RedisError:
            leave(refused.context, WAIT_IN_REDIS_SECONDS)
        run = refused.as_fallback(variant, earlier)
        try:
            answer = self._compute(run, report)
        except RetryLater as postponement:
            self._park(refused, postponement.wait_seconds)
        except Refusal as refusal:
            if waits:
                self._park(refused, max(refusal.wait_seconds, WAIT_IN_REDIS_SECONDS))
            run.fail(refusal.error)
        except (FailPrediction, ArmKilled) as interruption:
            run.fail(interruption.error)
        return to_json(answer["outputs"], run.metadata(fallback=variant.name), answer.get("exact"))

    def _is_killed(self, run: PredictionRun) -> bool:
        try:
            return run.request.queue in self._killed
        except redis.RedisError:  # the refusal stands
            return False

    def _earlier(self, claim: Run, variant: Variant) -> EarlierRuns:
        return self._guards.journal.of(claim.task_id, variant.name) if claim.is_repeated else NO_EARLIER_RUNS

    def _sleep(self, run: PredictionRun, deferral: Deferral) -> NoReturn:
        """Put the job to sleep until its calls have landed."""
        self._remember_running_time(run)
        with suppress(redis.RedisError):  # then its lease runs out, and its next run sleeps
            sleep(run.context, deferral.longest_seconds, is_stray=run.ledger.is_stray)
        raise Ignore

    def _remember_running_time(self, run: PredictionRun) -> None:
        if run.request.program.deadline_seconds is not None and run.ledger.job is not None:
            with suppress(redis.RedisError):  # then the job has a little more time
                self._guards.journal.remember_running_time(run.ledger.job, run.ledger.running_seconds)

    def _park(self, run: PredictionRun, wait_seconds: float) -> NoReturn:
        self._remember_running_time(run)
        leave(run.context, wait_seconds)


def install(runners: Mapping[tuple[str, str], Runner], guards: Guards, pauser: QueuePauser, scoring: Scoring) -> None:
    """Install these programs as the body of ``predict``, with counting and scoring."""
    guards.predictors |= {names: runner.predictors for names, runner in runners.items()}
    install_body(MeasuredBody(Body(runners, guards, pauser), get_settings(), scoring))


def _answered_by_another(context: Context, request: Request, run: Run, *, is_first_look: bool) -> dict[str, Any] | None:
    """Return a stored answer, or that of another task in progress; None if this run must answer."""
    pause_seconds, longest_pause_seconds = _LOOK_AGAIN_SECONDS
    park_at = time.monotonic() + _WAIT_IN_THREAD_SECONDS
    waited_for: str | None = None
    while True:
        # A refresh ignores a stored answer, but accepts that of the refresh it waited for.
        asked = request._replace(refresh=False) if waited_for else request
        claim = look_where_it_is(asked, run, is_first_look=is_first_look and waited_for is None)
        if claim.verdict == "moved":
            return _copy(ask_elsewhere(context, request, run), request, run, "joined")
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
        if claim.verdict == "queued" or (time.monotonic() > park_at and not request.refresh):
            park(context, WAIT_IN_REDIS_SECONDS)
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, longest_pause_seconds)


def _was_its_own_when_taken(delivery: DeliveryProperties) -> bool:
    """Return True if the job was just taken with its own claim, so that no further look-up is needed."""
    seen_at = delivery.claim_seen_at
    return seen_at is not None and time.monotonic() - seen_at < _CLAIM_IS_FRESH_SECONDS


def _copy(claim: Claim, request: Request, run: Run, cache_level: CacheLevel) -> dict[str, Any]:
    """Return a stored answer as this task's own result: at no cost, unless this very task computed it before."""
    result: dict[str, Any] = orjson.loads(claim.result)["result"]
    if claim.task_id == run.task_id:
        return result
    asker = AnsweredCaller(request.variant.name, request.request_id, cache_level)
    metadata = metadata_from_json(result["metadata"]).seen_by(asker)
    return to_json(result["outputs"], metadata, result.get("exact"))
