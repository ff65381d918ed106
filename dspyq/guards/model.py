"""Guarded calls of each model: replay of paid replies, the guards, the provider and the bill.

The guards depend neither on each other nor on DSPy. On the good path a call costs two round trips: one checks all
guards, one settles the call and records its reply.
"""

from __future__ import annotations

import functools
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.core.runtime import current
from dspyq.errors import Unavailable
from dspyq.guards import metrics
from dspyq.guards.admission import Admission, CombinedGuards
from dspyq.guards.batch_lanes import BatchLane, BatchLanes
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.breaker import Breaker, BreakerCall
from dspyq.guards.breaker_state import BreakerPolicy, Suspect
from dspyq.guards.budget import Budget
from dspyq.guards.call import Call, CallFailure, CallReply, LineReader
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import ANSWERED, CallRecord, JobRun
from dspyq.guards.costs import OldBooks
from dspyq.guards.interruptions import Cut, Interruption, JobLost, Refusal
from dspyq.guards.lanes import Lanes
from dspyq.guards.ledger import Ledger, UnaccountedCall
from dspyq.guards.outbox import Outbox
from dspyq.guards.provider_gate import Closing, GateReason, Refused
from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
from dspyq.guards.spent import count_lone_refusals, count_refusals, count_spent, refused_of, suspect_of
from dspyq.store.scripts import Step

logger = logging.getLogger("dspyq.guards")

_BYTES_PER_TOKEN = 4
_WEIGHT_OF_THE_LATEST = 0.1
#: A worker that lacks a resource takes nothing from the queue for this long.
_SHORTAGE_SECONDS = 1.0
#: Kinds of failure that close a model's gate for the whole fleet.
_GATE_REASONS: dict[str, GateReason] = {"asks_to_wait": "retry_after", "account": "account"}


class Guard(Protocol):
    """Protocol of a guard before a model."""

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call."""


class Guards:
    """Every guard of a worker.

    Args:
        settings: The configuration.
        client: The Redis of money.
        journal: Returns the journal of the active spine; left out where one Redis holds jobs and money.

    Attributes:
        budget: The budget of all models together.
        outbox: Outbox of writes about calls.
        old_books: The books of past days.
        batch_lanes: The lane that each batch states.
        breakers: The circuit breaker of each model that is served here.
        line_readers: The engine of each, for replies that come by a lane.
        predictors: How many predictors a program's variant has, by the names of both: it makes as many calls or more.
        lanes: Lanes for the calls of batches that ask for one; None where no lane is served.
    """

    def __init__(
        self, settings: Settings, client: redis.Redis, journal: Callable[[], CallJournal] | None = None
    ) -> None:
        self.settings = settings
        self.client = client
        self.budget = Budget(client, settings)
        self._journal = journal or functools.partial(_itself, CallJournal(client))
        self.outbox = Outbox(client)
        self.old_books = OldBooks(client, settings)
        self.batch_lanes = BatchLanes(client)
        self.breakers: dict[str, Breaker] = {}
        self.line_readers: dict[str, LineReader] = {}
        self.predictors: dict[tuple[str, str], int] = {}
        self.lanes: Lanes | None = None
        self._of_models: dict[str, ModelGuard] = {}

    @property
    def journal(self) -> CallJournal:
        """Journal of the paid calls of the active spine's jobs."""
        return self._journal()

    def jobs(self) -> redis.Redis:
        """Return the Redis of the active spine's jobs."""
        return self.journal.client

    def of_model(self, model: Model) -> ModelGuard:
        """Return the guard of one model's table, which all variants on it share, whatever they replace of it."""
        if (guard := self._of_models.get(model.name)) is None:
            guard = self._of_models[model.name] = ModelGuard(self, model)
        return guard

    def catch_up(self) -> None:
        """Write steps that Redis did not accept earlier, and charge the calls of dead workers.

        Raises:
            redis.RedisError: If Redis still does not answer; nothing is lost then.
        """
        try:
            self.outbox.catch_up()
        finally:
            self.budget.sweep()
        self.old_books.fold()


def _itself(journal: CallJournal) -> CallJournal:
    return journal


