"""Deferral of calls: a run stops at its first unpaid call, and its job sleeps until the reply has landed."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import orjson
import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.delivery.versions import version_queue
from dspyq.guards.admission import Admission
from dspyq.guards.billing import BilledCall
from dspyq.guards.call import Call, LineReader
from dspyq.guards.call_records import ANSWERED, CallRecord, JobRun
from dspyq.guards.interruptions import Deferral, JobLost, RetryLater
from dspyq.guards.lane_hold import HoldTerms, LaneHolds
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.lane import metrics
from dspyq.lane.depths import Depths
from dspyq.lane.journal import LaneJournal
from dspyq.lane.landing import failure_of
from dspyq.lane.line import LaneLine, billed_line, custom_id_of

#: A line's hold, and the sleep of its job, last so long without a renewal: the usual window of a day, and some more.
LEASE_SECONDS = 26 * 3600.0
#: A row in the lane whose money other calls hold is run again so much later, each further time after twice as long.
_FIRST_BUSY_SECONDS, _LONGEST_BUSY_SECONDS = 3.0, 120.0
#: A program that repeats none of its calls from one run to the next would never end in a lane.
_MOST_STRAYS = 3
#: And so would one that makes ever more calls.
_MOST_ROUNDS = 40


class DeferredCalls:
    """The lanes of a worker's models, as its guards use them.

    Args:
        settings: The configuration.
        client: The Redis of jobs.
        guards: The guards of the models.
    """

    def __init__(self, settings: Settings, client: redis.Redis, guards: Guards) -> None:
        self._settings = settings
        self._guards = guards
        self._readers: Mapping[str, LineReader] = guards.line_readers
        self._holds = LaneHolds(guards.client, guards.budget, settings.lane.hold_share)
        self._depths = Depths()
        self._journals = {
            model.name: LaneJournal(client, model.name)
            for model in settings.models.values()
            if model.batch_protocol is not None
        }

    def defer(self, ledger: Ledger, job: JobRun, admission: Admission, call: Call, key: str) -> bytes | None:
        """Leave a call to its model's lane, if its batch has that lane; see ``dspyq.guards.lanes``."""
        try:
            return self._defer(ledger, job, admission, call, key)
        except redis.RedisError as error:
            doubt = "the call waits in a lane"
            raise ledger.interrupt(admission.refusal_without_redis(error, doubt)) from None

    def _defer(self, ledger: Ledger, job: JobRun, admission: Admission, call: Call, key: str) -> bytes | None:
        model = admission.model
        journal = self._journals.get(model.name)
        lane = self._guards.batch_lanes.of(job.batch)
        if journal is None or not lane.startswith("provider"):
            return None
        attempts = [record for record in ledger.calls if record.key == key]
        if (landed := self._landed(ledger, model, attempts, key)) is not None:
            return landed
        if sum(record.outcome != ANSWERED for record in attempts) >= model.batch_max_attempts:
            return None
        custom_id = custom_id_of(key, len(attempts) + 1, job.task_id)
        look = journal.look(job.task_id, custom_id, key)
        if look.salvaged is not None and not attempts:
            return look.salvaged
        if look.is_awaited or look.is_live or lane != "provider":
            self._promote(ledger, job, journal, custom_id, is_by_batch=not look.is_awaited)
            return None
        if not look.is_in_lane:
            body = call.line_body()
            if body is None or look.rounds >= _MOST_ROUNDS or look.strays >= _MOST_STRAYS:
                return None
            line = self._line(job, self._hold(ledger, job, admission, call, custom_id))
            if not journal.deposit(custom_id, line, body):
                self._release(line.billed(model.name, custom_id))
                raise ledger.interrupt(JobLost())
        elif not look.lines:
            journal.rejoin(job.task_id)
        raise ledger.interrupt(Deferral(LEASE_SECONDS))

    def _landed(self, ledger: Ledger, model: Model, attempts: list[CallRecord], key: str) -> bytes | None:
        """Return the reply that landed last, where its program failed on each; raise a lasting failure that landed."""
        if (failure := ledger.earlier.failures.get(key)) is not None:
            raise failure_of(self._readers[model.name], **orjson.loads(failure)).error
        answered = sum(record.outcome == ANSWERED for record in attempts)
        return ledger.earlier_reply_to(key) if answered >= self._settings.retry.max_parse_attempts else None

    def _hold(self, ledger: Ledger, job: JobRun, admission: Admission, call: Call, custom_id: str) -> int:
        billed = billed_line(job.task_id, job, admission.model.name, custom_id)
        try:
            terms = HoldTerms(LEASE_SECONDS, self._depths.calls_left(job, len(ledger.earlier.replies)))
            bound = self._holds.hold(ledger, admission, billed, call, terms)
        except redis.ResponseError:  # it landed since this run began, and is settled
            raise ledger.interrupt(Deferral(LEASE_SECONDS)) from None
        if bound is None:
            longest = min(_LONGEST_BUSY_SECONDS, _FIRST_BUSY_SECONDS * 2.0 ** min(job.run_count - 1, 10))
            raise ledger.interrupt(RetryLater(random.uniform(longest / 2, longest)))  # noqa: S311 - jitter
        return bound

    def _line(self, job: JobRun, bound: int) -> LaneLine:
        program = self._settings.programs[job.program]
        version = version_queue(program.variants[job.variant].queue, program.fingerprints[job.variant])
        owner = job.batch, job.payer, job.tenant
        return LaneLine(job.task_id, job.program, job.variant, version, bound, round(time.time(), 3), *owner)

    def _release(self, billed: BilledCall) -> None:
        self._guards.outbox.send([self._guards.budget.release(billed)])

    def _promote(self, ledger: Ledger, job: JobRun, journal: LaneJournal, custom_id: str, *, is_by_batch: bool) -> None:
        """Take a call out of the lane, to be made live; one that is at the provider is paid twice.

        The batch pays for that only where this is at its own request, and not where other callers wait.
        """
        if journal.take_back(custom_id):
            self._release(billed_line(job.task_id, job, journal.model, custom_id))
        if not is_by_batch:
            ledger.leave_batch()
        metrics.PROMOTED.labels(journal.model).inc()
