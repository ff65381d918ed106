"""Run of a batch: reads rows, keeps a bounded number in flight, follows operators' commands, and accounts for its cost.

Durable state is in the journal and OUT. After any end of a run, even the loss of its machine, the same command resumes
from them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

import redis

from dspyq.batch.account import BatchAccount
from dspyq.batch.clusters import check_cluster, check_options
from dspyq.batch.dispatcher import Dispatcher
from dspyq.batch.ends import note_end
from dspyq.batch.events import (
    BatchOutcome,
    EntryCounts,
    Finished,
    LaneLeft,
    Paused,
    PauseReason,
    Progress,
    RedisAway,
    ReportEvent,
    Resumed,
    RunState,
    Snapshot,
    Started,
)
from dspyq.batch.files.source import Source, open_source
from dspyq.batch.identity import check_identity, identity_of
from dspyq.batch.journal import Journal, journal_path
from dspyq.batch.lane_watch import LaneWatch
from dspyq.batch.options import BatchOptions
from dspyq.batch.outcome import RowsRead, outcome_of
from dspyq.batch.output import Output
from dspyq.batch.output_lines import BatchContext
from dspyq.batch.parts import BatchParts, Servers
from dspyq.batch.receipts import Receipts
from dspyq.batch.redis_retry import RetryUntilStopped, StoppedWaiting
from dspyq.batch.registry import Wanted, process_registry
from dspyq.batch.retry import INPUT_KEPT, forget_kept_input
from dspyq.batch.row_reader import CHUNK_ROWS, EntryReader, RowChunk
from dspyq.batch.scorers import Scorers
from dspyq.batch.standstill import Standstill
from dspyq.client.spread_bulk import process_bulk
from dspyq.config.programs import Program
from dspyq.core.money import to_usd
from dspyq.errors import BatchRefused, RedisUnavailable
from dspyq.prediction.request import find_program
from dspyq.store.clients import jobs_client, money_client, redis_errors
from dspyq.store.spines import each_spine

_BEAT_SECONDS = 1.0
_COMMIT_SECONDS = 0.5
_POLL_SECONDS = (0.01, 0.25)
#: Wait of an ending run for running jobs; later answers are collected when the command is run again.
_WIND_DOWN_SECONDS = 20.0
#: Pause of a batch whose share of the day's budget is used up, before it sends rows again.
_SHARE_PAUSE_SECONDS = 60.0


def run_batch(options: BatchOptions, *, report: ReportEvent, stop: threading.Event) -> BatchOutcome:
    """Run or resume a batch until every row has its line or something ends it.

    Args:
        options: Its options.
        report: Called with each event, in this thread.
        stop: Once set, the run recalls jobs that have not begun, waits a while for the others, and returns.

    Raises:
        DspyqError: If it cannot be run with these options, or cannot continue; finished rows are kept.
    """
    with ExitStack() as opened:
        try:
            run = _open(options, report, stop, opened)
            outcome = run.run()
        except (OSError, sqlite3.Error) as error:
            raise BatchRefused(
                f"{options.output} or its journal cannot be written: {error}; once that is mended, run the same "
                "command again to go on"
            ) from error
        except redis.RedisError as error:
            raise RedisUnavailable(
                f"Redis refuses the batch: {error}; check DSPYQ_REDIS_URL, then run the same command again to go on"
            ) from error
    if outcome.state == "finished":
        forget_kept_input(options.output)
    report(Finished(outcome))
    note_end(outcome, find_program(options.program).name, options.lane)
    return outcome


def _open(options: BatchOptions, report: ReportEvent, stop: threading.Event, opened: ExitStack) -> _Batch:
    """Open the parts of a run, after all checks that may refuse it."""
    program = find_program(options.program)
    check_options(options, program)
    scorers = Scorers(program) if options.is_scored else None
    output = options.output
    holds_something = output.exists() and output.stat().st_size > 0
    if holds_something and not journal_path(output).exists():
        raise BatchRefused(f"{output} is there and has no journal: choose another --output, or move it away")
    with redis_errors("run the batch"):
        money_client().ping()
        for _ in each_spine():
            jobs_client().ping()
    journal = Journal(output)
    opened.callback(journal.close)
    spool = output.with_name(f"{output.name}.input")
    source = open_source(options.input, spool=spool, format=options.format, tenant=options.tenant or "")
    check_cluster(options, source, program)
    identity = identity_of(options, program, source.digest())
    if journal.is_new:
        if holds_something:
            raise BatchRefused(f"{output} is there and its journal is empty: choose another --output")
        journal.begin(identity, batch_id=os.urandom(8).hex())
    else:
        check_identity(journal, identity)
        journal.work_on()
    journal.set_meta(options=options.to_json())
    if source.path == spool != options.input:
        journal.set_meta(**{INPUT_KEPT: "1"})
    written = Output(output, journal, is_ordered=options.is_ordered)
    opened.callback(written.close)
    written.commit()
    return _Batch(options, _Opened(program, source, journal, written, scorers), report, stop)


@dataclass(frozen=True)
class _Opened:
    """All that a run has open."""

    program: Program
    source: Source
    journal: Journal
    output: Output
    scorers: Scorers | None = None


class _Batch:
    """One run of a batch."""

    def __init__(self, options: BatchOptions, opened: _Opened, report: ReportEvent, stop: threading.Event) -> None:
        program, journal = opened.program, opened.journal
        self._options = options
        self._source = opened.source
        self._journal = journal
        self._report = report
        self._stop = stop
        self._id = journal.batch_id()
        self._program = program
        variants = tuple(program.variants)
        batch = BatchContext(program.name, variants, self._id, options.tenant)
        self._servers = Servers(process_bulk(), BatchAccount(money_client(), self._id), process_registry())
        self._retry = RetryUntilStopped(stop, lambda message: report(RedisAway(self._id, message)))
        self._counts = EntryCounts.of(journal.totals())
        is_in_lane = options.lane == "provider"
        receipts = Receipts(self._servers.account, journal, self._retry, waits_for_disk=is_in_lane)
        parts = BatchParts(self._servers, self._retry, journal, opened.output, batch, self._counts, receipts)
        self._dispatcher = Dispatcher(parts, options.priority, opened.scorers)
        asked = variants if options.is_paired else (options.variant,)
        rows = opened.source.rows(program.as_served(options.variant), options.cluster)
        self._reader = EntryReader(rows, journal, batch, asked)
        self._ahead: RowChunk | None = None
        self._state: RunState = "running"
        self._pause: PauseReason | None = None
        self._share_wait_until = 0.0
        self._standstill = Standstill()
        self._lane = LaneWatch(options, program, journal)
        self._poll_seconds = _POLL_SECONDS[0]
        self._beat_at = self._commit_at = self._poll_at = 0.0
        self._wanted: Wanted = "run"
        self._done_before = self._counts.done
        self._began_at = time.monotonic()

    def run(self) -> BatchOutcome:
        """Run the batch until it ends, and return its outcome."""
        self._report(Started(self._id, str(self._options.output), self._counts.done, self._reader.is_resumed))
        try:
            self._beat(is_first=True)
            self._dispatcher.begin()
            self._loop()
        except StoppedWaiting:  # Redis is down, and there is no time to wait for it
            self._state = "stopped"
        finally:
            self._dispatcher.close()
        rows = self._reader.rows_read * self._reader.entries_per_row
        read = RowsRead(rows, self._reader.is_at_end)
        return outcome_of(self._id, self._state, self._counts, read, self._servers.account)

    def _open_account(self) -> None:
        options = self._options
        self._servers.account.open(
            max_usd=options.max_usd,
            budget_share=options.budget_share,
            rate_share=options.rate_share,
            spent_nano_usd=self._counts.cost_nano_usd,
            lane=self._lane.account_lane,
        )

    def _loop(self) -> None:
        dispatcher = self._dispatcher
        while dispatcher.in_flight or dispatcher.again or not self._reader.is_at_end:
            self._beat()
            if self._stop.is_set():
                return self._wind_down("stopped")
            if self._wanted == "cancel":
                self._state = "cancelled"
                dispatcher.withdraw()
                self._retry(lambda: self._lane.cancel(self._id))
                return self._end()
            if dispatcher.is_limited:
                return self._wind_down("limited")
            self._pause_or_resume()
            has_asked = self._pause is None and self._ask_more()
            self._collect_when_due()
            if not has_asked:
                self._wait()
        self._state = "finished"
        return self._end()

    def _ask_more(self) -> bool:
        """Take a chunk of entries if there is room for it; return True if there may be more at once."""
        dispatcher = self._dispatcher
        chunk_entries = max(1, min(CHUNK_ROWS, self._options.in_flight_rows // 2))
        if len(dispatcher.in_flight) + chunk_entries > self._options.in_flight_rows:
            return False
        if dispatcher.again:
            dispatcher.take([dispatcher.again.popleft() for _ in range(min(chunk_entries, len(dispatcher.again)))])
        elif self._reader.is_at_end:
            return False
        else:
            self._take_next(chunk_entries)
        self._commit_when_due()
        return True

    def _take_next(self, most_entries: int) -> None:
        """Read a chunk and begin its look-up, while the previous one is taken."""
        entries, faults = self._reader.next_chunk(most_entries)
        ahead, self._ahead = self._ahead, None
        if not self._reader.is_at_end:
            self._ahead = RowChunk(entries, faults, self._dispatcher.look_ahead(entries))
        if ahead is not None:
            self._dispatcher.write_faults(ahead.faults)
            self._dispatcher.take(ahead.entries, ahead.looked_up)

    def _collect_when_due(self) -> None:
        now = time.monotonic()
        if now < self._poll_at or not self._dispatcher.in_flight:
            return
        shortest_seconds, longest_seconds = _POLL_SECONDS
        found = self._dispatcher.collect()
        self._poll_seconds = shortest_seconds if found else min(2 * self._poll_seconds, longest_seconds)
        self._dispatcher.look_for_jobs()
        # As long as there is something to ask, that comes first.
        self._poll_at = time.monotonic() + max(self._poll_seconds, 2 * (time.monotonic() - now))
        self._commit_when_due()

    def _commit_when_due(self) -> None:
        if time.monotonic() >= self._commit_at:
            self._dispatcher.commit()
            self._commit_at = time.monotonic() + _COMMIT_SECONDS

    def _wait(self) -> None:
        """Sleep until the next step is due."""
        due_at = min(self._beat_at, self._poll_at) if self._dispatcher.in_flight else self._beat_at
        self._commit_when_due()
        self._stop.wait(max(0.0, due_at - time.monotonic()))

    def _pause_or_resume(self) -> None:
        """Stop or resume sending rows, according to operators, the window and the budget."""
        if self._dispatcher.is_share_used:
            self._dispatcher.is_share_used = False
            self._share_wait_until = time.monotonic() + _SHARE_PAUSE_SECONDS
        reason = self._reason_to_pause()
        if reason == self._pause:
            return
        was_paused, self._pause = self._pause, reason
        self._state = "running" if reason is None else "paused"
        if reason is None:
            self._report(Resumed(self._id))
        else:
            recalled = 0 if was_paused else self._dispatcher.recall()
            self._report(Paused(self._id, reason, recalled))
        self._beat_at = 0.0

    def _reason_to_pause(self) -> PauseReason | None:
        if self._wanted == "pause":
            return "asked"
        if self._options.window is not None and not self._options.window.is_open(time.time()):
            return "window"
        return "share" if time.monotonic() < self._share_wait_until else None

    def _wind_down(self, state: RunState) -> None:
        """Recall jobs that have not begun, and wait a while for the others."""
        self._state = state
        self._dispatcher.recall()
        give_up_at = time.monotonic() + _WIND_DOWN_SECONDS
        while self._dispatcher.in_flight and time.monotonic() < give_up_at:
            self._beat()
            if not self._dispatcher.collect():
                time.sleep(_POLL_SECONDS[1])
            self._commit_when_due()
        self._end()

    def _end(self) -> None:
        self._dispatcher.end()
        if not self._dispatcher.in_flight:
            self._retry(lambda: self._servers.registry.end(self._id))
        self._beat_at = 0.0
        self._beat()

    def _beat(self, *, is_first: bool = False) -> None:
        """Once a second, publish the progress and read the requested state."""
        if time.monotonic() < self._beat_at and not is_first:
            return
        self._retry(self._watch_lane)
        snapshot = self._snapshot()
        facts = self._facts(snapshot)
        beat = self._servers.registry.beat
        self._retry(self._open_account)  # a Redis that returned without its data has lost the account
        self._wanted = self._retry(lambda: beat(self._id, facts, is_first=is_first))
        self._report(Progress(self._id, snapshot))
        self._beat_at = time.monotonic() + _BEAT_SECONDS

    def _watch_lane(self) -> None:
        """Look at the rows that sleep in a lane, and have them leave it in time."""
        if not self._options.lane:
            return
        rows = self._reader.rows_read * self._reader.entries_per_row
        if self._lane.advance(rows / max(0.01, self._share_read) - self._counts.done):
            self._retry(self._open_account)  # first, or rows whose lines are cancelled would go into the lane again
            self._retry(lambda: self._lane.cancel(self._id))
            self._report(LaneLeft(self._id, self._lane.stage))
        self._lane.look(self._dispatcher.in_flight)

    @property
    def _share_read(self) -> float:
        if self._reader.is_at_end:
            return 1.0
        return min(1.0, self._source.bytes_read / max(1, self._source.size_bytes))

    def _facts(self, snapshot: Snapshot) -> dict[str, str | int | float]:
        options = self._options
        return {
            "state": self._state,
            "pause": (self._pause or "") if self._state == "paused" else "",
            "name": options.name,
            "program": self._program.name,
            "input": "-" if options.input is None else str(options.input),
            "output": str(options.output),
            **self._journal.runner(),
            "rows": snapshot.entries,
            "is_read": int(snapshot.is_read),
            "share_read": snapshot.share_read,
            "done": snapshot.done,
            "ok": snapshot.ok,
            "failed": snapshot.failed,
            "cached": snapshot.cached,
            "joined": snapshot.joined,
            "in_flight": snapshot.in_flight,
            "spent_usd": snapshot.spent_usd,
            "rows_per_second": snapshot.rows_per_second,
            "waits_for": snapshot.waits_for,
            **self._lane.facts(),
        }

    def _snapshot(self) -> Snapshot:
        counts, reader = self._counts, self._reader
        entries = reader.rows_read * reader.entries_per_row
        share_read = self._share_read
        rate = (counts.done - self._done_before) / max(1e-9, time.monotonic() - self._began_at)
        left = entries / share_read - counts.done if share_read else None
        return Snapshot(
            state=self._state,
            rows_read=reader.rows_read,
            is_read=reader.is_at_end,
            entries=entries,
            done=counts.done,
            ok=counts.ok,
            failed=counts.failed,
            cached=counts.cached,
            joined=counts.joined,
            in_flight=len(self._dispatcher.in_flight),
            spent_usd=to_usd(counts.cost_nano_usd),
            share_read=share_read,
            rows_per_second=rate,
            seconds_left=None if left is None or not rate else left / rate,
            waits_for=self._lane.text or self._standstill.reason(counts.done, self._dispatcher.in_flight),
        )
