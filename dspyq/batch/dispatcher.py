"""Entries in flight: looked up, sent, collected, recalled. Finished ones are handed to OUT."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis
from celery.states import READY_STATES, REVOKED

from dspyq.batch.entry import Entry, EntryState
from dspyq.batch.journal import Leader
from dspyq.batch.output_lines import OutputLine, answers_entry, line_of_copy, line_of_result
from dspyq.batch.parts import BatchParts
from dspyq.batch.scorers import Scorers
from dspyq.cache.claim import Claim
from dspyq.core.ids import uuids
from dspyq.core.runtime import bound
from dspyq.prediction.prediction import CacheLevel
from dspyq.prediction.request import Request
from dspyq.prediction.stored import read_meta
from dspyq.store.clients import jobs_client, which_exist
from dspyq.store.keys import job_key
from dspyq.store.spines import by_spine, id_beside, place_of

#: Time without an answer after which an entry's job is looked up.
LOOK_FOR_JOB_SECONDS = 30.0
_ENTRIES_AT_ONCE = 500

LookedUp = Future[list[Claim | None]]
#: Refusals of the batch alone: the entry is to be asked again when there is money.
_LIMITED = "BatchLimitReached"
_SHARE_USED = "BatchShareUsed"


class Dispatcher:
    """The entries of a batch in flight.

    A crash at any point leaves the journal and OUT as of their last commit, and every entry sent is recorded in a
    commit before it is sent. Not thread-safe.

    Args:
        parts: The batch's parts.
        priority: The turn of its jobs.
        scorers: Scores its answers; None where it does not ask for that.

    Attributes:
        in_flight: The entries sent and not yet answered, by their tasks.
        again: Entries to send again: recalled, or refused by the batch's limits.
        is_limited: True if the batch's limit has refused one.
        is_share_used: True if its share of the day's budget has refused one.
    """

    def __init__(self, parts: BatchParts, priority: int, scorers: Scorers | None = None) -> None:
        self._servers = parts.servers
        self._retry = parts.retry
        self._journal = parts.journal
        self._output = parts.output
        self._batch = parts.batch
        self._counts = parts.counts
        self._priority = priority
        self._scorers = scorers
        self._thread = ThreadPoolExecutor(1, "dspyq-look")
        self._receipts = parts.receipts
        self._settled: list[str] = []
        self._may_wait = parts.journal.has_waiting()
        self.in_flight: dict[str, Entry] = {}
        self.again: deque[Entry] = deque()
        self.is_limited = False
        self.is_share_used = False

    def begin(self) -> None:
        """Clear receipts that a killed run left, once the account is there for certain: calls need it."""
        self._receipts.wait_for_disk()
        self.commit()

    def end(self) -> None:
        """Commit what is left, and clear its costs for certain."""
        self.commit()
        self._receipts.end()
        self._journal.commit()

    def close(self) -> None:
        """Stop looking entries up."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def look_ahead(self, entries: Sequence[Entry]) -> LookedUp | None:
        """Begin to look entries up, while previous ones are written."""
        requests = [_request(entry) for entry in entries if entry.task_id is None]
        return self._thread.submit(bound(self._servers.bulk.peek), requests) if requests else None

    def take(self, entries: Sequence[Entry], looked_up: LookedUp | None = None) -> None:
        """Answer entries from the cache and the batch itself; send the others.

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
        self._write(lines)
        if misses:
            self._ask(misses)

    def _found(self, entries: Sequence[Entry], looked_up: LookedUp | None) -> dict[int, Claim]:
        """Return cached answers by the entries' numbers."""
        if not entries:
            return {}
        try:
            claims = looked_up.result() if looked_up else None
        except (redis.RedisError, OSError):
            claims = None
        if claims is None:
            requests = [_request(entry) for entry in entries]
            claims = self._retry(lambda: self._servers.bulk.peek(requests))
        return {entry.number: claim for entry, claim in zip(entries, claims, strict=True) if claim is not None}

    def collect(self) -> int:
        """Collect answers that have arrived, in a lane read again behind the wait for the disk; return their number."""
        entries = list(self.in_flight.values())
        if self._receipts.waits_for_disk:
            entries = [entry for chunk in _chunks(entries) for entry, _ in self._results(chunk)]
            if entries:
                self._receipts.wait_for_disk()
        return sum(self._collect(chunk) for chunk in _chunks(entries))

    def look_for_jobs(self) -> None:
        """Send entries again that have waited long and whose job is gone, as after data loss in Redis."""
        long_ago = time.monotonic() - LOOK_FOR_JOB_SECONDS
        waited = [entry for entry in self.in_flight.values() if entry.asked_at < long_ago]
        for chunk in _chunks(waited):
            self._look_for_jobs(chunk)

    def recall(self) -> int:
        """Recall entries that no run has begun; return their number."""
        recalled = 0
        for chunk in _chunks(list(self.in_flight.values())):
            recall = functools.partial(self._servers.bulk.recall, _asked(chunk), batch=self._batch.batch_id)
            taken = self._retry(recall)
            back = [entry for entry, is_back in zip(chunk, taken, strict=True) if is_back]
            self._reopen(back)
            self.again.extend(back)
            recalled += len(back)
        self.commit()
        return recalled

    def withdraw(self) -> None:
        """Withdraw this batch from all entries in flight."""
        self._receipts.wait_for_disk()
        for chunk in _chunks(list(self.in_flight.values())):
            withdraw = functools.partial(self._servers.bulk.withdraw, _asked(chunk), batch=self._batch.batch_id)
            self._reopen(chunk)
            self.again.extend(chunk)
            self.commit()
            self._retry(withdraw)

    def commit(self) -> None:
        """Commit finished lines to the disk, then clear their costs from the ledger."""
        self._output.commit()
        self._receipts.clear()
        settled, self._settled = self._settled, []
        if settled:
            self._retry(lambda: self._servers.registry.drop_claims(self._batch.batch_id, settled))

    def _resume(self, entries: Sequence[Entry]) -> list[Entry]:
        """Resume entries that an earlier process has sent; return those that must be sent again."""
        if not entries:
            return []
        for entry in entries:
            self.in_flight[str(entry.task_id)] = entry
        self._receipts.wait_for_disk()
        results = self._results(entries)
        # Jobs revoked because the batch was cancelled while no runner was alive.
        revoked = [entry for entry, meta in results if meta["status"] == REVOKED]
        self._finish([(entry, meta) for entry, meta in results if meta["status"] != REVOKED])
        self._reopen(revoked)
        self._look_for_jobs([entry for entry in entries if self._is_in_flight(entry)])
        return revoked

    def _sorted_out(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry], list[OutputLine]]:
        """Split entries into the first of each question, those that wait for a first one, and lines copied from one."""
        leaders = self._journal.leaders(entry.input_hash for entry in entries if entry.input_hash)
        first: dict[bytes, Entry] = {}
        waiting: list[Entry] = []
        lines: list[OutputLine] = []
        for entry in entries:
            assert entry.input_hash is not None  # noqa: S101 - those without are no questions
            leader = leaders.get(entry.input_hash)
            if leader is not None and leader.number < entry.number and leader.state >= EntryState.OK:
                lines.append(self._copy(entry, leader))
            elif entry.input_hash in first or (leader is not None and leader.number < entry.number):
                entry.state = EntryState.WAITING
                waiting.append(entry)
            else:
                first[entry.input_hash] = entry
        return list(first.values()), waiting, lines

    def _copy(self, entry: Entry, leader: Leader) -> OutputLine:
        return line_of_copy(entry, self._output.line_of(leader), self._batch, "redis")

    def _ask(self, entries: Sequence[Entry]) -> None:
        """Send questions; their task ids are on disk before."""
        for entry, own_id in zip(entries, uuids(), strict=False):
            if entry.task_id is None:
                entry.task_id, entry.is_claimed = id_beside(_request(entry).input_hash, own_id), True
            entry.state = EntryState.ASKED
        self._journal.put(entries)
        self.commit()
        batch_id, servers = self._batch.batch_id, self._servers
        self._retry(lambda: servers.registry.note_claims(batch_id, entries))
        requests = [_request(entry) for entry in entries]
        ids = [str(entry.task_id) for entry in entries]
        claims = self._retry(lambda: servers.bulk.ask(requests, ids, priority=self._priority, batch=batch_id))
        asked_at = time.monotonic()
        moved, found = [], []
        for entry, claim in zip(entries, claims, strict=True):
            entry.asked_at = asked_at
            if claim.task_id != entry.task_id:
                self._settled.append(str(entry.task_id))
                self.in_flight.pop(str(entry.task_id), None)
                entry.task_id, entry.is_claimed = claim.task_id, False
                moved.append(entry)
            if claim.verdict in ("hit", "damaged"):
                found.append((entry, claim))
            else:
                self.in_flight[claim.task_id] = entry
        self._journal.put(moved)
        self._write_hits(found)

    def _write_hits(self, found: Sequence[tuple[Entry, Claim]]) -> None:
        own = [(entry, read_meta(claim.result)) for entry, claim in found if entry.is_claimed]
        others = [(entry, read_meta(claim.result)) for entry, claim in found if not entry.is_claimed]
        for entry, _ in found:
            self.in_flight.pop(str(entry.task_id), None)
        if own:
            self._receipts.wait_for_disk()
        self._finish(own)
        self._write([self._line(entry, meta, "redis") for entry, meta in others])

    def _collect(self, entries: Sequence[Entry]) -> int:
        done = self._results(entries)
        self._finish(done)
        return len(done)

    def _results(self, entries: Sequence[Entry]) -> list[tuple[Entry, Mapping[str, Any]]]:
        """Return the entries whose tasks have ended, each with its stored result."""
        ids = [str(entry.task_id) for entry in entries]
        stored = self._retry(lambda: self._servers.bulk.collect(ids))
        metas = ((entry, read_meta(result)) for entry, result in zip(entries, stored, strict=True) if result)
        return [(entry, meta) for entry, meta in metas if meta["status"] in READY_STATES and answers_entry(entry, meta)]

    def _finish(self, done: Sequence[tuple[Entry, Mapping[str, Any]]]) -> None:
        """Write entries with a result. Those refused because the batch had no money stay open, to be asked again."""
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
        self._write(lines)
        self._forget_tasks(unpaid)
        self.again.extend(unpaid)

    def _is_unpaid(self, meta: Mapping[str, Any]) -> bool:
        result = meta["result"]
        refusal = result.get("exc_type") if isinstance(result, Mapping) else None
        self.is_limited |= refusal == _LIMITED
        self.is_share_used |= refusal == _SHARE_USED
        return refusal in {_LIMITED, _SHARE_USED}

    def _pay(self, entries: Sequence[Entry]) -> None:
        """Add the cost of the batch's own tasks to their entries."""
        own = [entry for entry in entries if entry.is_claimed]
        if not own:
            return
        costs = self._retry(lambda: self._servers.account.costs([str(entry.task_id) for entry in own]))
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
        """Reset entries so that they can be sent again; their cost so far stays on them."""
        self._pay(entries)
        for entry in entries:
            self.in_flight.pop(str(entry.task_id), None)
        self._forget_tasks(entries)

    def _forget_tasks(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            entry.state, entry.task_id, entry.is_claimed = EntryState.OPEN, None, False
        self._journal.put(entries)

    def _look_for_jobs(self, entries: Sequence[Entry]) -> None:
        """Send entries again whose job is gone without an answer."""
        task_ids = [str(entry.task_id) for entry in entries]
        with_job = self._retry(lambda: _with_job(entries))
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

    def _line(self, entry: Entry, meta: Mapping[str, Any], level: CacheLevel | None) -> OutputLine:
        if self._scorers is not None:
            meta = self._scorers.scored(_request(entry), meta)
        return line_of_result(entry, meta, self._batch, level)

    def write_faults(self, lines: Sequence[OutputLine]) -> None:
        """Write the lines of rows that cannot be asked."""
        self._write(lines)

    def _write(self, lines: Sequence[OutputLine]) -> None:
        """Write lines, and those of the entries that waited for them."""
        if not lines:
            return
        self._output.write(lines)
        self._count(lines)
        if not self._may_wait:
            return
        answers = {line.entry.input_hash: line.text for line in lines if line.entry.input_hash}
        for input_hash in self._journal.awaited(answers):
            after = 0
            while waiting := self._journal.waiting(input_hash, after, _ENTRIES_AT_ONCE):
                copies = [line_of_copy(entry, answers[input_hash], self._batch, "joined") for entry in waiting]
                self._output.write(copies)
                self._count(copies)
                after = waiting[-1].number

    def _count(self, lines: Iterable[OutputLine]) -> None:
        for line in lines:
            self._counts.add(line.state, line.outcome)


def _request(entry: Entry) -> Request:
    assert entry.request is not None  # noqa: S101 - what is asked was read by this process
    return entry.request


def _asked(entries: Iterable[Entry]) -> list[tuple[Request, str]]:
    return [(_request(entry), str(entry.task_id)) for entry in entries]


def _chunks(entries: Sequence[Entry]) -> Iterable[Sequence[Entry]]:
    return (entries[start : start + _ENTRIES_AT_ONCE] for start in range(0, len(entries), _ENTRIES_AT_ONCE))


def _place(entry: Entry) -> str:
    """Return what leads to an entry's job: its question, or its task's id after a restart."""
    return place_of("" if entry.request is None else entry.request.input_hash, str(entry.task_id))


def _with_job(entries: Sequence[Entry]) -> set[str]:
    """Return the tasks of these entries whose jobs exist."""
    found: set[str] = set()
    for _, own in by_spine(entries, [_place(entry) for entry in entries]):
        found |= which_exist(jobs_client(), job_key(""), [str(entry.task_id) for entry in own])
    return found
