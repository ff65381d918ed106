"""Admission of one model call past breaker, rate limit and budget: one round trip when nothing blocks the call."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.tolerated import read_number
from dspyq.errors import AccountRefused, BreakerOpen, RateLimited, Unavailable, UnboundedCall, VariantKilled
from dspyq.guards import metrics
from dspyq.guards.billing import BilledCall
from dspyq.guards.breaker import Breaker
from dspyq.guards.breaker_state import Suspect
from dspyq.guards.budget import Budget, HoldVerdict
from dspyq.guards.call import Call
from dspyq.guards.interruptions import ArmKilled, BatchRefusal, FailPrediction, Interruption, Refusal, RetryLater
from dspyq.guards.killed import killed_error
from dspyq.guards.ledger import Ledger
from dspyq.guards.limit_refusals import LATE_BY_CHANCE, PARK_SECONDS, refusal_of
from dspyq.guards.outbox import Outbox
from dspyq.guards.provider_gate import AfterWait
from dspyq.guards.rate_limit import NO_TURN, TURN_AT_ONCE, RateLimiter, Reservation, Share
from dspyq.guards.reserved_tokens import ReservedTokens
from dspyq.guards.waiting_line import Ticket, WaitingLine
from dspyq.store.scripts import Step, command_step, run_together

logger = logging.getLogger("dspyq.guards")

#: Longest wait in a thread for money that other calls hold; after that the job waits in its queue.
_WAIT_FOR_HOLDS_SECONDS = 1.0
_ASK_AGAIN_SECONDS = (0.1, 0.4)
#: The most threads that wait in line for it; further jobs wait in their queue.
_LONGEST_LINE = 16
#: A question that is refused again with a 429 leaves the open gate to others for this long.
_LEFT_TO_OTHERS_SECONDS = 2.0
#: A job waits this long when Redis does not answer or a clock is wrong.
_WITHOUT_AN_ANSWER_SECONDS = 1.0


@dataclass(frozen=True)
class CombinedGuards:
    """Guards of one model.

    Attributes:
        breaker: Its circuit breaker.
        rate_limiter: Its rate limit.
        budget: The budget of all models.
        outbox: Outbox of writes about calls.
        jobs: Returns the Redis of the active spine's jobs.
    """

    breaker: Breaker
    rate_limiter: RateLimiter
    budget: Budget
    outbox: Outbox
    jobs: Callable[[], redis.Redis]


class Admission:
    """The guards of one model, checked together.

    Args:
        client: The Redis of money.
        settings: The configuration.
        model: The model's table.
        guards: The guards that it combines.

    Attributes:
        model: The model's table.
    """

    def __init__(self, client: redis.Redis, settings: Settings, model: Model, guards: CombinedGuards) -> None:
        self._client = client
        self._settings = settings
        self.model = self._model = model
        self._breaker = guards.breaker
        self._rate_limiter = guards.rate_limiter
        self._budget = guards.budget
        self._outbox = guards.outbox
        self._jobs = guards.jobs
        self._lines: dict[tuple[str, str, str], WaitingLine] = {}
        self._longest_wait_seconds = settings.rate_limit.longest_wait_seconds

    def ask(self, ledger: Ledger, billed: BilledCall, call: Call, tokens: int, suspect: Suspect) -> int:
        """Wait until the call may be made; hold its cost bound, reserve its slot; return the bound in nano-dollars.

        Args:
            ledger: Ledger of the running prediction.
            billed: The attempt.
            call: The request.
            tokens: Estimated number of tokens.
            suspect: The question, as the breaker identifies it.

        Raises:
            Interruption: If the call may not be made. Nothing is held then, and the run is marked as interrupted.
        """
        try:
            self.check_breaker(suspect)
            bound = self.bound_of(billed, call)
            self._ask_all(ledger, billed, bound, tokens, ledger.job.run_count if ledger.job else 1)
        except Interruption as interruption:
            raise self.counted(ledger.interrupt(interruption)) from None
        return bound

    def counted(self, interruption: Interruption) -> Interruption:
        """Count a refusal, then return it for the caller to raise."""
        if isinstance(interruption, Refusal | BatchRefusal | FailPrediction | ArmKilled) and isinstance(
            interruption.error, Unavailable | UnboundedCall | VariantKilled
        ):
            metrics.REFUSALS.labels(self._model.name, type(interruption.error).__name__).inc()
            if isinstance(interruption.error, BreakerOpen):
                metrics.BREAKER_REJECTIONS.labels(self._model.name).inc()
        return interruption

    def check_breaker(self, suspect: Suspect) -> None:
        """Refuse a call by the local snapshot of the breaker, or because another call should be the probe.

        Raises:
            Refusal: While the breaker is open, or another call probes or should probe.
        """
        try:
            self._breaker.check()
        except Refusal as refusal:
            refusal.seconds_left = self._breaker.seconds_until_callable
            raise
        try:
            self._breaker.leave_to_others(suspect)
        except redis.RedisError as error:
            raise self.refusal_without_redis(error) from None

    def _ask_all(self, ledger: Ledger, billed: BilledCall, bound: int, tokens: int, turns: int) -> None:
        give_up_at = time.monotonic() + _WAIT_FOR_HOLDS_SECONDS
        is_held = False
        line = self._line_of(billed)
        alias = ledger.job.alias if billed.batch and ledger.job else ""  # of a call within its batch's share
        with line.place(turns) as place, ReservedTokens(self._rate_limiter, self._outbox, billed.batch) as reserved:
            while True:
                if place.must_wait and not is_held:
                    _refuse_long(line)
                    self._wait_for_money(ledger, billed, bound, place, give_up_at)
                said = self._ask_redis(billed, bound, tokens, alias)
                if said is None:
                    return
                reservation, hold = said
                if reservation.is_reserved:
                    reserved.tokens += tokens  # they stay reserved even if this slot is lost
                    tokens = 0
                if has_turn := reservation.is_reserved or reservation.is_shared:
                    alias = ""  # the batch's own turn is used even if the model's is lost
                is_held = hold.is_held
                if hold.verdict == "busy":
                    self._wait_for_money(ledger, billed, bound, place, give_up_at)
                    continue
                place.leave()
                if not is_held:
                    self.refuse_by_budget(billed, bound, hold, turns)
                if not has_turn:
                    self._give_back(billed)
                    self._refuse_by_rate(reservation)
                if self._turn_comes(ledger, billed, reservation):
                    return

    def _ask_redis(
        self, billed: BilledCall, bound: int, tokens: int, alias: str
    ) -> tuple[Reservation, HoldVerdict] | None:
        """Reserve a turn and hold the cost in one round trip; return None if the call proceeds without Redis.

        Where the model has a rate limit, a batch's or a tenant's call holds its cost first, in a round trip of its own:
        those over their limits are refused again and again, and must not use up turns.

        Raises:
            Refusal: If Redis does not answer, or a clock is wrong.
        """
        steps: list[Step[Any]] = [self._budget.hold(billed, bound)]
        share = None
        try:
            is_held_first = bool(billed.batch or billed.tenant) and self._rate_limiter.has_limit
            if is_held_first:
                hold, *joined = self._hold_and_look(steps, alias)
                if not hold.is_held:
                    return NO_TURN, hold
                share, steps = (Share(billed.batch, int(joined[0])) if alias else None), []
            reservation = TURN_AT_ONCE if self._rate_limiter.lets_pass else None
            if reservation is None:
                steps.append(self._rate_limiter.reserve(tokens, share))
            if not self._breaker.is_fresh:
                steps.append(self._breaker.read())
            replies = run_together(self._client, steps)
            if not is_held_first:
                hold, *replies = replies
            reservation = reservation or replies[0]
        except redis.RedisError as error:
            self._go_without_redis(billed, error)
            return None
        except Unavailable as error:  # a clock is wrong
            self._refuse(error, _WITHOUT_AN_ANSWER_SECONDS)
        return reservation, hold

    def _hold_and_look(self, steps: list[Step[Any]], alias: str) -> list[Any]:
        """Hold the cost, and look how many callers wait for the question."""
        if not alias:
            return run_together(self._client, steps)
        look, jobs = command_step(read_number, "HGET", alias, "joined"), self._jobs()
        if jobs is not self._client:
            return run_together(self._client, steps) + run_together(jobs, [look])
        return run_together(self._client, [*steps, look])

    def money_came_free(self) -> None:
        """Wake the threads that wait for other calls' holds: a call of this process was settled."""
        for line in list(self._lines.values()):
            line.nudge()

    def _line_of(self, billed: BilledCall) -> WaitingLine:
        """Return the waiting line of a variant: limits differ between variants, and between batches and other calls."""
        payer = billed.payer or ("batch" if billed.batch else "")
        return self._lines.setdefault((billed.program, billed.variant, payer), WaitingLine())

    def _wait_for_money(self, ledger: Ledger, billed: BilledCall, bound: int, place: Ticket, give_up_at: float) -> None:
        """Wait until other calls' holds no longer block this one; peek only, since a full check reserves a turn.

        Raises:
            RetryLater: If that takes too long.
        """
        seconds = min(give_up_at - time.monotonic(), ledger.seconds_left())
        if place.reach_front(seconds):
            ledger.check_open()
            while time.monotonic() < give_up_at:
                try:
                    (now,) = run_together(self._client, [self._budget.peek(billed, bound)])
                except redis.RedisError:
                    return  # the next full check decides
                if now.verdict != "busy":
                    return
                place.pause(random.uniform(*_ASK_AGAIN_SECONDS))  # noqa: S311 - jitter
                ledger.check_open()
        ledger.check_open()
        raise RetryLater(random.uniform(*PARK_SECONDS))  # noqa: S311 - jitter

    def _turn_comes(self, ledger: Ledger, billed: BilledCall, reservation: Reservation) -> bool:
        """Wait for the reserved slot; return True if it can be used.

        It cannot be used if the gate has closed, if it is too late, or if it is only a turn in the batch's share.
        """
        if reservation.wait_seconds:
            try:
                ledger.sleep(reservation.wait_seconds)
                metrics.RATE_LIMIT_WAITS.labels(self._model.name).inc()
                metrics.RATE_LIMIT_WAIT_SECONDS.labels(self._model.name).inc(reservation.wait_seconds)
                queue = f"{billed.program}.{billed.variant}"
                (now,) = run_together(self._client, [self._rate_limiter.gate.read_after_wait(queue)])
            except redis.RedisError as error:
                self._note(error)
                refuses = self._settings.rate_limit.when_redis_fails == "refuse" or self._may_be_killed(billed)
                now = AfterWait(float(refuses), is_killed=False)
            except BaseException:
                self._give_back(billed)
                raise
            if now.is_killed:
                self._refuse_killed(billed)
            if now.closed_seconds:
                return False
        return reservation.is_reserved and not self._rate_limiter.is_late(reservation)

    def _refuse_killed(self, billed: BilledCall) -> NoReturn:
        self._give_back(billed)  # it may be held: before it waited, or by a script whose reply was lost
        raise ArmKilled(killed_error(billed.program, billed.variant))

    def _may_be_killed(self, billed: BilledCall) -> bool:
        """Return True if a variant is a challenger of an experiment, whose being alive is kept in Redis alone."""
        program = self._settings.programs.get(billed.program)
        return bool(program and program.experiment and billed.variant in program.experiment.arms[1:])

    def refusal_of_question(self, closed_seconds: float) -> Refusal:
        """Return the refusal of a question that the provider refused again; others go first when the gate opens.

        Args:
            closed_seconds: How long the provider asked to wait.
        """
        error = RateLimited(f"the provider of model {self._model.name} refuses this question again (status 429)")
        return Refusal(error, wait_seconds=closed_seconds + _LEFT_TO_OTHERS_SECONDS, pauses_queue=False)

    def _refuse_by_rate(self, reservation: Reservation) -> NoReturn:
        if reservation.reason == "share":  # later than a thread should wait; this does not affect other jobs
            raise RetryLater(reservation.wait_seconds * random.uniform(1, LATE_BY_CHANCE))  # noqa: S311 - jitter
        name = self._model.name

        def gate_seconds() -> float:
            return float(run_together(self._client, [self._rate_limiter.gate.read_seconds()])[0])

        if reservation.reason == "account":
            raise Refusal(
                AccountRefused(
                    f"the provider of model {name} refused the account a moment ago: check models.{name}.api_key_env "
                    f"and its quota, then: dspyq breaker reset {name}"
                ),
                wait_seconds=reservation.wait_seconds,
                pauses_queue=True,
                seconds_left=gate_seconds,
            )
        if reservation.reason == "retry_after":
            error = RateLimited(f"the provider of model {name} demands a wait from all callers")
            raise Refusal(error, wait_seconds=reservation.wait_seconds, pauses_queue=True, seconds_left=gate_seconds)
        setting = "tokens_per_minute" if reservation.reason == "tokens" else "requests_per_second"
        error = RateLimited(f"model {name} is asked as often as models.{name}.{setting} allows")
        # Half of the turns that threads wait for have passed by then, so that not every second job is refused again.
        self._refuse(error, max(0.0, reservation.wait_seconds - self._longest_wait_seconds / 2))

    def refuse_by_budget(self, billed: BilledCall, bound: int, hold: HoldVerdict, run_count: int) -> NoReturn:
        """Refuse a call whose cost cannot be held.

        Raises:
            Interruption: Always.
        """
        if hold.verdict == "killed":
            self._refuse_killed(billed)
        anybody_s = billed._replace(batch="", tenant="")  # the queue is not theirs alone

        def seconds_left() -> float:
            (now,) = run_together(self._client, [self._budget.peek(anybody_s, bound)])
            return 0.0 if now.verdict in {"held", "busy", "never"} else now.wait_seconds

        raise refusal_of(hold, seconds_left, run_count)

    def refusal_without_redis(self, error: redis.RedisError, doubt: str = "the breaker allows it") -> Refusal:
        """Log that Redis does not answer, and return the refusal of the call."""
        self._note(error)
        refusal = Unavailable(f"Redis did not answer whether {doubt}; check DSPYQ_REDIS_URL and that Redis is running")
        return Refusal(refusal, wait_seconds=_WITHOUT_AN_ANSWER_SECONDS, pauses_queue=True)

    def _go_without_redis(self, billed: BilledCall, error: redis.RedisError) -> None:
        """Let an uncounted call pass if the settings allow it and no budget can be overspent."""
        doubt = "the budget allows it" if self._budget.is_limited(billed) else ""
        if not doubt and self._may_be_killed(billed):
            doubt = "its arm of the experiment is killed"
        for table in ("breaker", "rate_limit"):
            if not doubt and getattr(self._settings, table).when_redis_fails == "refuse":
                doubt = f"{table} allows it ({table}.when_redis_fails)"
        if doubt:
            # A slow Redis may still apply the hold, even after the release.
            self._outbox.send_later([self._budget.release(billed)])
            raise self.refusal_without_redis(error, doubt)
        self._note(error)

    def _note(self, error: redis.RedisError) -> None:
        metrics.GUARD_REDIS_FAILURES.labels(self._model.name).inc()
        logger.warning(Event("guards_not_asked", model=self._model.name, error=f"{type(error).__name__}: {error}"))

    def _refuse(self, error: Unavailable, wait_seconds: float) -> NoReturn:
        raise Refusal(error, wait_seconds=wait_seconds, pauses_queue=True)

    def _give_back(self, billed: BilledCall) -> None:
        self._outbox.send([self._budget.release(billed)])

    def bound_of(self, billed: BilledCall, call: Call) -> int:
        """Return the highest possible cost of the call, in nano-dollars.

        Raises:
            FailPrediction: If its cost is unbounded and a budget limit applies.
        """
        has_bound = call.max_completion_tokens is not None and call.unbounded_part is None
        if not has_bound and (billed.batch or billed.tenant):
            self._learn_limits(billed)
        if not has_bound and self._budget.is_limited(billed):
            reason = call.unbounded_part or "states no max_tokens"
            raise FailPrediction(
                UnboundedCall(f"a call of model {self._model.name} {reason}: no budget can hold its cost")
            )
        return call.bound_nano_usd

    def _learn_limits(self, billed: BilledCall) -> None:
        """Read from Redis if a limit applies to a batch's or a tenant's call: it is not in the configuration.

        Raises:
            Refusal: If Redis does not answer.
        """
        try:
            run_together(self._client, [self._budget.peek(billed, 0)])
        except redis.RedisError as error:
            raise self.refusal_without_redis(error, "the budget allows it") from None


def _refuse_long(line: WaitingLine) -> None:
    """Send a job back to its queue, and pause the queue, while the line is full.

    Raises:
        RetryLater: If the line is full.
    """
    if len(line) >= _LONGEST_LINE:
        raise RetryLater(0.0, seconds_left=lambda: 0.0 if len(line) <= _LONGEST_LINE // 2 else 1.0)
