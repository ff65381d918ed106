"""The measures of the guards' faults: the budget at every moment, and the books beside the endpoint's own counts."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from dataclasses import dataclass
from typing import Self

import redis

from tests.chaos.stage import Stage
from tests.support.configuration import INPUT_USD_PER_MILLION_TOKENS, OUTPUT_USD_PER_MILLION_TOKENS
from tests.support.endpoint_records import Counts
from tests.support.processes import wait_until

NANO = 10**9
_POLL_SECONDS = 0.005
_POLLS_PER_BILL = 20
#: One moment: what is settled and held of today, the limit that an operator set, and the calls that are held.
_LOOK = """
local account = redis.call('KEYS', 'dspy:v1:budget:all:daily:*')[1]
local amounts = account and redis.call('HMGET', account, 'settled', 'held') or {}
local one = redis.call('ZRANGE', 'dspy:v1:budget:leases', 0, 0)[1]
local bound = one and redis.call('HGET', 'dspy:v1:budget:hold:' .. one, 'bound')
return {amounts[1] or '0', amounts[2] or '0', redis.call('HGET', 'dspy:v1:budget-limits', 'all daily') or '',
  redis.call('ZCARD', 'dspy:v1:budget:leases'), bound or '0'}
"""


@dataclass(frozen=True)
class Moment:
    """The day's budget of all calls, at one moment.

    Attributes:
        at: When, seconds since 1970.
        settled: Nano-dollars that are settled.
        held: Nano-dollars that are held.
        limit: The limit in nano-dollars.
        calls: How many calls are held.
        bound: What one of them can cost at most; 0 where none is held.
    """

    at: float
    settled: int
    held: int
    limit: int
    calls: int
    bound: int

    @property
    def over(self) -> int:
        """The amount by which settled and held exceed the limit."""
        return max(0, self.settled + self.held - self.limit)


class BudgetWatch:
    """Looks at the day's budget about 200 times a second, as long as its context lasts.

    Attributes:
        moments: What it saw.
        worst_unbacked: The most by which the endpoint had billed more than was settled and held, in nano-dollars.
    """

    def __init__(self, stage: Stage, limit_usd: float) -> None:
        self.moments: list[Moment] = []
        self.worst_unbacked = 0
        self._stage = stage
        self._limit = round(limit_usd * NANO)
        self._client = stage.money.client()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        self._thread.join()
        self._client.close()

    def look(self) -> Moment:
        """Look now."""
        settled, held, limit, calls, bound = self._client.eval(_LOOK, 0)
        return Moment(time.time(), int(settled), int(held), int(limit or self._limit), int(calls), int(bound))

    @property
    def worst_over(self) -> int:
        """The most that settled and held exceeded the limit by, in nano-dollars."""
        return max((moment.over for moment in self.moments), default=0)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most that a call could cost at most, of those seen, in nano-dollars."""
        seen = {moment.bound for moment in self.moments if moment.bound}
        return min(seen, default=0), max(seen, default=0)

    def refused_while_free(self, refused_at: float) -> bool:
        """Return True if there was money for any call when one was refused.

        What is settled only grows, so if there is money a moment later there was before.
        """
        before = [moment for moment in self.moments if refused_at - 0.5 <= moment.at <= refused_at]
        later = next((moment for moment in self.moments if moment.at > refused_at), None)
        if later is None or not before:
            return False
        limit = min(moment.limit for moment in before)
        return later.settled + self.bounds[1] <= limit

    def wait_until_nothing_is_held(self, timeout_seconds: float) -> int:
        """Wait until no call is held; return how many are."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.look().calls == 0, timeout_seconds, "no call to be held")
        return self.look().calls

    def _run(self) -> None:
        for number in itertools.count():
            if self._is_ending.wait(_POLL_SECONDS):
                return
            billed = billed_nano_usd(self._stage.endpoint.counts()) if number % _POLLS_PER_BILL == 0 else 0
            with contextlib.suppress(redis.RedisError):
                moment = self.look()
                self.moments.append(moment)
                self.worst_unbacked = max(self.worst_unbacked, billed - moment.settled - moment.held)


def billed_nano_usd(counts: Counts) -> int:
    """Return what the endpoint billed by its own count."""
    dollars = (
        counts.prompt_tokens * INPUT_USD_PER_MILLION_TOKENS + counts.completion_tokens * OUTPUT_USD_PER_MILLION_TOKENS
    )
    return round(dollars / 1e6 * NANO)


def read_books(stage: Stage) -> dict[str, int]:
    """Return the books' counters, added up over programs, variants and models."""
    sums: dict[str, int] = {}
    with stage.money.client() as client:
        for key in client.scan_iter("dspy:v1:costs:*", count=1000):
            for field, value in client.hgetall(key).items():
                name = field.split(" ")[-1]
                sums[name] = sums.get(name, 0) + int(value)
    return sums


def read_statistics(stage: Stage) -> dict[str, int]:
    """Return the budget's counters of what was unusual."""
    with stage.money.client() as client:
        return {name: int(value) for name, value in client.hgetall("dspy:v1:budget-statistics").items()}


def find_money_faults(stage: Stage, watch: BudgetWatch, timeout_seconds: float = 10.0) -> list[str]:
    """Return a remark for each promise about money that is broken, once all is quiet."""
    faults = []
    if leaked := watch.wait_until_nothing_is_held(timeout_seconds):
        faults.append(f"{leaked} holds leaked")
    if (held := watch.look().held) and not leaked:
        faults.append(f"{dollars(held)} are held for no call")
    if watch.worst_over:
        faults.append(f"settled and held were {dollars(watch.worst_over)} over the limit")
    if watch.worst_unbacked > 0:
        faults.append(f"the endpoint had billed {dollars(watch.worst_unbacked)} that was neither settled nor held")
    billed, settled = billed_nano_usd(stage.endpoint.counts()), watch.look().settled
    if billed > settled:
        faults.append(f"the endpoint billed {dollars(billed)}, and {dollars(settled)} is settled")
    books = read_books(stage)
    if (completions := stage.endpoint.counts().completions) > books.get("calls", 0):
        faults.append(f"the endpoint served {completions} calls, and the books have {books.get('calls', 0)}")
    in_books = books.get("billed_nano_usd", 0) + books.get("unknown_nano_usd", 0)
    if in_books != settled:
        faults.append(f"the books say {dollars(in_books)}, and {dollars(settled)} is settled")
    return faults


def dollars(nano_usd: int) -> str:
    """Return an amount as people read it."""
    return f"${nano_usd / NANO:.6f}"