class ModelGuard:
    """Guard of one model in a worker.

    Args:
        guards: The parts that all models share.
        model: The model's table.
    """

    def __init__(self, guards: Guards, model: Model) -> None:
        settings, client = guards.settings, guards.client
        self._shared = guards
        self._model = model
        self._retry = settings.retry
        self._breaker = Breaker(client, model.name, BreakerPolicy.of(settings, model))
        self._rate_limiter = RateLimiter(client, model.name, RateLimitPolicy.of(settings, model))
        combined = CombinedGuards(self._breaker, self._rate_limiter, guards.budget, guards.outbox, guards.jobs)
        self._admission = Admission(client, settings, model, combined)
        self._mean_completion_tokens = float(model.max_tokens)
        self._counters = metrics.CallCounters(model.name)
        guards.breakers[model.name] = self._breaker

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call, or the one that was paid for before.

        Raises:
            Interruption: If it may not be made now, or not at all any more; the run is marked with it.
            Exception: The error of the provider's engine, if no further attempt is made.
        """
        if ledger.runtime is not current():
            with ledger.runtime.active():
                return self.answer(ledger, call)
        if ledger.job is None:
            raise UnaccountedCall("a guarded model was called outside of any job")
        key = ledger.key_of(call.digest)
        kept = ledger.reply_to(key)
        if kept is not None:
            return call.load(kept)
        if ledger.job.batch and self._shared.lanes is not None:
            landed = self._shared.lanes.defer(ledger, ledger.job, self._admission, call, key)
            if landed is not None:
                return call.load(landed)
        if ledger.job.batch and self._lane_of(ledger, ledger.job.batch).is_flex:
            call.at_flex_tier()
        while True:
            outcome, closing = self._attempt(ledger, ledger.job, call, key)
            if isinstance(outcome, CallReply):
                return outcome.response
            if closing is not None:
                self._check_refusals(ledger, key, outcome, closing)
            ledger.postpone(self._seconds_to_next_attempt(ledger, key, outcome))

    def _lane_of(self, ledger: Ledger, batch: str) -> BatchLane:
        """Return the lane of a batch.

        Raises:
            Refusal: If it is unknown, for Redis does not answer: a live call might cost more than the batch asked for.
        """
        try:
            return self._shared.batch_lanes.of(batch)
        except redis.RedisError as error:
            refusal = self._admission.refusal_without_redis(error, "the lane of its batch is live")
            raise self._admission.counted(ledger.interrupt(refusal)) from None

    def _attempt(
        self, ledger: Ledger, job: JobRun, call: Call, key: str
    ) -> tuple[CallReply | CallFailure, Closing | None]:
        """Make one attempt, guarded and settled; return its outcome, and the closing that this caused."""
        # With the variant, because a fallback's attempts are counted from one again.
        attempt_id = f"{job.fence or uuid.uuid4().hex}:{job.variant}:{ledger.next_attempt()}"
        names = job.program, job.variant, self._model.name
        billed = BilledCall(f"{job.task_id}:{attempt_id}", *names, job.batch, job.payer, job.tenant)
        tokens = round(call.wire_bytes / _BYTES_PER_TOKEN + self._mean_completion_tokens)
        question = job.question or job.task_id
        suspect = suspect_of(self._calls(ledger), question)
        bound = self._admission.ask(ledger, billed, call, tokens, suspect)
        began_at, started = time.time(), time.monotonic()
        try:
            outcome, provider = self._call_provider(ledger, call, suspect)
        except Interruption as interruption:  # the call was never sent
            self._shared.outbox.send([self._shared.budget.release(billed)])
            raise self._admission.counted(ledger.interrupt(interruption)) from None
        except (
            BaseException
        ) as ending:  # the worker or the call is being ended: the outcome of one that was sent is unknown
            if isinstance(ending, Cut):
                record = CallRecord(self._model.name, "cut", time.monotonic() - started, key=key, began_at=began_at)
                charged = replace(record, cost_usd=to_usd(bound), is_estimated=True) if call.was_sent else record
                ledger.add(charged)
                self._counters.count(charged)
            budget = self._shared.budget
            self._shared.outbox.send([
                budget.settle(billed, Bill(None)) if call.was_sent else budget.release(billed)
            ])  # fmt: skip
            raise
        record = self._record(outcome, bound, key, began_at, time.monotonic() - started)
        closing = None
        if not isinstance(outcome, CallReply):
            record = self._blamed(record, outcome, provider)
            closing = self._close_gate(outcome, refused_of(self._calls(ledger), question))
            record = _refused(record, outcome, closing)
        ledger.add(record)
        self._counters.count(record)
        reply = call.dump(outcome.response) if isinstance(outcome, CallReply) else None
        succeeded = self._rate_limiter.gate.succeeded() if reply is not None else None
        replies = self._shared.outbox.send([
            self._shared.journal.remember(job, attempt_id, record, reply),
            self._settlement(billed, outcome),
            *_steps(self._correction(tokens, outcome, job.batch), succeeded),
        ])  # fmt: skip
        if replies and not replies[0]:
            ledger.interrupt(JobLost())
        self._admission.money_came_free()
        if reply is not None:
            ledger.keep(key, reply)
        return outcome, closing

    def _calls(self, ledger: Ledger) -> Iterator[CallRecord]:
        return (call for call in ledger.calls if call.model == self._model.name)

    def _call_provider(
        self, ledger: Ledger, call: Call, suspect: Suspect
    ) -> tuple[CallReply | CallFailure, BreakerCall]:
        """Make the call inside the breaker, around the provider alone."""
        seconds = min(self._model.timeout_seconds, ledger.seconds_left())
        failure: CallFailure | None = None
        try:
            with self._breaker.calling(suspect) as provider:
                try:
                    return call.attempt(seconds), provider
                except Exception as error:
                    failure = call.classify(error)
                    if failure.kind != "ill":
                        provider.ignore()
                    raise
        except redis.RedisError as error:  # of the breaker: it is not closed, and Redis must choose the probe
            raise self._admission.refusal_without_redis(error) from None
        except Exception:
            if failure is None:
                raise
            return failure, provider

    def _record(
        self, outcome: CallReply | CallFailure, bound: int, key: str, began_at: float, seconds: float
    ) -> CallRecord:
        """Record an attempt: at its bound if its bill is unknown, as the budget charges it."""
        if isinstance(outcome, CallReply):
            code, cost_usd = ANSWERED, outcome.cost_usd
        else:
            code, cost_usd = outcome.code, outcome.cost_usd if outcome.is_billed else 0.0
        return CallRecord(
            self._model.name,
            code,
            seconds,
            outcome.prompt_tokens,
            outcome.completion_tokens,
            to_usd(bound) if cost_usd is None else cost_usd,
            is_estimated=cost_usd is None,
            key=key,
            began_at=began_at,
        )

    def _blamed(self, record: CallRecord, failure: CallFailure, provider: BreakerCall) -> CallRecord:
        """Record the parts of a failure that count against its question, now or later (``dspyq.guards.spent``)."""
        if failure.kind != "ill":
            return record
        opens_breaker = provider.is_admitted or provider.made_transition
        return replace(
            record,
            spends_attempt=not opens_breaker and provider.row != 0,
            opens_breaker=opens_breaker,
            row=provider.row or 0,
            is_in_outage=provider.row in self._breaker.state.outage_rows,
            failed_at=provider.failed_at if provider.row else 0,
        )

    def _settlement(self, billed: BilledCall, outcome: CallReply | CallFailure) -> Step[Any]:
        if not isinstance(outcome, CallReply) and not outcome.is_billed:
            return self._shared.budget.release(billed)
        nano_usd = None if outcome.cost_usd is None else to_nano_usd(outcome.cost_usd)
        bill = Bill(nano_usd, outcome.prompt_tokens or 0, outcome.completion_tokens or 0)
        return self._shared.budget.settle(billed, bill)

    def _correction(self, reserved: int, outcome: CallReply | CallFailure, batch: str) -> Step[Any] | None:
        """Correct the reserved tokens by the difference between estimate and usage, if known."""
        if not isinstance(outcome, CallReply) and not outcome.is_billed:
            return self._rate_limiter.correct(reserved, 0, batch)
        if outcome.prompt_tokens is None or outcome.completion_tokens is None:
            return None
        if isinstance(outcome, CallReply):
            latest = outcome.completion_tokens - self._mean_completion_tokens
            self._mean_completion_tokens += _WEIGHT_OF_THE_LATEST * latest
        return self._rate_limiter.correct(reserved, outcome.prompt_tokens + outcome.completion_tokens, batch)

    def _close_gate(self, failure: CallFailure, refused: Refused) -> Closing | None:
        """Close the gate on a 429 or a refused account."""
        reason = _GATE_REASONS.get(failure.kind)
        if reason is None:
            return None
        by_429 = refused if reason == "retry_after" else None
        try:
            return self._rate_limiter.gate.close(reason, failure.retry_after_seconds, by_429)
        except redis.RedisError as error:
            logger.warning(Event("gate_not_closed", model=self._model.name, error=f"{type(error).__name__}: {error}"))
            return None

    def _check_refusals(self, ledger: Ledger, key: str, failure: CallFailure, closing: Closing) -> None:
        """Decide what follows a refusal; the gate states how long the next attempt waits.

        Raises:
            Refusal: If the question leaves the gate to others, for it is refused again while few others are.
            Exception: The failure itself, if no further attempt is made.
        """
        if failure.kind == "account":
            if count_refusals(self._calls(ledger), key) >= self._retry.max_attempts:
                raise failure.error
            return
        if count_lone_refusals(self._calls(ledger), closing.crowded_at) > self._retry.most_probes:
            raise ledger.exhaust(failure.error)
        if sum(call.refused_at > closing.crowded_at for call in self._calls(ledger)) > 1:
            raise self._admission.counted(ledger.interrupt(self._admission.refusal_of_question(closing.seconds)))

    def _seconds_to_next_attempt(self, ledger: Ledger, key: str, failure: CallFailure) -> float:
        """Return how long to wait, drawn evenly up to a bound that doubles ("full jitter").

        Raises:
            Refusal: If this worker is short of a resource; the program's ``when_unavailable`` decides the rest.
            Exception: The failure itself, if no further attempt is made.
        """
        if failure.kind in _GATE_REASONS or failure.kind == "tier_full":
            return 0.0  # the gate, which it has closed, sets the time; another tier may have room
        if failure.kind == "local":
            raise self._admission.counted(ledger.interrupt(_shortage(failure.error)))
        if not failure.is_transient:
            raise failure.error
        breaker = self._breaker.state
        is_left_to_breaker = failure.kind == "ill" and breaker.name != "closed"
        if is_left_to_breaker and breaker.row in breaker.outage_rows:
            return 0.0
        spent = count_spent(self._calls(ledger), key, breaker.row, breaker.outage_rows)
        if spent.probes >= self._retry.most_probes:
            raise ledger.exhaust(failure.error)
        if spent.attempts >= self._retry.max_attempts:
            raise failure.error
        if is_left_to_breaker:
            return 0.0
        longest = min(self._retry.max_delay_seconds, self._retry.base_delay_seconds * 2.0 ** max(0, spent.attempts - 1))
        delay_seconds = random.uniform(0, longest)  # noqa: S311 - jitter
        if ledger.seconds_since_first(key) + delay_seconds > self._retry.max_seconds:
            raise failure.error
        return delay_seconds


def _refused(record: CallRecord, failure: CallFailure, closing: Closing | None) -> CallRecord:
    """Write down in which row a call was refused."""
    if closing is None:
        return record
    if failure.kind == "account":
        return replace(record, account_row=closing.row)
    return replace(record, refused_at=closing.refused_at, refused_row=closing.refused_row)


def _shortage(error: Exception) -> Refusal:
    """Return the refusal of a call that this worker cannot make, while others may."""
    text = f"this worker cannot send a call: {error}; raise its limits (ulimit -n), or lower workers.concurrency"
    return Refusal(Unavailable(" ".join(text.split())), wait_seconds=_SHORTAGE_SECONDS, pauses_queue=True)


def _steps(*steps: Step[Any] | None) -> list[Step[Any]]:
    return [step for step in steps if step is not None]
