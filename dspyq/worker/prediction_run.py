"""One run of a prediction's job by one variant, and how it ends without an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import redis
from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.cache.claim import Run
from dspyq.cache.claims import process_claims
from dspyq.cache.statistics import run_counts
from dspyq.config.variants import Variant
from dspyq.core.events import Event, log_context
from dspyq.delivery.task import park
from dspyq.delivery.task_run import delivery_of, task_run
from dspyq.guards.call_records import EarlierRuns, JobRun, ProgramAnswer
from dspyq.guards.ledger import Ledger
from dspyq.prediction.prediction import Metadata, Usage
from dspyq.prediction.request import Request
from dspyq.programs.run_spans import run_context
from dspyq.store.clients import jobs_client
from dspyq.store.keys import alias_key

logger = logging.getLogger("dspyq.tasks")

#: How long a job waits in Redis once it cannot go on in its thread.
WAIT_IN_REDIS_SECONDS = 1.0


@dataclass(frozen=True)
class PredictionRun:
    """One run.

    Attributes:
        context: The task's request.
        inputs: The prediction's inputs.
        request: The request.
        claim: The run in the form that claims use.
        variant: The variant that runs; for a fallback not the request's own.
        ledger: Its model calls.
    """

    context: Context
    inputs: Mapping[str, Any]
    request: Request
    claim: Run
    variant: Variant
    ledger: Ledger

    @property
    def batch(self) -> str:
        """The batch that pays; empty for none."""
        return self.ledger.job.batch if self.ledger.job else ""

    def without_batch(self) -> PredictionRun:
        """Return the run for callers other than its batch, on the replies it had."""
        return replace(self, ledger=self.ledger.without_batch())

    def without_tenant(self) -> PredictionRun:
        """Return the run for callers other than its tenant, on the replies it had."""
        return replace(self, ledger=self.ledger.without_tenant())

    def is_awaited_by_others(self) -> bool:
        """Return True if callers other than the paying tenant wait for the answer too.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return bool(jobs_client().hexists(alias_key(self.request.input_hash), "others"))

    def as_fallback(self, variant: Variant, earlier: EarlierRuns) -> PredictionRun:
        """Return the run of the variant that answers in place of its own."""
        job = job_run_of(self.request, self.claim, variant, self.batch)
        ledger = open_ledger(job, self.request, earlier)
        ledger.tap = self.ledger.tap
        return replace(self, variant=variant, ledger=ledger)

    def metadata(self, fallback: str | None = None) -> Metadata:
        """Return its answer's metadata; usage and cost cover all runs of the job.

        Args:
            fallback: The variant that answered in place of its own, or ``outputs`` for configured ones.
        """
        spent = self._spent
        return Metadata(
            program=self.request.program.name,
            variant=self.request.variant.name,
            model=self.variant.model.model,
            input_hash=self.request.input_hash,
            request_id=self.request.request_id,
            timestamp=time.time(),
            usage=Usage(spent.prompt_tokens, spent.completion_tokens),
            cost_usd=spent.cost_usd,
            duration_seconds=self.ledger.running_seconds,
            fallback=fallback,
            finish_reason=None if fallback == "outputs" else self.ledger.finish_reason,
        )

    def fail(self, error: Exception) -> NoReturn:
        """End it without an answer: its question is free again.

        Raises:
            Ignore: If another run has the job, or it was revoked: this run then ends silently.
            Exception: The error, for its callers.
        """
        self._release("", error)
        raise error

    def fail_batch(self, error: Exception) -> None:
        """Fail as ``fail`` does; return instead if other callers than the paying batch wait for the answer."""
        self._release(self.batch, error)

    def _release(self, batch: str, error: Exception) -> None:
        spent = self._spent
        counts = run_counts(
            is_success=False,
            duration_seconds=self.ledger.running_seconds,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=spent.cost_usd,
        )
        try:
            release = process_claims().release_for(batch, self.request, self.claim, counts)
        except redis.RedisError as problem:  # else callers would get it in place of the run's own error
            logger.warning(Event("job_waits_for_redis", error=f"{type(problem).__name__}: {problem}"))
            leave(self.context, WAIT_IN_REDIS_SECONDS)
        if release == "lost":
            raise Ignore from error
        if release == "ended":
            task_run(self.context).spent = {
                "cost_usd": spent.cost_usd,
                "prompt_tokens": spent.prompt_tokens,
                "completion_tokens": spent.completion_tokens,
                "duration_seconds": self.ledger.running_seconds,
            }
            raise error

    @property
    def _spent(self) -> ProgramAnswer:
        return ProgramAnswer(outputs={}, calls=self.ledger.calls)


def claim_of(context: Context) -> Run:
    """Return the run of a task's request, in the form that claims use."""
    delivery = delivery_of(context)
    return Run.of_delivery_tag(context.id, delivery.tag, delivery.run_count)


def job_run_of(request: Request, claim: Run, variant: Variant, batch: str, run_count: int = 1) -> JobRun:
    """Return the owner of a run's model calls."""
    alias = alias_key(request.input_hash) if batch else ""
    names = request.program.name, variant.name
    return JobRun(
        claim.task_id,
        claim.fence,
        *names,
        run_count,
        batch,
        alias,
        question=request.input_hash,
        payer="shadow" if request.is_shadow else "",
        tenant=request.tenant,
    )


def open_ledger(job: JobRun, request: Request, earlier: EarlierRuns) -> Ledger:
    """Return the ledger of a run, for the threads of its program."""
    ledger = Ledger(job, earlier, request.program.deadline_seconds)
    ledger.log_context, ledger.trace_context = log_context.get(), run_context()
    return ledger


def leave(context: Context, wait_seconds: float) -> NoReturn:
    """Return a run's job to its queue, now or later.

    Raises:
        Ignore: Always.
    """
    with suppress(redis.RedisError):  # then its lease runs out
        park(context, wait_seconds)
    raise Ignore
