"""Deferral of calls: a run stops at its first unpaid call, and its job sleeps until the reply has landed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import orjson
import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.delivery.versions import version_queue
from dspyq.guards.admission import Admission
from dspyq.guards.batch_lanes import BatchLane
from dspyq.guards.billing import BilledCall
from dspyq.guards.call import Call, LineReader
from dspyq.guards.call_records import ANSWERED, CallRecord, JobRun
from dspyq.guards.interruptions import Deferral, JobLost
from dspyq.guards.lane_hold import LaneHolds
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.lane import metrics
from dspyq.lane.depths import Depths
from dspyq.lane.journal import LaneJournal, LaneLook
from dspyq.lane.landing import failure_of
from dspyq.lane.line import LaneLine
from dspyq.lane.row_money import LaneCall, RowMoney

#: A line's hold, and the sleep of its job, last so long without a renewal: the usual window of a day, and some more.
LEASE_SECONDS = 26 * 3600.0
#: A program that repeats none of its calls from one run to the next would never end in a lane.
_MOST_STRAYS = 3
#: Nor would one whose later calls differ in each run. Others take a round for each call that they have left behind, as
#: many again where calls are shipped twice, and some more.
_ROUNDS_PER_CALL, _FURTHER_ROUNDS = 2, 5
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
        holds = LaneHolds(guards.client, guards.budget, settings.lane.hold_share)
        self._money = RowMoney(client, holds, Depths(settings.programs, guards.predictors))
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
        if journal is None or not lane.is_of_provider:
            return None
        attempts = [record for record in ledger.calls if record.key == key]
        if (landed := self._landed(ledger, model, attempts, key)) is not None:
            return landed
        if sum(record.outcome != ANSWERED for record in attempts) >= model.batch_max_attempts:
            return None
        return self._ask_lane(LaneCall(ledger, job, admission, call, key, len(attempts) + 1), journal, lane)

    def _ask_lane(self, asked: LaneCall, journal: LaneJournal, lane: BatchLane) -> bytes | None:
        """Return a salvaged reply, or None for a call that is to be made live; see ``defer``."""
        ledger = asked.ledger
        look = journal.look(asked.job, asked.custom_id, asked.key)
        if look.salvaged is not None and asked.attempt == 1:
            return look.salvaged
        if not look.is_in_lane:  # it may stay there for a day, so the state of a moment ago is not enough
            lane = self._guards.batch_lanes.read(asked.job.batch)
        if look.is_awaited or look.is_live or lane.is_left or not lane.is_of_provider:
            self._promote(asked, journal, is_in_lane=look.is_in_lane, is_by_batch=not look.is_awaited)
            return None
        if not look.is_in_lane:
            if is_endless(ledger, look) or not self._enter(asked, look, journal, lane):
                return None
        elif not look.lines:
            journal.rejoin(asked.job.task_id)
        raise ledger.interrupt(Deferral(LEASE_SECONDS))

    def _landed(self, ledger: Ledger, model: Model, attempts: list[CallRecord], key: str) -> bytes | None:
        """Return the reply that landed last, where its program failed on each; raise a lasting failure that landed."""
        if (failure := ledger.earlier.failures.get(key)) is not None:
            raise failure_of(self._readers[model.name], **orjson.loads(failure)).error
        answered = sum(record.outcome == ANSWERED for record in attempts)
        return ledger.earlier_reply_to(key) if answered >= self._settings.retry.max_parse_attempts else None

    def _enter(self, asked: LaneCall, look: LaneLook, journal: LaneJournal, lane: BatchLane) -> bool:
        """Put a call into its lane; return False if it is to be made live.

        Raises:
            Interruption: If there is no money for it, or none yet.
        """
        body = asked.call.line_body()
        row = self._money.row_of(asked, look)
        if body is None or (lane.is_in_rest and self._money.leaves_lane(asked, row, lane)):
            return False
        line = self._line(asked.job, self._money.hold(asked, row, LEASE_SECONDS))
        deposited = journal.deposit(asked.custom_id, line, body)
        if deposited != "there":
            self._take_back(line.billed(journal.model, asked.custom_id))
            raise asked.ledger.interrupt(JobLost() if deposited == "gone" else Deferral(LEASE_SECONDS))
        return True

    def _line(self, job: JobRun, bound: int) -> LaneLine:
        program = self._settings.programs[job.program]
        version = version_queue(program.variants[job.variant].queue, program.fingerprints[job.variant])
        owner = job.batch, job.payer, job.tenant
        return LaneLine(job.task_id, job.program, job.variant, version, bound, round(time.time(), 3), *owner)

    def _take_back(self, billed: BilledCall) -> None:
        self._guards.outbox.send([self._guards.budget.take_back(billed)])

    def _promote(self, asked: LaneCall, journal: LaneJournal, *, is_in_lane: bool, is_by_batch: bool) -> None:
        """Take a call out of the lane, to be made live; one that is at the provider is paid twice.

        The batch pays for that only where this is at its own request, and not where other callers wait.
        """
        if journal.take_back(asked.custom_id) or not is_in_lane:  # a Redis that restarted may have lost the line alone
            self._take_back(asked.billed)
        if not is_by_batch:
            asked.ledger.leave_batch()
        metrics.PROMOTED.labels(journal.model).inc()


def is_endless(ledger: Ledger, look: LaneLook) -> bool:
    """Return True for a row that may never end in a lane, as where its program's requests hold the time.

    Args:
        ledger: Ledger of its run, at a call that is new to the lane.
        look: The state of that call's job.
    """
    calls = ledger.reused_replies + 1
    most_rounds = min(_MOST_ROUNDS, _ROUNDS_PER_CALL * calls + _FURTHER_ROUNDS)
    return look.rounds >= most_rounds or look.strays >= _MOST_STRAYS
