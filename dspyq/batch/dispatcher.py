"""Entries on their way: looked up, asked, collected, taken back. What lands is handed to OUT."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import redis
from celery.states import READY_STATES, REVOKED
from celery.utils import uuid

from dspyq.batch.account import BatchAccount
from dspyq.batch.entry import Entry, State
from dspyq.batch.events import Counts
from dspyq.batch.journal import Journal, Leader
from dspyq.batch.output import Output
from dspyq.batch.output_lines import Asked, Line, line_of_copy, line_of_result
from dspyq.batch.redis_retry import Patience
from dspyq.batch.registry import Registry
from dspyq.cache.claims import Claim
from dspyq.celery_app.waiting import read_meta
from dspyq.client.bulk import Bulk
from dspyq.prediction.prediction import CacheLevel
from dspyq.prediction.request import Request
from dspyq.store.clients import JOB_PREFIX, which_exist

#: After this without an answer, an entry's job is looked for.
LOOK_FOR_JOB_SECONDS = 30.0
_ENTRIES_AT_ONCE = 500

LookedUp = Future[list[Claim | None]]
#: Refusals of the batch alone: the entry is to be asked again when there is money.
_LIMITED = "BatchLimitReached"
_SHARE_USED = "BatchShareUsed"


class Servers(NamedTuple):
    """Redis, as a batch uses it.

    Attributes:
        bulk: Questions.
        account: The batch's money.
        registry: What other hosts see of it.
        jobs: The Redis of jobs.
    """

    bulk: Bulk
    account: BatchAccount
    registry: Registry
    jobs: redis.Redis


class Asking:
    """The entries of a batch that are on their way.

    A crash at any point leaves the journal and OUT as of their last commit, and that is before anything was asked that
    they do not know of. Not for threads.

    Args:
        servers: Redis.
        patience: Waits for Redis.
        journal: The journal.
        output: OUT.
        asked: The batch.
        counts: What landed.
        priority: The turn of its jobs.

    Attributes:
        in_flight: The entries that were asked, by their tasks.
        again: Entries that were taken back, or that the batch had no money for.
        is_limited: Whether the batch's limit has refused one.
        is_share_used: Whether its share of the day's budget has.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a batch
        self,
        servers: Servers,
        patience: Patience,
        journal: Journal,
        output: Output,
        asked: Asked,
        counts: Counts,
        priority: int,
    ) -> None:
        self._servers = servers
        self._patience = patience
        self._journal = journal
        self._output = output
        self._asked = asked
        self._counts = counts
        self._priority = priority
        self._thread = ThreadPoolExecutor(1, "dspyq-look")
        self._settled: list[str] = []
        self._may_wait = journal.has_waiting()
        self.in_flight: dict[str, Entry] = {}
        self.again: deque[Entry] = deque()
        self.is_limited = False
        self.is_share_used = False

    def close(self) -> None:
        """Look nothing up any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def look_ahead(self, entries: Sequence[Entry]) -> LookedUp | None:
        """Begin to look entries up: Redis works while those before them are written."""
        requests = [_request(entry) for entry in entries if entry.task_id is None]
        return self._thread.submit(self._servers.bulk.look, requests) if requests else None

    def take(self, entries: Sequence[Entry], looked_up: LookedUp | None = None) -> None:
        """Answer entries as far as the cache and the batch itself can; ask the others.

        Args:
            entries: The entries.
            looked_up: What ``look_ahead`` returned for them.
        """
        new = [entry for entry in entries if entry.task_id is None]
        found = self._found(new, looked_up)
        revoked = self._resume([entry for entry in entries if entry.task_id is not None])
        first, waiting, lines = self._sorted_out([*new, *revoked])
        misses = []
        for entry in first:
            claim = found.get(entry.number)
            if claim is None:
                misses.append(entry)
            else:
                lines.append(self._line(entry, read_meta(claim.result), "redis"))
        self._journal.put(waiting)
        self._may_wait |= bool(waiting)
        self._land(lines)
        if misses:
            self._ask(misses)

    def _found(self, entries: Sequence[Entry], looked_up: LookedUp | None) -> dict[int, Claim]:
        """Return what the cache has, by the entries' numbers."""
        if not entries:
            return {}
        try:
            claims = looked_up.result() if looked_up else None
        except (redis.RedisError, OSError):
            claims = None
        if claims is None:
            requests = [_request(entry) for entry in entries]
            claims = self._patience(lambda: self._servers.bulk.look(requests))
        return {entry.number: claim for entry, claim in zip(entries, claims, strict=True) if claim is not None}

    def collect(self) -> int:
        """Take in the answers that have come; return how many."""
        return sum(self._collect(chunk) for chunk in _chunks(list(self.in_flight.values())))

    def look_for_jobs(self) -> None:
        """Ask again what has waited for long and whose job is gone, as after a Redis that lost its memory."""
        long_ago = time.monotonic() - LOOK_FOR_JOB_SECONDS
        waited = [entry for entry in self.in_flight.values() if entry.asked_at < long_ago]
        for chunk in _chunks(waited):
            self._look_for_jobs(chunk)

    def recall(self) -> int:
        """Take back what no run has begun; return how many entries that were."""
        recalled = 0
        for chunk in _chunks(list(self.in_flight.values())):
            recall = functools.partial(self._servers.bulk.recall, _asked(chunk), batch=self._asked.batch_id)
            taken = self._patience(recall)
            back = [entry for entry, is_back in zip(chunk, taken, strict=True) if is_back]
            self._reopen(back)
            self.again.extend(back)
            recalled += len(back)
        self.commit()
        return recalled

    def withdraw(self) -> None:
        """Take this batch's interest off everything."""
        for chunk in _chunks(list(self.in_flight.values())):
            withdraw = functools.partial(self._servers.bulk.withdraw, _asked(chunk), batch=self._asked.batch_id)
            self._reopen(chunk)
            self.again.extend(chunk)
            self.commit()
            self._patience(withdraw)

    def commit(self) -> None:
        """Bring what landed to the disk; then tell the ledger which costs are on rows now."""
        self._output.commit()
        if receipts := self._journal.receipts():
            self._patience(lambda: self._servers.account.collected(receipts))
            self._journal.drop_receipts(receipts)
        settled, self._settled = self._settled, []
        if settled:
            self._patience(lambda: self._servers.registry.drop_claims(self._asked.batch_id, settled))

    def _resume(self, entries: Sequence[Entry]) -> list[Entry]:
        """Go on with entries that an earlier process has asked; return those that are to be asked anew."""
        if not entries:
            return []
        for entry in entries:
            self.in_flight[str(entry.task_id)] = entry
        results = self._results(entries)
        # Of a batch that was cancelled while nobody ran it.
        revoked = [entry for entry, meta in results if meta["status"] == REVOKED]
        self._finish([(entry, meta) for entry, meta in results if meta["status"] != REVOKED])
        self._reopen(revoked)
        self._look_for_jobs([entry for entry in entries if self._is_in_flight(entry)])
        return revoked

    def _sorted_out(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry], list[Line]]:
        """Tell the first of each question from those that wait for it, and answer those whose first one is done."""
        leaders = self._journal.leaders(entry.input_hash for entry in entries if entry.input_hash)
        first: dict[bytes, Entry] = {}
        waiting: list[Entry] = []
        lines: list[Line] = []
        for entry in entries:
            assert entry.input_hash is not None  # noqa: S101 - those without are no questions
            leader = leaders.get(entry.input_hash)
            if leader is not None and leader.number < entry.number and leader.state >= State.OK:
                lines.append(self._copy(entry, leader))
            elif entry.input_hash in first or (leader is not None and leader.number < entry.number):
                entry.state = State.WAITING
                waiting.append(entry)
            else:
                first[entry.input_hash] = entry
        return list(first.values()), waiting, lines

    def _copy(self, entry: Entry, leader: Leader) -> Line:
        return line_of_copy(entry, self._output.line_of(leader), self._asked, "redis")

    def _ask(self, entries: Sequence[Entry]) -> None:
        """Ask questions; their task ids are on the disk before."""
        for entry in entries:
            if entry.task_id is None:
                entry.task_id, entry.is_claimed = uuid(), True
            entry.state = State.ASKED
        self._journal.put(entries)
        self.commit()
        batch_id, servers = self._asked.batch_id, self._servers
        self._patience(lambda: servers.registry.note_claims(batch_id, entries))
        requests = [_request(entry) for entry in entries]
        ids = [str(entry.task_id) for entry in entries]
        claims = self._patience(lambda: servers.bulk.ask(requests, ids, priority=self._priority, batch=batch_id))
        asked_at = time.monotonic()
        moved, found = [], []
        for entry, claim in zip(entries, claims, strict=True):
            entry.asked_at = asked_at
            if claim.task_id != entry.task_id:
                self._settled.append(str(entry.task_id))
                self.in_flight.pop(str(entry.task_id), None)
                entry.task_id, entry.is_claimed = claim.task_id, False
                moved.append(entry)
            if claim.verdict == "hit":
                found.append((entry, claim))
            else:
                self.in_flight[claim.task_id] = entry
        self._journal.put(moved)
        self._land_hits(found)

    def _land_hits(self, found: Sequence[tuple[Entry, Claim]]) -> None:
        own = [(entry, read_meta(claim.result)) for entry, claim in found if entry.is_claimed]
        others = [(entry, read_meta(claim.result)) for entry, claim in found if not entry.is_claimed]
        for entry, _ in found:
            self.in_flight.pop(str(entry.task_id), None)
        self._finish(own)
        self._land([self._line(entry, meta, "redis") for entry, meta in others])

    def _collect(self, entries: Sequence[Entry]) -> int:
        done = self._results(entries)
        self._finish(done)
        return len(done)

    def _results(self, entries: Sequence[Entry]) -> list[tuple[Entry, Mapping[str, Any]]]:
        """Return the entries whose tasks have ended, each with what Celery stored."""
        ids = [str(entry.task_id) for entry in entries]
        stored = self._patience(lambda: self._servers.bulk.collect(ids))
        metas = ((entry, read_meta(result)) for entry, result in zip(entries, stored, strict=True) if result)
        return [(entry, meta) for entry, meta in metas if meta["status"] in READY_STATES]

    def _finish(self, done: Sequence[tuple[Entry, Mapping[str, Any]]]) -> None:
        """Land what has a result, but for entries that the batch had no money for: they are to be asked again."""
        if not done:
            return
        self._pay([entry for entry, _ in done])
        lines, unpaid = [], []
        for entry, meta in done:
            self.in_flight.pop(str(entry.task_id), None)
            if self._is_unpaid(meta):
                unpaid.append(entry)
            else:
                lines.append(self._line(entry, meta, None if entry.is_claimed else "joined"))
        self._land(lines)
        self._forget_tasks(unpaid)
        self.again.extend(unpaid)

    def _is_unpaid(self, meta: Mapping[str, Any]) -> bool:
        result = meta["result"]
        refusal = result.get("exc_type") if isinstance(result, Mapping) else None
        self.is_limited |= refusal == _LIMITED
        self.is_share_used |= refusal == _SHARE_USED
        return refusal in {_LIMITED, _SHARE_USED}

    def _pay(self, entries: Sequence[Entry]) -> None:
        """Put what the batch's own tasks have paid on their entries."""
        own = [entry for entry in entries if entry.is_claimed]
        if not own:
            return
        costs = self._patience(lambda: self._servers.account.costs([str(entry.task_id) for entry in own]))
        receipts = {}
        for entry, cost in zip(own, costs, strict=True):
            entry.paid_nano_usd += cost.nano_usd
            entry.prompt_tokens += cost.prompt_tokens
            entry.completion_tokens += cost.completion_tokens
            self._counts.cost_nano_usd += cost.nano_usd
            self._counts.prompt_tokens += cost.prompt_tokens
            self._counts.completion_tokens += cost.completion_tokens
            if cost.receipt:
                receipts[str(entry.task_id)] = cost.receipt
            self._settled.append(str(entry.task_id))
        self._journal.keep_receipts(receipts)

    def _reopen(self, entries: Sequence[Entry]) -> None:
        """Let entries be asked anew; what their tasks have paid stays theirs."""
        self._pay(entries)
        for entry in entries:
            self.in_flight.pop(str(entry.task_id), None)
        self._forget_tasks(entries)

    def _forget_tasks(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            entry.state, entry.task_id, entry.is_claimed = State.OPEN, None, False
        self._journal.put(entries)

    def _look_for_jobs(self, entries: Sequence[Entry]) -> None:
        """Ask again those whose job is gone, though they have no answer."""
        task_ids = [str(entry.task_id) for entry in entries]
        with_job = self._patience(lambda: which_exist(self._servers.jobs, JOB_PREFIX, task_ids))
        now = time.monotonic()
        suspects = []
        for entry, task_id in zip(entries, task_ids, strict=True):
            entry.asked_at = now
            if task_id not in with_job:
                suspects.append(entry)
        if not suspects:
            return
        self._collect(suspects)  # a job that ends stores its answer before it goes
        lost = [entry for entry in suspects if self._is_in_flight(entry)]
        for entry in lost:
            if not entry.is_claimed:
                self.in_flight.pop(str(entry.task_id))
                entry.task_id = None
        if lost:
            self._ask(lost)

    def _is_in_flight(self, entry: Entry) -> bool:
        return self.in_flight.get(str(entry.task_id)) is entry

    def _line(self, entry: Entry, meta: Mapping[str, Any], level: CacheLevel | None) -> Line:
        return line_of_result(entry, meta, self._asked, level)

    def land_faults(self, lines: Sequence[Line]) -> None:
        """Land rows that cannot be asked."""
        self._land(lines)

    def _land(self, lines: Sequence[Line]) -> None:
        """Write lines, and those of the entries that waited for them."""
        if not lines:
            return
        self._output.land(lines)
        self._count(lines)
        if not self._may_wait:
            return
        answers = {line.entry.input_hash: line.text for line in lines if line.entry.input_hash}
        for input_hash in self._journal.awaited(answers):
            after = 0
            while waiting := self._journal.waiting(input_hash, after, _ENTRIES_AT_ONCE):
                copies = [line_of_copy(entry, answers[input_hash], self._asked, "joined") for entry in waiting]
                self._output.land(copies)
                self._count(copies)
                after = waiting[-1].number

    def _count(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._counts.add(line.state, line.outcome)


def _request(entry: Entry) -> Request:
    assert entry.request is not None  # noqa: S101 - what is asked was read by this process
    return entry.request


def _asked(entries: Iterable[Entry]) -> list[tuple[Request, str]]:
    return [(_request(entry), str(entry.task_id)) for entry in entries]


def _chunks(entries: Sequence[Entry]) -> Iterable[Sequence[Entry]]:
    return (entries[start : start + _ENTRIES_AT_ONCE] for start in range(0, len(entries), _ENTRIES_AT_ONCE))
