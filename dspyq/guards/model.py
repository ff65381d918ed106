"""What stands before each model: what was paid for before, the guards, the provider, and its bill.

The guards know nothing of each other and nothing of DSPy. On the good path a call costs two round trips: one asks all
of them, one settles and remembers the reply.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import Any, Protocol

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.guards import metrics
from dspyq.guards.admission import Admission
from dspyq.guards.breaker import Breaker
from dspyq.guards.breaker_state import BreakerPolicy
from dspyq.guards.budget import Bill, BilledCall, Budget
from dspyq.guards.call import Call, Failure, Prices, Reply
from dspyq.guards.call_journal import PaidCalls
from dspyq.guards.interruptions import Interruption, Loss
from dspyq.guards.ledger import ANSWERED, CallRecord, Job, Ledger, UnaccountedCall
from dspyq.guards.outbox import Settlements
from dspyq.guards.rate_limit import GateReason, RateLimiter, RateLimitPolicy
from dspyq.store.scripts import Step

logger = logging.getLogger("dspyq.guards")

_BYTES_PER_TOKEN = 4
_WEIGHT_OF_THE_LATEST = 0.1
#: What closes a model's gate for everybody.
_GATE_REASONS: dict[str, GateReason] = {"asks_to_wait": "retry_after", "account": "account"}


class Guard(Protocol):
    """What stands before a model."""

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call."""


class Unguarded:
    """Stands before a model outside of a worker: each call is made, and written down."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call."""
        key, began_at, started = ledger.key_of(call.digest), time.time(), time.monotonic()
        kept = ledger.reply_to(key)
        if kept is not None:
            return call.load(kept)
        try:
            reply = call.attempt(min(self._model.timeout_seconds, ledger.seconds_left()))
        except Exception as error:
            seconds = time.monotonic() - started
            code = call.classify(error).code
            ledger.add(CallRecord(self._model.name, code, seconds, key=key, began_at=began_at))
            raise
        seconds = time.monotonic() - started
        tokens = reply.prompt_tokens, reply.completion_tokens
        ledger.add(CallRecord(self._model.name, ANSWERED, seconds, *tokens, reply.cost_usd, key=key, began_at=began_at))
        ledger.keep(key, call.dump(reply.response))
        return reply.response


