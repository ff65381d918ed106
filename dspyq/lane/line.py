"""Lines of a lane: a model call of a batch that waits for its provider's batch interface, without its request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from dspyq.guards.billing import BilledCall, Payer
from dspyq.guards.call_journal import LANE
from dspyq.guards.call_records import JobRun

#: Digits of the task in a custom id. The first ones are the same in all tasks of a process.
_TASK_DIGITS = 12


@dataclass(frozen=True, slots=True)
class LaneLine:
    """A call in a lane.

    Attributes:
        task: The task whose program asked it.
        program: The program.
        variant: Its variant.
        version: The queue of the job's version.
        bound: The most it may cost at the batch price, in nano-dollars; held since it came.
        at: When it came, seconds since 1970.
        batch: The batch that pays.
        payer: As of ``BilledCall``.
        tenant: As of ``BilledCall``.
    """

    task: str
    program: str
    variant: str
    version: str
    bound: int
    at: float
    batch: str
    payer: Payer = ""
    tenant: str = ""

    def to_json(self) -> bytes:
        """Return it as the journal keeps it."""
        return orjson.dumps({name: value for name, value in asdict(self).items() if value != ""})

    @classmethod
    def from_json(cls, text: bytes) -> LaneLine:
        """Return what ``to_json`` kept."""
        kept: dict[str, Any] = orjson.loads(text)
        return cls(**kept)

    @property
    def job(self) -> JobRun:
        """The job whose run it stopped; no run of it has it now."""
        return JobRun(self.task, "", self.program, self.variant, batch=self.batch, tenant=self.tenant)

    def billed(self, model: str, custom_id: str) -> BilledCall:
        """Return the call as the budget bills it."""
        return billed_line(self.task, self, model, custom_id)


def custom_id_of(call_key: str, attempt: int, task_id: str) -> str:
    """Return a line's name at its provider, of ``[A-Za-z0-9_-]`` alone; each attempt has another."""
    digest, _, occurrence = call_key.partition(":")
    tail = "".join(character for character in task_id if character.isalnum())[-_TASK_DIGITS:]
    return f"{digest}-{occurrence}-{attempt}-{tail}"


def call_key_of(custom_id: str) -> str:
    """Return the key of a line's call in its ledger."""
    digest, occurrence, _ = custom_id.split("-", 2)
    return f"{digest}:{occurrence}"


def attempt_id_of(variant: str, custom_id: str) -> str:
    """Return the id of a line's attempt among those of its job, as ``CallJournal.remember`` takes it."""
    digest, occurrence, attempt, _ = custom_id.split("-", 3)
    return f"{LANE}:{variant}:{digest[:16]}-{occurrence}-{attempt}"


def billed_line(task_id: str, owner: LaneLine | JobRun, model: str, custom_id: str) -> BilledCall:
    """Return a line as the budget bills it.

    Args:
        task_id: The task.
        owner: Who pays.
        model: The model's table.
        custom_id: The line's.
    """
    call_id = f"{task_id}:{attempt_id_of(owner.variant, custom_id)}"
    return BilledCall(call_id, owner.program, owner.variant, model, owner.batch, owner.payer, owner.tenant)
