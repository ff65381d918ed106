"""Account of a batch: its limits, its spending, and its calls whose cost is on no row yet.

Workers hold and settle the calls of a batch in its account, in the same scripts as in the day's and the month's
(``dspyq/guards/lua/budget_library.lua``). At any moment, to the nano-dollar::

    settled = the costs of the receipts that were collected + the charges of the calls in the statement
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import redis

from dspyq.core.money import to_nano_usd
from dspyq.lane.disk import wait_for_disk_of_money
from dspyq.store.keys import batch_account_key
from dspyq.store.scripts import load_script

_COUNTERS = (
    "settled", "held", "calls", "billed_nano_usd", "unknown_calls", "unknown_nano_usd", "prompt_tokens",
    "completion_tokens",
)  # fmt: skip
#: A noted call: its name within its job, the reason for the charge, its amount and its tokens.
_NOTED = re.compile(r"([^\s^=~?]+)([\^=~?])(\d+),(\d+),(\d+)")

CallState = Literal["billed", "unknown", "lost", "held"]
_STATES: dict[str, CallState] = {"=": "billed", "~": "unknown", "?": "lost", "^": "held"}
#: States of calls that are in the run's ledger and so in its row.
_ON_ROWS = frozenset({"billed", "unknown"})


@dataclass(frozen=True, slots=True)
class BatchBooks:
    """The spending of a batch.

    Attributes:
        settled_nano_usd: Cost of its settled calls, with the highest possible cost for those of unknown cost.
        held_nano_usd: Highest possible cost of calls in progress.
        max_nano_usd: Its limit; None for no limit of its own.
        calls: Calls that providers served, or may have.
        billed_nano_usd: Cost of those of known cost.
        unknown_calls: Calls of unknown cost.
        unknown_nano_usd: Highest possible cost of those, which they were charged.
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
        state: ``billed``; ``unknown``: its run continued without its bill; ``lost``: its worker died, and it was
            charged its bound when its lease had run out; ``held``: under way, or its worker died a moment ago.
        bound_nano_usd: Its bound while it is held; else 0.
        charged_nano_usd: Its charge; 0 while it is held.
    """

    call_id: str
    task_id: str
    state: CallState
    bound_nano_usd: int
    charged_nano_usd: int


class JobCost(NamedTuple):
    """The cost of a job's calls, without those that its runs have no record of: lost ones, and ones under way.

    Attributes:
        nano_usd: The sum.
        prompt_tokens: Tokens sent, as far as providers counted them.
        completion_tokens: Tokens generated, as far as providers counted them.
        receipt: Receipt of these calls, for ``collected``.
    """

    nano_usd: int
    prompt_tokens: int
    completion_tokens: int
    receipt: str


class BatchAccount:
    """Account of a batch.

    Args:
        client: The Redis of jobs.
        batch_id: The batch.
    """

    def __init__(self, client: redis.Redis, batch_id: str) -> None:
        self._client = client
        self._batch_id = batch_id
        self._key = batch_account_key(batch_id)
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
        lane: str = "",
    ) -> None:
        """Open the account, or replace its limits. Its spending stays.

        Its calls are refused until the account is open.

        Args:
            max_usd: Limit of the batch in all; None for no limit of its own.
            budget_share: Share of what others' calls leave of the daily limit of all calls, up to 1.
            rate_share: Share of each model's ``requests_per_second`` and ``tokens_per_minute``, up to 1.
            spent_nano_usd: Known cost of its rows, so that the limit holds even if Redis has lost its data.
            lane: How its model calls are made, as ``provider``; live where left out.
        """
        limits = {
            "max_nano_usd": None if max_usd is None else to_nano_usd(max_usd),
            "budget_share": budget_share,
            "rate_share": rate_share,
        }
        stated = {name: "" if limit is None else limit for name, limit in limits.items()}
        self._open([self._key], spent=spent_nano_usd, lane=lane, **stated)

    def exists(self) -> bool:
        """Return True if the account was opened, or anything was charged to it."""
        return bool(self._client.exists(self._key))

    def read(self) -> BatchBooks:
        """Return the spending of the batch."""
        return _books(cast("list[bytes | None]", self._client.hmget(self._key, *_COUNTERS, "max_nano_usd")))

    def costs(self, task_ids: Sequence[str]) -> list[JobCost]:
        """Return the uncollected cost of jobs so far; it may grow while they run."""
        if not task_ids:
            return []
        noted = cast("list[bytes | None]", self._client.hmget(self._calls, list(task_ids)))
        return [_cost(note or b"") for note in noted]

    def collected(self, receipts: Mapping[str, str]) -> int:
        """Forget calls whose cost is durably on rows now: written, and in the journal.

        A repeated call, after a crash, changes nothing.

        Args:
            receipts: The receipts, by task id.

        Returns:
            Number of calls forgotten.
        """
        pairs = [part for task_id, receipt in receipts.items() if receipt for part in (task_id, receipt)]
        return int(self._collected([self._calls], receipts=pairs)) if pairs else 0

    def wait_for_disk(self) -> None:
        """Wait until what was settled and noted so far is on Redis's disk; see ``dspyq.lane.disk``.

        Raises:
            redis.TimeoutError: If the disk takes longer than some seconds.
        """
        wait_for_disk_of_money(self._client, self._batch_id)

    def statement(self) -> tuple[BatchBooks, list[UncollectedCall]]:
        """Return a consistent snapshot of the batch's spending and its calls that are on no row."""
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
    """A call of a job: its text in the note, and the parsed values."""

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
