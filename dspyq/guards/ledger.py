"""Ledger of one running prediction: its model calls, their cost and its interruption. Independent of DSPy."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspyq.core.events import NO_CONTEXT
from dspyq.core.runtime import current
from dspyq.errors import DeadlineExceeded
from dspyq.guards.call_records import NO_EARLIER_RUNS, CallRecord, EarlierRuns, JobRun
from dspyq.guards.interruptions import Deferral, FailPrediction, Interruption, RetryLater
from dspyq.prediction.prediction import TRUNCATED

#: A thread sleeps no longer than this for anything but its turn; the job returns to its queue instead.
LONGEST_SLEEP_SECONDS = 1.0


class UnaccountedCall(RuntimeError):
    """A model call outside of a running prediction: its reply would be lost and its cost not counted."""


class Ledger:
    """The calls of one running prediction, written by all its threads.

    Args:
        job: Owner of the calls; None for a program that runs outside of any job.
        earlier: Calls and replies of earlier runs of the job.
        deadline_seconds: Time limit of all runs together.

    Attributes:
        log_context: Additional fields of log lines of its threads.
        finish_reason: Finish reason of its model's replies: ``length`` if one was cut off, else that of the latest.
        runtime: The runtime of the run, for the threads of its program, which inherit none.
        trace_context: Parent of its model calls' spans, with tracing on.
        tap: The run's stream, as the programs' room has it; None for a run that is not streamed.
    """

    def __init__(
        self, job: JobRun | None = None, earlier: EarlierRuns = NO_EARLIER_RUNS, deadline_seconds: float | None = None
    ) -> None:
        self.job = job
        self.earlier = earlier
        self.log_context: Mapping[str, Any] = NO_CONTEXT
        self.runtime = current()
        self.trace_context: Any = None
        self.tap: Any = None
        self._started_at = time.monotonic()
        self._deadline_seconds = deadline_seconds
        self._calls: list[CallRecord] = []  # appending is atomic, so threads need no lock
        self._replies = dict(earlier.replies)
        self._occurrences: Counter[str] = Counter()
        self._attempts = itertools.count(1)
        self._lock = threading.Lock()  # over the one before and the one behind it
        self._latest_key = ""
        self._interruption: Interruption | None = None
        self._exhaustion: Exception | None = None
        self._is_closed = False
        self.finish_reason: str | None = None

    def note_finish(self, reason: str) -> None:
        """Record a reply's finish reason; ``length`` stays once recorded."""
        if self.finish_reason != TRUNCATED:
            self.finish_reason = reason

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
        """Running time of the job in seconds, summed over all its runs."""
        return self.earlier.running_seconds + time.monotonic() - self._started_at

    @property
    def interruption(self) -> Interruption | None:
        """The interruption that ended the run before its program was done; None without one."""
        return self._interruption

    def check_open(self) -> None:
        """Refuse a call if its run is interrupted, exhausted or over.

        Raises:
            Interruption: Again, if one ended the run: a program may have swallowed it, or have threads left.
            Exception: Again, what used up the question's probes.
            UnaccountedCall: If the prediction has ended: threads of ``dspy.Parallel`` outlive a program that raised.
        """
        if self._interruption is not None and not isinstance(self._interruption, Deferral):
            raise self._interruption  # beside a deferred call, others of the same moment are deferred too
        if self._exhaustion is not None:
            raise self._exhaustion
        if self._is_closed:
            raise UnaccountedCall("the prediction that this model call belongs to has ended")
        self.seconds_left()

    def interrupt(self, interruption: Interruption) -> Interruption:
        """Mark the run as ended; the first mark stays. Return it, to be raised."""
        if self._interruption is None:
            self._interruption = interruption
        return self._interruption

    def exhaust(self, error: Exception) -> Exception:
        """Refuse all further calls, as the question has used up its probes. Return the error, to be raised."""
        self._exhaustion = error
        return error

    def key_of(self, digest: str) -> str:
        """Return the key of the next request: its digest, and the number of times that it was made before."""
        with self._lock:
            self._occurrences[digest] += 1
            self._latest_key = f"{digest}:{self._occurrences[digest]}"
            return self._latest_key

    @property
    def is_stray(self) -> bool:
        """True if the program has asked nothing again that earlier runs were answered: those replies bought nothing."""
        with self._lock:
            asked = dict(self._occurrences)
        keys = [key.rpartition(":") for key in self.earlier.replies]
        return bool(keys) and all(asked.get(digest, 0) < int(number) for digest, _, number in keys)

    @property
    def reused_replies(self) -> int:
        """Number of replies of earlier runs that the program has asked again: the calls that it has left behind."""
        with self._lock:
            asked = dict(self._occurrences)
        keys = [key.rpartition(":") for key in self.earlier.replies]
        return sum(asked.get(digest, 0) >= int(number) for digest, _, number in keys)

    def earlier_reply_to(self, key: str) -> bytes | None:
        """Return the latest reply to a call, also one that the program could not parse in this run."""
        return self._replies.get(key) or self.earlier.replies.get(key)

    def reply_to(self, key: str) -> bytes | None:
        """Return the reply that was paid for already."""
        return self._replies.get(key)

    def keep(self, key: str, reply: bytes) -> None:
        """Keep a reply for the program's next pass."""
        self._replies[key] = reply

    def begin_again(self) -> None:
        """Prepare for the program to run again on its replies, except the latest, which it could not parse."""
        with self._lock:
            self._occurrences.clear()
            self._replies.pop(self._latest_key, None)
            self.finish_reason = None

    def leave_batch(self) -> None:
        """Have the run's further calls paid by no batch."""
        if self.job is not None:
            self.job = replace(self.job, batch="", alias="")

    def without_batch(self) -> Ledger:
        """Return a ledger for the program to run again on its replies, for callers other than the job's batch.

        Both ledgers record all calls. This one stays closed: threads left by the program make no call for the other.
        """
        return self._for_others(replace(self.job, batch="", alias="") if self.job else None)

    def without_tenant(self) -> Ledger:
        """Return a ledger for callers other than the job's tenant, as ``without_batch``."""
        return self._for_others(replace(self.job, tenant="") if self.job else None)

    def _for_others(self, job: JobRun | None) -> Ledger:
        other = copy.copy(self)
        vars(other).update(
            job=job,
            _occurrences=Counter(),
            _lock=threading.Lock(),
            _interruption=None,
            _is_closed=False,
            finish_reason=None,
        )
        return other

    def seconds_since_first(self, key: str) -> float:
        """Return the seconds since this run first tried a call."""
        return time.time() - min(call.began_at for call in self._calls if call.key == key)

    def next_attempt(self) -> int:
        """Return a number that no other attempt of this run has."""
        return next(self._attempts)

    def add(self, call: CallRecord) -> None:
        """Record a call."""
        self._calls.append(call)

    def close(self) -> None:
        """End the prediction: no further call is made for it."""
        self._is_closed = True

    def seconds_left(self) -> float:
        """Return the seconds that the prediction may still run.

        Raises:
            FailPrediction: If its deadline has passed.
        """
        if self._deadline_seconds is None:
            return math.inf
        left = self._deadline_seconds - self.running_seconds
        if left <= 0:
            setting = f"programs.{self.job.program if self.job else ''}.deadline_seconds"
            error = DeadlineExceeded(f"it ran for {self._deadline_seconds:g} s, not counting its queue ({setting})")
            raise self.interrupt(FailPrediction(error))
        return left

    def sleep(self, seconds: float) -> None:
        """Wait in this thread.

        Raises:
            FailPrediction: If the prediction's deadline comes first.
        """
        time.sleep(min(seconds, self.seconds_left()))
        self.check_open()

    def postpone(self, seconds: float) -> None:
        """Wait before another attempt: in this thread, or in the queue if the wait is long.

        Raises:
            RetryLater: If the wait is long.
            FailPrediction: If the prediction's deadline comes first.
        """
        if seconds > LONGEST_SLEEP_SECONDS and self.job is not None:
            raise self.interrupt(RetryLater(seconds))
        self.sleep(seconds)