class Guards:
    """Every guard of a worker, over one Redis.

    Args:
        settings: The configuration.
        client: The Redis of jobs.

    Attributes:
        budget: The budget of all models together.
        paid: What jobs have paid for.
        settlements: What Redis is told of calls.
        breakers: The circuit breaker of each model that is served here.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.settings = settings
        self.client = client
        self.budget = Budget(client, settings)
        self.paid = PaidCalls(client)
        self.settlements = Settlements(client)
        self.breakers: dict[str, Breaker] = {}

    def of_model(self, model: Model, prices: Prices) -> ModelGuard:
        """Return what stands before one model."""
        return ModelGuard(self, model, prices)

    def catch_up(self) -> None:
        """Tell Redis what it could not be told when it happened, and charge the calls of workers that died.

        Raises:
            redis.RedisError: If Redis still does not answer; nothing is lost by that.
        """
        try:
            self.settlements.catch_up()
        finally:
            self.budget.sweep()


class ModelGuard:
    """What stands before one model in a worker.

    Args:
        guards: What all models share.
        model: The model's table.
        prices: What its tokens can cost at most.
    """

    def __init__(self, guards: Guards, model: Model, prices: Prices) -> None:
        settings, client = guards.settings, guards.client
        self._shared = guards
        self._model = model
        self._retry = settings.retry
        self._breaker = Breaker(client, model.name, BreakerPolicy.of(settings, model))
        self._rate_limiter = RateLimiter(client, model.name, RateLimitPolicy.of(settings, model))
        self._admission = Admission(
            client, settings, model, prices, self._breaker, self._rate_limiter, guards.budget, guards.settlements
        )
        self._mean_completion_tokens = float(model.max_tokens)
        self._counters = metrics.CallCounters(model.name)
        guards.breakers[model.name] = self._breaker

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call, or the one that was paid for before.

        Raises:
            Interruption: If it may not be made now, or not at all any more; the run is marked with it.
            Exception: What the provider's engine raised, where no further attempt is made.
        """
        if ledger.job is None:
            raise UnaccountedCall("a guarded model was called outside of any job")
        key = ledger.key_of(call.digest)
        kept = ledger.reply_to(key)
        if kept is not None:
            return call.load(kept)
        while True:
            outcome = self._attempt(ledger, ledger.job, call, key)
            if isinstance(outcome, Reply):
                return outcome.response
            ledger.postpone(self._seconds_to_next_attempt(ledger, key, outcome))

    def _attempt(self, ledger: Ledger, job: Job, call: Call, key: str) -> Reply | Failure:
        """Make one attempt, guarded and settled, and return what it brought."""
        # Of the variant too: a fallback's attempts are counted from one again.
        attempt_id = f"{job.fence or uuid.uuid4().hex}:{job.variant}:{ledger.next_attempt()}"
        billed = BilledCall(f"{job.task_id}:{attempt_id}", job.program, job.variant, self._model.name, job.batch)
        tokens = round(call.wire_bytes / _BYTES_PER_TOKEN + self._mean_completion_tokens)
        bound = self._admission.ask(ledger, billed, call, tokens)
        began_at, started = time.time(), time.monotonic()
        try:
            outcome = self._call_provider(ledger, call)
        except Interruption as interruption:  # the call was never sent
            self._shared.settlements.tell([self._shared.budget.release(billed)])
            raise self._admission.counted(ledger.interrupt(interruption)) from None
        except BaseException:  # the worker is being ended: nobody knows what became of the call
            self._shared.settlements.tell([self._shared.budget.settle(billed, Bill(None))])
            raise
        record = self._record(outcome, key, began_at, time.monotonic() - started, bound)
        ledger.add(record)
        self._counters.count(record)
        reply = call.dump(outcome.response) if isinstance(outcome, Reply) else None
        succeeded = self._rate_limiter.succeeded() if reply is not None else None
        told = self._shared.settlements.tell([
            self._shared.paid.remember(job, attempt_id, record, reply),
            self._settlement(billed, outcome),
            *_steps(self._correction(tokens, outcome, job.batch), succeeded),
        ])  # fmt: skip
        if told and not told[0]:
            ledger.interrupt(Loss())
        self._admission.money_came_free()
        if reply is not None:
            ledger.keep(key, reply)
        if not isinstance(outcome, Reply):
            self._close_gate(outcome)
        return outcome

    def _call_provider(self, ledger: Ledger, call: Call) -> Reply | Failure:
        """Make the call inside of the breaker, which sees nothing but the provider."""
        seconds = min(self._model.timeout_seconds, ledger.seconds_left())
        failure: Failure | None = None
        try:
            with self._breaker.calling() as provider:
                try:
                    return call.attempt(seconds)
                except Exception as error:
                    failure = call.classify(error)
                    if failure.kind != "ill":
                        provider.says_nothing()
                    raise
        except redis.RedisError as error:  # the breaker's: it is not closed, and nobody can say who probes
            raise self._admission.refusal_without_redis(error) from None
        except Exception:
            if failure is None:
                raise
            return failure

    def _record(self, outcome: Reply | Failure, key: str, began_at: float, seconds: float, bound: int) -> CallRecord:
        """Write an attempt down: at its bound where its bill is unknown, as the budget charges it."""
        if isinstance(outcome, Reply):
            tokens, cost_usd, code = (outcome.prompt_tokens, outcome.completion_tokens), outcome.cost_usd, ANSWERED
            is_estimated = cost_usd is None
            spends_attempt = False
        else:
            tokens, cost_usd, code, is_estimated = (None, None), 0.0, outcome.code, outcome.is_billed
            spends_attempt = outcome.is_transient and self._breaker.state.name == "closed"
        if is_estimated:
            cost_usd = to_usd(bound)
        return CallRecord(
            self._model.name, code, seconds, *tokens, cost_usd, is_estimated, key, began_at, spends_attempt
        )

    def _settlement(self, billed: BilledCall, outcome: Reply | Failure) -> Step[Any]:
        if isinstance(outcome, Reply):
            nano_usd = None if outcome.cost_usd is None else to_nano_usd(outcome.cost_usd)
            bill = Bill(nano_usd, outcome.prompt_tokens or 0, outcome.completion_tokens or 0)
            return self._shared.budget.settle(billed, bill)
        if outcome.is_billed:
            return self._shared.budget.settle(billed, Bill(None))
        return self._shared.budget.release(billed)

    def _correction(self, reserved: int, outcome: Reply | Failure, batch: str) -> Step[Any] | None:
        """Correct the reserved tokens, where the estimate was wrong and it is known by how much."""
        used = 0
        if isinstance(outcome, Reply):
            if outcome.prompt_tokens is None or outcome.completion_tokens is None:
                return None
            latest = outcome.completion_tokens - self._mean_completion_tokens
            self._mean_completion_tokens += _WEIGHT_OF_THE_LATEST * latest
            used = outcome.prompt_tokens + outcome.completion_tokens
        elif outcome.is_billed:
            return None
        return self._rate_limiter.correct(reserved, used, batch)

    def _close_gate(self, failure: Failure) -> None:
        """Have everybody wait where the provider asks for it or refuses the account."""
        reason = _GATE_REASONS.get(failure.kind)
        if reason is None:
            return
        try:
            self._rate_limiter.close(reason, failure.retry_after_seconds)
        except redis.RedisError as error:
            logger.warning(Event("gate_not_closed", model=self._model.name, error=f"{type(error).__name__}: {error}"))

    def _seconds_to_next_attempt(self, ledger: Ledger, key: str, failure: Failure) -> float:
        """Return how long to wait, drawn evenly up to a bound that doubles ("full jitter").

        Raises:
            Exception: The failure itself, where no further attempt is made.
        """
        if failure.kind in _GATE_REASONS or (failure.kind == "ill" and self._breaker.state.name != "closed"):
            return 0.0  # the gate or the breaker, which it has closed or opened, says how long
        spent = ledger.spent_attempts(key)
        longest = min(self._retry.max_delay_seconds, self._retry.base_delay_seconds * 2.0 ** (spent - 1))
        delay_seconds = random.uniform(0, longest)  # noqa: S311 - jitter
        if (
            not failure.is_transient
            or spent >= self._retry.max_attempts
            or ledger.seconds_since_first(key) + delay_seconds > self._retry.max_seconds
        ):
            raise failure.error
        return delay_seconds


def _steps(*steps: Step[Any] | None) -> list[Step[Any]]:
    return [step for step in steps if step is not None]
