"""What a batch may spend, what it has spent, and which of its calls are on no row yet.

Workers hold and settle the calls of a batch in its account, in the same scripts as in the day's and the month's
(``dspyq/guards/lua/accounts.lua``). At any moment, to the nano-dollar::

    settled = the costs of the receipts that were collected + the charges of the calls in the statement
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import redis

from dspyq.core.money import to_nano_usd
from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import load_script

#: As long as a day's books are kept.
_KEEP_SECONDS = 400 * 86_400
_COUNTERS = (
    "settled", "held", "calls", "billed_nano_usd", "unknown_calls", "unknown_nano_usd", "prompt_tokens",
    "completion_tokens",
)  # fmt: skip
#: A noted call: its name within its job, why it was charged, its amount and its tokens.
_NOTED = re.compile(r"([^\s^=~?]+)([\^=~?])(\d+),(\d+),(\d+)")

CallState = Literal["billed", "unknown", "lost", "held"]
_STATES: dict[str, CallState] = {"=": "billed", "~": "unknown", "?": "lost", "^": "held"}
#: What the run of a job knows of, and its row tells.
_ON_ROWS = frozenset({"billed", "unknown"})


def account_key(batch_id: str) -> str:
    """Return the key of a batch's account."""
    return f"{KEY_PREFIX}budget:batch:{batch_id}"


@dataclass(frozen=True, slots=True)
class BatchBooks:
    """What a batch spent.

    Attributes:
        settled_nano_usd: What its calls came to, those of unknown cost at the most they may have.
        held_nano_usd: What calls under way may come to at most.
        max_nano_usd: What it may spend; None for no limit of its own.
        calls: Calls that providers served, or may have.
        billed_nano_usd: What those of known cost came to.
        unknown_calls: Calls whose cost nobody knows.
        unknown_nano_usd: The most that those can have cost, which they were charged.
        prompt_tokens: Tokens sent, as far as providers counted them.
        completion_tokens: Tokens generated, as far as providers counted them.
    """

    settled_nano_usd: int = 0
    held_nano_usd: int = 0
    max_nano_usd: int | None = None
    calls: int = 0
    billed_nano_usd: int = 0
    unknown_calls: int = 0
    unknown_nano_usd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class UncollectedCall:
    """A call of a batch whose cost no row carries.

    Attributes:
        call_id: ``<task id>:<run>:<variant>:<number>``.
        task_id: Its job.
        state: ``billed``; ``unknown``: its run went on without knowing its bill; ``lost``: its worker died, and it was
            charged its bound when its lease had run out; ``held``: under way, or its worker died a moment ago.
        bound_nano_usd: What it may come to, where it is held; else 0.
        charged_nano_usd: What it was charged; 0 where it is held.
    """

    call_id: str
    task_id: str
    state: CallState
    bound_nano_usd: int
    charged_nano_usd: int


class JobCost(NamedTuple):
    """What a job's calls came to, but for those that its runs know nothing of: they were lost, or are under way.

    Attributes:
        nano_usd: The sum.
        prompt_tokens: Tokens sent, as far as providers counted them.
        completion_tokens: Tokens generated, as far as providers counted them.
        receipt: Which calls these are: what ``collected`` takes.
    """

    nano_usd: int
    prompt_tokens: int
    completion_tokens: int
    receipt: str


class BatchAccount:
    """A batch's money.

    Args:
        client: The Redis of jobs.
        batch_id: The batch.
    """

    def __init__(self, client: redis.Redis, batch_id: str) -> None:
        self._client = client
        self._key = account_key(batch_id)
        self._calls = f"{self._key}:calls"
        self._open = load_script(client, "dspyq.batch", "open")
        self._collected = load_script(client, "dspyq.batch", "collected")

    def open(
        self,
        *,
        max_usd: float | None = None,
        budget_share: float | None = None,
        rate_share: float | None = None,
        spent_nano_usd: int = 0,
    ) -> None:
        """Say what the batch may spend, in place of what was said before. What it has spent stays.

        Before this its calls are refused.

        Args:
            max_usd: In all; None for no limit of its own.
            budget_share: Of what the daily limit of all calls leaves once others' calls are paid, up to 1.
            rate_share: Of each model's ``requests_per_second`` and ``tokens_per_minute``, up to 1.
            spent_nano_usd: What its rows are known to have cost: its limit holds also where Redis has lost its data.
        """
        limits = (None if max_usd is None else to_nano_usd(max_usd), budget_share, rate_share)
        stated = ["" if limit is None else limit for limit in limits]
        self._open(keys=[self._key], args=[_KEEP_SECONDS, spent_nano_usd, *stated])

    def exists(self) -> bool:
        """Whether it was opened, or anything was charged to it."""
        return bool(self._client.exists(self._key))

    def read(self) -> BatchBooks:
        """Return what the batch has spent."""
        return _books(cast("list[bytes | None]", self._client.hmget(self._key, *_COUNTERS, "max_nano_usd")))

    def costs(self, task_ids: Sequence[str]) -> list[JobCost]:
        """Return what jobs have cost so far, beyond what was collected; they may come to more while they run."""
        if not task_ids:
            return []
        noted = cast("list[bytes | None]", self._client.hmget(self._calls, list(task_ids)))
        return [_cost(note or b"") for note in noted]

    def collected(self, receipts: Mapping[str, str]) -> int:
        """Forget calls whose cost is on rows now, for good: written, and in the journal.

        To say so again, after a crash, changes nothing.

        Args:
            receipts: By task id.

        Returns:
            How many calls were forgotten.
        """
        pairs = [part for task_id, receipt in receipts.items() if receipt for part in (task_id, receipt)]
        return int(self._collected(keys=[self._calls], args=pairs)) if pairs else 0

    def statement(self) -> tuple[BatchBooks, list[UncollectedCall]]:
        """Return what the batch has spent and the calls that are on no row, both of one moment."""
        pipeline = self._client.pipeline()
        pipeline.hmget(self._key, *_COUNTERS, "max_nano_usd")
        pipeline.hgetall(self._calls)
        books, noted = pipeline.execute()
        calls = [call for task_id, note in noted.items() for call in _calls(task_id.decode(), note)]
        return _books(books), sorted(calls, key=lambda call: call.call_id)


def _books(fields: list[bytes | None]) -> BatchBooks:
    *counters, limit = fields
    settled, held, *others = (int(counter or 0) for counter in counters)
    return BatchBooks(settled, held, None if limit is None else int(limit), *others)


def _cost(note: bytes) -> JobCost:
    known = [call for call in _entries(note) if call.state in _ON_ROWS]
    return JobCost(
        sum(call.nano_usd for call in known),
        sum(call.prompt_tokens for call in known),
        sum(call.completion_tokens for call in known),
        " ".join(call.text for call in known),
    )


def _calls(task_id: str, note: bytes) -> Iterator[UncollectedCall]:
    for call in _entries(note):
        held, charged = (call.nano_usd, 0) if call.state == "held" else (0, call.nano_usd)
        yield UncollectedCall(f"{task_id}:{call.name}", task_id, call.state, held, charged)


class _Noted(NamedTuple):
    """A call of a job, as it stands in the note, and what that says."""

    text: str
    name: str
    state: CallState
    nano_usd: int
    prompt_tokens: int
    completion_tokens: int


def _entries(note: bytes) -> Iterator[_Noted]:
    for entry in note.decode().split():
        found = _NOTED.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} is no call of a batch: another version wrote it")
        name, reason, *amounts = found.groups()
        yield _Noted(entry, name, _STATES[reason], *map(int, amounts))
