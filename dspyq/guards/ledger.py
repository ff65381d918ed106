"""One running prediction: its calls of models, what they cost, and whether it may make another. Knows no DSPy."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from dspyq.core.events import NO_CONTEXT
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.errors import DeadlineExceeded
from dspyq.guards.interruptions import Ending, Interruption, Postponement

#: The outcome of a call that was answered; any other is the code of its error, as in ``rate_limit`` or ``timeout``.
ANSWERED = "ok"
#: A thread sleeps no longer than this for anything but its turn; the job returns to its queue instead.
LONGEST_SLEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt to call a model, whether it succeeded or not.

    Attributes:
        model: The model's table in the configuration.
        outcome: ``ok``, or the code of what went wrong.
        duration_seconds: How long it took.
        prompt_tokens: Tokens sent, as the provider counted them; None where it did not say.
        completion_tokens: Tokens generated; None where the provider did not say.
        cost_usd: What it cost; None where that is unknown, as for a call that failed.
        is_estimated: Whether the bill is unknown, and the cost what it can be at most.
        key: What was asked for, and for which time in this prediction: the same for another attempt of it.
        began_at: When, seconds since 1970.
        spends_attempt: Whether it failed and counts against ``retry.max_attempts``: not while the provider is known to
            be ill, or asks to wait.
    """

    model: str
    outcome: str
    duration_seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    is_estimated: bool = False
    key: str = field(default="", compare=False)
    began_at: float = field(default=0.0, compare=False)
    spends_attempt: bool = field(default=False, compare=False)


class UnaccountedCall(RuntimeError):
    """A model was about to be called for no running prediction: nobody would see the reply or count its cost."""


@dataclass(frozen=True, slots=True)
class Job:
    """Whose model calls these are.

    Attributes:
        task_id: The task's id.
        fence: The number of the run; empty for a run without a job record.
        program: The program's name.
        variant: The name of the variant that runs; another than the task's own where it answers as a fallback.
        run_count: How many runs the job had, this one included.
        batch: The id of the batch that pays for its calls; empty where none does.
        alias: The key of its question's alias, where a batch pays.
    """

    task_id: str
    fence: str
    program: str
    variant: str
    run_count: int = 1
    batch: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """What earlier runs of a job did, which a run that follows them goes on from.

    Attributes:
        calls: Their calls.
        replies: The replies that were paid for, by key.
        running_seconds: How long they ran, where the program has a deadline.
    """

    calls: tuple[CallRecord, ...] = ()
    replies: Mapping[str, bytes] = field(default_factory=dict)
    running_seconds: float = 0.0


NO_EARLIER_RUNS = EarlierRuns()


