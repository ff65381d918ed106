"""Calls that a killed worker has left half settled: recorded at the jobs' Redis, and still held at that of money."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspyq.core.money import to_nano_usd
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.call_journal import LANE
from dspyq.guards.call_records import ANSWERED, EarlierRuns, JobRun
from dspyq.guards.model import Guards
from dspyq.store.scripts import Step


def settle_again(guards: Guards, job: JobRun, earlier: EarlierRuns) -> None:
    """Settle the recorded calls of a job's earlier runs once more, in one round trip.

    A call that was settled stays as it is. Where one Redis has jobs and money, both are written together, so nothing
    is done.
    """
    if earlier.attempts and guards.jobs() is not guards.client:
        guards.outbox.send(list(_steps(guards.budget, job, earlier)))


def _steps(budget: Budget, job: JobRun, earlier: EarlierRuns) -> Iterator[Step[Any]]:
    for attempt_id, record in earlier.attempts.items():
        fence, _, rest = attempt_id.partition(":")
        if fence == LANE or record.cost_usd is None or record.is_estimated:
            continue  # a lane settles its own, before they are recorded; an unknown bill is the bound, as charged
        names = job.program, rest.rpartition(":")[0], record.model
        billed = BilledCall(f"{job.task_id}:{attempt_id}", *names, job.batch, job.payer, job.tenant)
        if record.outcome == ANSWERED or record.cost_usd:
            bill = Bill(to_nano_usd(record.cost_usd), record.prompt_tokens or 0, record.completion_tokens or 0)
            yield budget.settle(billed, bill, only_held=True)
        else:
            yield budget.release(billed)
