"""How one model call gets past breaker, rate limit and budget: in one round trip where nothing is in its way."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.errors import AccountRefused, BreakerOpen, RateLimited, Unavailable, UnboundedCall
from dspyq.guards import metrics
from dspyq.guards.breaker import Breaker
from dspyq.guards.budget import BilledCall, Budget, HoldVerdict
from dspyq.guards.call import Call, Prices
from dspyq.guards.cost_bound import bound_nano_usd
from dspyq.guards.interruptions import BatchRefusal, Ending, Interruption, Postponement, Refusal
from dspyq.guards.ledger import Ledger
from dspyq.guards.outbox import Settlements
from dspyq.guards.rate_limit import NO_TURN, RateLimiter, Reservation, Share
from dspyq.guards.waiting_line import Line, Place
from dspyq.store.scripts import Step, run_together

logger = logging.getLogger("dspyq.guards")

#: A call waits this long, in its thread, for money that other calls hold, and then in its queue.
_WAIT_FOR_HOLDS_SECONDS = 1.0
_ASK_AGAIN_SECONDS = (0.1, 0.4)
_PARK_SECONDS = (0.5, 2.0)
#: Jobs that come back for their batch's turn in the rate come that much later, so that they do not come together.
_LATE_BY_CHANCE = 1.2
#: So many threads stand in line for it at most; the jobs behind them wait in their queue.
_LONGEST_LINE = 16
#: Where Redis cannot say, or a clock is wrong, a job waits so long.
_WITHOUT_AN_ANSWER_SECONDS = 1.0


class Admission:
    """The guards of one model, asked together.

    Args:
        client: The Redis of jobs.
        settings: The configuration.
        model: The model's table.
        prices: What its tokens can cost at most.
        breaker: Its circuit breaker.
        rate_limiter: Its rate limit.
        budget: The budget of all models.
        settlements: What Redis is told of calls.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the guards it puts together
        self,
        client: redis.Redis,
        settings: Settings,
        model: Model,
        prices: Prices,
        breaker: Breaker,
        rate_limiter: RateLimiter,
        budget: Budget,
        settlements: Settlements,
    ) -> None:
        self._client = client
        self._settings = settings
        self._model = model
        self._prices = prices
        self._breaker = breaker
        self._rate_limiter = rate_limiter
        self._budget = budget
        self._settlements = settlements
        self._lines: dict[tuple[str, str, bool], Line] = {}
        self._longest_wait_seconds = settings.rate_limit.longest_wait_seconds

    def ask(self, ledger: Ledger, billed: BilledCall, call: Call, tokens: int) -> int:
        """Wait until the call may be made; return its bound in nano-dollars, which is held, as its slot is reserved.

        Args:
            ledger: The running prediction's.
            billed: The attempt.
            call: The request.
            tokens: The tokens it is likely to take.

        Raises:
            Interruption: If it may not be made; then nothing is held, and the run is marked.
        """
        try:
            self.check_breaker()
            bound = self._bound(billed, call)
            self._ask_all(ledger, billed, bound, tokens, ledger.job.run_count if ledger.job else 1)
        except Interruption as interruption:
            raise self.counted(ledger.interrupt(interruption)) from None
        return bound

    def counted(self, interruption: Interruption) -> Interruption:
        """Count a refusal, and return it to be raised."""
        if isinstance(interruption, Refusal | BatchRefusal | Ending) and isinstance(
            interruption.error, Unavailable | UnboundedCall
        ):
            metrics.REFUSALS.labels(self._model.name, type(interruption.error).__name__).inc()
            if isinstance(interruption.error, BreakerOpen):
                metrics.BREAKER_REJECTIONS.labels(self._model.name).inc()
        return interruption

    def check_breaker(self) -> None:
        """Refuse a call that the breaker would refuse, by what is known here.

        Raises:
            Refusal: While it is open, or another call probes.
        """
        try:
            self._breaker.check()
        except Refusal as refusal:
            refusal.seconds_left = self._breaker.seconds_until_callable
            raise

    def _ask_all(self, ledger: Ledger, billed: BilledCall, bound: int, tokens: int, turns: int) -> None:
        give_up_at = time.monotonic() + _WAIT_FOR_HOLDS_SECONDS
        is_held, reserved = False, 0
        line = self._line_of(billed)
        share = Share(billed.batch, ledger.job.alias) if billed.batch and ledger.job else None
        with line.place(turns) as place, self._tokens_given_back(lambda: reserved, billed.batch):
            while True:
                if place.must_wait and not is_held:
                    _refuse_long(line)
                    self._wait_for_money(ledger, billed, bound, place, give_up_at)
                said = self._ask_redis(billed, bound, tokens, share)
                if said is None:
                    return
                reservation, hold = said
                if reservation.is_reserved:
                    reserved, tokens = reserved + tokens, 0  # they stay reserved, whatever becomes of this slot
                if has_turn := reservation.is_reserved or reservation.is_shared:
                    share = None  # the batch's own turn is used, whatever becomes of the model's
                is_held = hold.is_held
                if hold.verdict == "busy":
                    self._wait_for_money(ledger, billed, bound, place, give_up_at)
                    continue
                place.leave()
                if not is_held:
                    self._refuse_by_budget(billed, bound, hold)
                if not has_turn:
                    self._give_back(billed)
                    self._refuse_by_rate(reservation)
                if self._turn_comes(ledger, billed, reservation):
                    return

    def _ask_redis(
        self, billed: BilledCall, bound: int, tokens: int, share: Share | None
    ) -> tuple[Reservation, HoldVerdict] | None:
        """Ask for a turn and for money at once; return None where the call is made without Redis's word.

        A batch's call asks for money first: whole batches are refused that, and must take no turns of others with them.

        Raises:
            Refusal: Where Redis does not answer, or a clock is wrong.
        """
        steps: list[Step[Any]] = [self._rate_limiter.reserve(tokens, share), self._budget.hold(billed, bound)]
        if not self._breaker.is_fresh:
            steps.append(self._breaker.read())
        try:
            if billed.batch:
                (hold,) = run_together(self._client, [self._budget.hold(billed, bound)])
                if not hold.is_held:
                    return NO_TURN, hold
            reservation, hold, *_ = run_together(self._client, steps)
        except redis.RedisError as error:
            self._go_without_redis(billed, error)
            return None
        except Unavailable as error:  # a clock is wrong
            self._refuse(error, _WITHOUT_AN_ANSWER_SECONDS)
        return reservation, hold

    @contextmanager
    def _tokens_given_back(self, reserved: Callable[[], int], batch: str) -> Iterator[None]:
        """Give reserved tokens back where the call is not made."""
        try:
            yield
        except Interruption:
            if (step := self._rate_limiter.correct(reserved(), 0, batch)) is not None:
                self._settlements.tell([step])
            raise

    def money_came_free(self) -> None:
        """Have whoever waits for money here look at once: a call of this process was settled."""
        for line in list(self._lines.values()):
            line.nudge()

    def _line_of(self, billed: BilledCall) -> Line:
        """Those who wait for money stand in line by variant: another's limits may be others, and so may a batch's."""
        return self._lines.setdefault((billed.program, billed.variant, bool(billed.batch)), Line())

    def _wait_for_money(self, ledger: Ledger, billed: BilledCall, bound: int, place: Place, give_up_at: float) -> None:
        """Wait until more than other calls' holds decides; it only looks, for asking would reserve a turn each time.

        Raises:
            Postponement: Where it takes long.
        """
        seconds = min(give_up_at - time.monotonic(), ledger.seconds_left())
        if place.reach_front(seconds):
            ledger.check_open()
            while time.monotonic() < give_up_at:
                try:
                    (now,) = run_together(self._client, [self._budget.look(billed, bound)])
                except redis.RedisError:
                    return  # whoever asks next decides what follows
                if now.verdict != "busy":
                    return
                place.pause(random.uniform(*_ASK_AGAIN_SECONDS))  # noqa: S311 - jitter
                ledger.check_open()
        ledger.check_open()
        raise Postponement(random.uniform(*_PARK_SECONDS))  # noqa: S311 - jitter

    def _turn_comes(self, ledger: Ledger, billed: BilledCall, reservation: Reservation) -> bool:
        """Wait for the reserved slot; return whether it can be used.

        It cannot if the gate was closed, nor much too late, nor where it is only the call's turn in its batch's share.
        """
        if reservation.wait_seconds:
            try:
                ledger.sleep(reservation.wait_seconds)
                metrics.RATE_LIMIT_WAITS.labels(self._model.name).inc()
                metrics.RATE_LIMIT_WAIT_SECONDS.labels(self._model.name).inc(reservation.wait_seconds)
                (closed_seconds,) = run_together(self._client, [self._rate_limiter.look_again()])
            except redis.RedisError as error:
                self._note(error)
                closed_seconds = float(self._settings.rate_limit.when_redis_fails == "refuse")
            except BaseException:
                self._give_back(billed)
                raise
            if closed_seconds:
                return False
        return reservation.is_reserved and not self._rate_limiter.is_late(reservation)

    def _refuse_by_rate(self, reservation: Reservation) -> NoReturn:
        if reservation.reason == "share":  # later than a thread should wait; others are not to wait for that
            raise Postponement(reservation.wait_seconds * random.uniform(1, _LATE_BY_CHANCE))  # noqa: S311 - jitter
        name = self._model.name
        gate: Callable[[], float] = lambda: float(run_together(self._client, [self._rate_limiter.look_again()])[0])  # noqa: E731 - it has no other use
        if reservation.reason == "account":
            raise Refusal(
                AccountRefused(
                    f"the provider of model {name} refused the account a moment ago: check models.{name}.api_key_env "
                    f"and its quota, then: dspyq breaker reset {name}"
                ),
                wait_seconds=reservation.wait_seconds,
                pauses_queue=True,
                seconds_left=gate,
            )
        if reservation.reason == "retry_after":
            error = RateLimited(f"the provider of model {name} asked everybody to wait")
            raise Refusal(error, wait_seconds=reservation.wait_seconds, pauses_queue=True, seconds_left=gate)
        setting = "tokens_per_minute" if reservation.reason == "tokens" else "requests_per_second"
        error = RateLimited(f"model {name} is asked as often as models.{name}.{setting} allows")
        # Half of the turns that threads wait for have passed by then, so that not every second job is refused again.
        self._refuse(error, max(0.0, reservation.wait_seconds - self._longest_wait_seconds / 2))

    def _refuse_by_budget(self, billed: BilledCall, bound: int, hold: HoldVerdict) -> NoReturn:
        if hold.verdict == "never":
            raise Ending(hold.error())
        if hold.verdict == "batch_busy":  # it waits in its queue, where it stands in no other caller's way
            raise Postponement(random.uniform(*_PARK_SECONDS))  # noqa: S311 - jitter
        if hold.verdict in {"batch_limit", "batch_share", "batch_closed"}:
            raise BatchRefusal(hold.batch_error())

        anybody_s = billed._replace(batch="")  # the queue is not the batch's alone

        def seconds_left() -> float:
            (now,) = run_together(self._client, [self._budget.look(anybody_s, bound)])
            return 0.0 if now.verdict in {"held", "busy", "never"} else now.wait_seconds

        raise Refusal(hold.error(), wait_seconds=hold.wait_seconds, pauses_queue=True, seconds_left=seconds_left)

    def refusal_without_redis(self, error: redis.RedisError, doubt: str = "the breaker allows it") -> Refusal:
        """Return the refusal of a call because Redis does not answer, and note that."""
        self._note(error)
        refusal = Unavailable(f"Redis cannot say whether {doubt}; check DSPYQ_REDIS_URL and that Redis is running")
        return Refusal(refusal, wait_seconds=_WITHOUT_AN_ANSWER_SECONDS, pauses_queue=True)

    def _go_without_redis(self, billed: BilledCall, error: redis.RedisError) -> None:
        """Let a call pass that nobody can count now, where the settings say so and no money can be overspent."""
        doubt = "the budget allows it" if self._budget.is_limited(billed) else ""
        for table in ("breaker", "rate_limit"):
            if not doubt and getattr(self._settings, table).when_redis_fails == "refuse":
                doubt = f"{table} allows it ({table}.when_redis_fails)"
        if doubt:
            # A Redis that is slow to answer may hold it all the same, even later than it is told to release it.
            self._settlements.tell_later([self._budget.release(billed)])
            raise self.refusal_without_redis(error, doubt)
        self._note(error)

    def _note(self, error: redis.RedisError) -> None:
        metrics.GUARD_REDIS_FAILURES.labels(self._model.name).inc()
        logger.warning(Event("guards_not_asked", model=self._model.name, error=f"{type(error).__name__}: {error}"))

    def _refuse(self, error: Unavailable, wait_seconds: float) -> NoReturn:
        raise Refusal(error, wait_seconds=wait_seconds, pauses_queue=True)

    def _give_back(self, billed: BilledCall) -> None:
        self._settlements.tell([self._budget.release(billed)])

    def _bound(self, billed: BilledCall, call: Call) -> int:
        """The most the call may cost.

        Raises:
            Ending: If it has no bound, and a limit stands that it may break.
        """
        has_bound = call.max_completion_tokens is not None and call.is_text
        if not has_bound and billed.batch:
            self._learn_limits(billed)
        if not has_bound and self._budget.is_limited(billed):
            reason = "has parts other than text" if not call.is_text else "states no max_tokens"
            raise Ending(UnboundedCall(f"a call of model {self._model.name} {reason}: no budget can hold its cost"))
        return bound_nano_usd(
            wire_bytes=call.wire_bytes,
            prompt_overhead_tokens=self._model.prompt_overhead_tokens,
            max_tokens=call.max_completion_tokens or self._model.max_tokens,
            input_usd_per_million_tokens=self._prices.input_usd_per_million_tokens,
            output_usd_per_million_tokens=self._prices.output_usd_per_million_tokens,
        )

    def _learn_limits(self, billed: BilledCall) -> None:
        """Ask whether a call of a batch has a limit, which no configuration says.

        Raises:
            Refusal: If Redis does not say.
        """
        try:
            run_together(self._client, [self._budget.look(billed, 0)])
        except redis.RedisError as error:
            raise self.refusal_without_redis(error, "the budget allows it") from None


def _refuse_long(line: Line) -> None:
    """Send a job back to its queue, and pause that, while so many wait already.

    Raises:
        Postponement: Where the line is long.
    """
    if len(line) >= _LONGEST_LINE:
        raise Postponement(0.0, seconds_left=lambda: 0.0 if len(line) <= _LONGEST_LINE // 2 else 1.0)