class Ledger:
    """The calls of one running prediction, written by all its threads.

    Args:
        job: Whose calls they are; None for a program that runs outside of any job.
        earlier: What earlier runs of the job did.
        deadline_seconds: How long all runs together may take.

    Attributes:
        log_context: What lines of its threads say besides.
        trace_context: What its model calls' spans belong to, where there are any.
    """

    def __init__(
        self, job: Job | None = None, earlier: EarlierRuns = NO_EARLIER_RUNS, deadline_seconds: float | None = None
    ) -> None:
        self.job = job
        self.earlier = earlier
        self.log_context: Mapping[str, Any] = NO_CONTEXT
        self.trace_context: Any = None
        self._started_at = time.monotonic()
        self._deadline_seconds = deadline_seconds
        self._calls: list[CallRecord] = []  # appending is atomic, so threads need no lock
        self._replies = dict(earlier.replies)
        self._occurrences: Counter[str] = Counter()
        self._attempts = itertools.count(1)
        self._lock = threading.Lock()  # over the one before and the one behind it
        self._latest_key = ""
        self._interruption: Interruption | None = None
        self._is_closed = False

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The calls of the job so far, in the order they ended, earlier runs' first."""
        return (*self.earlier.calls, *self._calls)

    @property
    def run_calls(self) -> tuple[CallRecord, ...]:
        """The calls of this run alone."""
        return tuple(self._calls)

    @property
    def running_seconds(self) -> float:
        """How long the job has run, over all its runs."""
        return self.earlier.running_seconds + time.monotonic() - self._started_at

    @property
    def interruption(self) -> Interruption | None:
        """What ended the run before its program was done."""
        return self._interruption

    def check_open(self) -> None:
        """Refuse a call that would be made for nobody.

        Raises:
            Interruption: Again, if one ended the run: a program may have swallowed it, or have threads left.
            UnaccountedCall: If the prediction has ended: threads of ``dspy.Parallel`` outlive a program that raised.
        """
        if self._interruption is not None:
            raise self._interruption
        if self._is_closed:
            raise UnaccountedCall("the prediction that this model call belongs to has ended")
        self.seconds_left()

    def interrupt(self, interruption: Interruption) -> Interruption:
        """Mark the run as ended; the first mark stays. Return it, to be raised."""
        if self._interruption is None:
            self._interruption = interruption
        return self._interruption

    def key_of(self, digest: str) -> str:
        """Return the key of a request that is about to be made: its digest, and how often it was made before."""
        with self._lock:
            self._occurrences[digest] += 1
            self._latest_key = f"{digest}:{self._occurrences[digest]}"
            return self._latest_key

    def reply_to(self, key: str) -> bytes | None:
        """Return the reply that was paid for already."""
        return self._replies.get(key)

    def keep(self, key: str, reply: bytes) -> None:
        """Keep a reply for the program's next pass."""
        self._replies[key] = reply

    def begin_again(self) -> None:
        """Let the program run again on the replies it had, but for the latest, which it could not read."""
        with self._lock:
            self._occurrences.clear()
            self._replies.pop(self._latest_key, None)

    def without_batch(self) -> Ledger:
        """Return a ledger for the program to run again on the replies it had, for others than the job's batch.

        Both ledgers tell all calls. This one stays ended: threads that the program has left make no call for the other.
        """
        other = copy.copy(self)
        vars(other).update(
            job=replace(self.job, batch="", alias="") if self.job else None,
            _occurrences=Counter(),
            _lock=threading.Lock(),
            _interruption=None,
            _is_closed=False,
        )
        return other

    def spent_attempts(self, key: str) -> int:
        """Return how many attempts of a call count so far, over all runs."""
        return sum(call.spends_attempt for call in self.calls if call.key == key)

    def seconds_since_first(self, key: str) -> float:
        """Return how long ago this run tried a call first."""
        return time.time() - min(call.began_at for call in self._calls if call.key == key)

    def next_attempt(self) -> int:
        """Return a number that no other attempt of this run has."""
        return next(self._attempts)

    def add(self, call: CallRecord) -> None:
        """Write down a call."""
        self._calls.append(call)

    def close(self) -> None:
        """End the prediction: no further call is made for it."""
        self._is_closed = True

    def seconds_left(self) -> float:
        """Return how long the prediction may still run.

        Raises:
            Ending: If its deadline has passed.
        """
        if self._deadline_seconds is None:
            return math.inf
        left = self._deadline_seconds - self.running_seconds
        if left <= 0:
            setting = f"programs.{self.job.program if self.job else ''}.deadline_seconds"
            error = DeadlineExceeded(f"it ran for {self._deadline_seconds:g} s, not counting its queue ({setting})")
            raise self.interrupt(Ending(error))
        return left

    def sleep(self, seconds: float) -> None:
        """Wait in this thread.

        Raises:
            Ending: If the prediction's deadline comes first.
        """
        time.sleep(min(seconds, self.seconds_left()))
        self.check_open()

    def postpone(self, seconds: float) -> None:
        """Wait before another attempt: in this thread, or in the queue where it takes long.

        Raises:
            Postponement: Where it takes long.
            Ending: If the prediction's deadline comes first.
        """
        if seconds > LONGEST_SLEEP_SECONDS and self.job is not None:
            raise self.interrupt(Postponement(seconds))
        self.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program returned and what it took.

    Attributes:
        outputs: The outputs as JSON values.
        calls: Every call of a model, failed ones included, of earlier runs of the job too.
    """

    outputs: dict[str, JsonValue]
    calls: tuple[CallRecord, ...]

    @property
    def prompt_tokens(self) -> int:
        """Tokens sent, as far as the provider counted them."""
        return sum(call.prompt_tokens or 0 for call in self.calls)

    @property
    def completion_tokens(self) -> int:
        """Tokens generated, as far as the provider counted them."""
        return sum(call.completion_tokens or 0 for call in self.calls)

    @property
    def cost_usd(self) -> float | None:
        """What its calls cost together."""
        return total_cost_usd(self.calls)


def total_cost_usd(calls: Iterable[CallRecord]) -> float | None:
    """Return what calls cost together, as the books add it up, or None if one that was answered has no known cost.

    Failed calls of unknown cost count as free: whether a provider bills them, it does not say.
    """
    total_nano_usd = 0
    for call in calls:
        if call.cost_usd is None and call.outcome == ANSWERED:
            return None
        total_nano_usd += to_nano_usd(call.cost_usd or 0.0)
    return to_usd(total_nano_usd)
