"""Runs a batch: reads rows, keeps a bounded number of them on their way, obeys whoever steers it, and accounts for it.

What lasts is in the journal and OUT; a run that ends in whatever way, also by the loss of its machine, goes on where
those are when the same command is run again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import redis

from dspyq.batch.account import BatchAccount
from dspyq.batch.dispatcher import Asking, Servers
from dspyq.batch.events import (
    Counts,
    Event,
    Finished,
    Outcome,
    Paused,
    PauseReason,
    Progress,
    Reconciliation,
    RedisAway,
    Resumed,
    RunState,
    Snapshot,
    Started,
)
from dspyq.batch.files.source import Source, open_source
from dspyq.batch.identity import check_identity, identity_of
from dspyq.batch.journal import Journal, journal_path
from dspyq.batch.options import BatchOptions
from dspyq.batch.output import Output
from dspyq.batch.output_lines import Asked
from dspyq.batch.redis_retry import Patience, StoppedWaiting
from dspyq.batch.registry import Wanted, process_registry
from dspyq.batch.row_reader import CHUNK_ROWS, Chunk, Reading
from dspyq.client.bulk import process_bulk
from dspyq.config.models import Program
from dspyq.core.money import to_usd
from dspyq.errors import BatchRefused, RedisUnavailable
from dspyq.prediction.request import find_program, find_variant
from dspyq.store.clients import jobs_client, redis_errors

_BEAT_SECONDS = 1.0
_COMMIT_SECONDS = 0.5
_POLL_SECONDS = (0.01, 0.25)
#: How long an ending run waits for what runs; what comes later is collected when the command is run again.
_WIND_DOWN_SECONDS = 20.0
#: How long a batch whose share of the day's budget is used up waits before it asks again.
_SHARE_PAUSE_SECONDS = 60.0


def run_batch(options: BatchOptions, *, report: Callable[[Event], None], stop: threading.Event) -> Outcome:
    """Run a batch, or go on with it, until every row has its line or something ends it.

    Args:
        options: What to do.
        report: Called with each event, in this thread.
        stop: Once set, the run takes back what has not begun, waits a while for what has, and returns.

    Raises:
        DspyqError: If it cannot be run as it was asked for, or not go on; what was done is kept.
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
    report(Finished(outcome))
    return outcome


def _open(options: BatchOptions, report: Callable[[Event], None], stop: threading.Event, opened: ExitStack) -> _Run:
    """Open everything a run needs, and refuse what cannot be run before anything is changed."""
    program = find_program(options.program)
    if options.variant is not None:
        find_variant(program, options.variant)
        if options.is_paired:
            raise BatchRefused("--paired asks every variant: leave --variant out")
    output = options.output
    holds_something = output.exists() and output.stat().st_size > 0
    if holds_something and not journal_path(output).exists():
        raise BatchRefused(f"{output} is there and has no journal: choose another --output, or move it away")
    with redis_errors("run the batch"):
        jobs_client().ping()
    journal = Journal(output)
    opened.callback(journal.close)
    source = open_source(options.input, spool=output.with_name(f"{output.name}.input"), format=options.format)
    identity = identity_of(options, program, source.digest())
    if journal.is_new:
        if holds_something:
            raise BatchRefused(f"{output} is there and its journal is empty: choose another --output")
        journal.begin(identity, batch_id=os.urandom(8).hex())
    else:
        check_identity(journal, identity)
        journal.work_on()
    journal.set_meta(options=options.to_json())
    written = Output(output, journal, is_ordered=options.is_ordered)
    opened.callback(written.close)
    written.commit()
    return _Run(options, program, source, journal, written, report, stop)


class _Run:
    """One run of a batch."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self,
        options: BatchOptions,
        program: Program,
        source: Source,
        journal: Journal,
        output: Output,
        report: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._options = options
        self._source = source
        self._journal = journal
        self._report = report
        self._stop = stop
        self._id = journal.batch_id()
        self._program = program
        variants = tuple(program.variants)
        asked = Asked(program.name, variants, self._id)
        self._servers = Servers(
            process_bulk(), BatchAccount(jobs_client(), self._id), process_registry(), jobs_client()
        )
        self._patience = Patience(stop, lambda message: report(RedisAway(self._id, message)))
        self._counts = Counts.of(journal.totals())
        self._asking = Asking(self._servers, self._patience, journal, output, asked, self._counts, options.priority)
        self._reading = Reading(
            source.rows(program), program, journal, asked, variant=options.variant, is_paired=options.is_paired
        )
        self._ahead: Chunk | None = None
        self._state: RunState = "running"
        self._pause: PauseReason | None = None
        self._share_wait_until = 0.0
        self._poll_seconds = _POLL_SECONDS[0]
        self._beat_at = self._commit_at = self._poll_at = 0.0
        self._wanted: Wanted = "run"
        self._done_before = self._counts.done
        self._began_at = time.monotonic()

    def run(self) -> Outcome:
        """Run until it ends; say how."""
        self._report(Started(self._id, str(self._options.output), self._counts.done, self._reading.is_resumed))
        try:
            self._beat(is_first=True)
            self._asking.commit()  # what a killed run did not get to tell the ledger
            self._loop()
        except StoppedWaiting:  # Redis is away, and there is no time to wait for it
            self._state = "stopped"
        finally:
            self._asking.close()
        return self._outcome()

    def _open_account(self) -> None:
        options = self._options
        self._servers.account.open(
            max_usd=options.max_usd,
            budget_share=options.budget_share,
            rate_share=options.rate_share,
            spent_nano_usd=self._counts.cost_nano_usd,
        )

    def _loop(self) -> None:
        asking = self._asking
        while asking.in_flight or asking.again or not self._reading.is_at_end:
            self._beat()
            if self._stop.is_set():
                return self._wind_down("stopped")
            if self._wanted == "cancel":
                self._state = "cancelled"
                asking.withdraw()
                return self._end()
            if asking.is_limited:
                return self._wind_down("limited")
            self._pause_or_resume()
            has_asked = self._pause is None and self._ask_more()
            self._collect_when_due()
            if not has_asked:
                self._wait()
        self._state = "finished"
        return self._end()

    def _ask_more(self) -> bool:
        """Take a chunk of entries if there is room for it; return whether there may be more at once."""
        asking = self._asking
        chunk_entries = max(1, min(CHUNK_ROWS, self._options.in_flight_rows // 2))
        if len(asking.in_flight) + chunk_entries > self._options.in_flight_rows:
            return False
        if asking.again:
            asking.take([asking.again.popleft() for _ in range(min(chunk_entries, len(asking.again)))])
        elif self._reading.is_at_end:
            return False
        else:
            self._take_next(chunk_entries)
        self._commit_when_due()
        return True

    def _take_next(self, most_entries: int) -> None:
        """Read a chunk and have it looked up, while the one before is taken."""
        entries, faults = self._reading.next_chunk(most_entries)
        ahead, self._ahead = self._ahead, None
        if not self._reading.is_at_end:
            self._ahead = Chunk(entries, faults, self._asking.look_ahead(entries))
        if ahead is not None:
            self._asking.land_faults(ahead.faults)
            self._asking.take(ahead.entries, ahead.looked_up)

    def _collect_when_due(self) -> None:
        now = time.monotonic()
        if now < self._poll_at or not self._asking.in_flight:
            return
        shortest_seconds, longest_seconds = _POLL_SECONDS
        found = self._asking.collect()
        self._poll_seconds = shortest_seconds if found else min(2 * self._poll_seconds, longest_seconds)
        self._asking.look_for_jobs()
        # As long as there is something to ask, that comes first.
        self._poll_at = time.monotonic() + max(self._poll_seconds, 2 * (time.monotonic() - now))
        self._commit_when_due()

    def _commit_when_due(self) -> None:
        if time.monotonic() >= self._commit_at:
            self._asking.commit()
            self._commit_at = time.monotonic() + _COMMIT_SECONDS

    def _wait(self) -> None:
        """Wait for the next thing to do."""
        due_at = min(self._beat_at, self._poll_at) if self._asking.in_flight else self._beat_at
        self._commit_when_due()
        self._stop.wait(max(0.0, due_at - time.monotonic()))

    def _pause_or_resume(self) -> None:
        """Stop asking, or begin again, as whoever steers it, the hours and the budget want."""
        if self._asking.is_share_used:
            self._asking.is_share_used = False
            self._share_wait_until = time.monotonic() + _SHARE_PAUSE_SECONDS
        reason = self._reason_to_pause()
        if reason == self._pause:
            return
        was_paused, self._pause = self._pause, reason
        self._state = "running" if reason is None else "paused"
        if reason is None:
            self._report(Resumed(self._id))
        else:
            recalled = 0 if was_paused else self._asking.recall()
            self._report(Paused(self._id, reason, recalled))
        self._beat_at = 0.0

    def _reason_to_pause(self) -> PauseReason | None:
        if self._wanted == "pause":
            return "asked"
        if self._options.window is not None and not self._options.window.is_open(_now()):
            return "window"
        return "share" if time.monotonic() < self._share_wait_until else None

    def _wind_down(self, state: RunState) -> None:
        """Take back what has not begun, and wait a while for what has."""
        self._state = state
        self._asking.recall()
        give_up_at = time.monotonic() + _WIND_DOWN_SECONDS
        while self._asking.in_flight and time.monotonic() < give_up_at:
            self._beat()
            if not self._asking.collect():
                time.sleep(_POLL_SECONDS[1])
            self._commit_when_due()
        self._end()

    def _end(self) -> None:
        self._asking.commit()
        if not self._asking.in_flight:
            self._patience(lambda: self._servers.registry.end(self._id))
        self._beat_at = 0.0
        self._beat()

    def _beat(self, *, is_first: bool = False) -> None:
        """Once a second, say how far it is and ask what is wanted of it."""
        if time.monotonic() < self._beat_at and not is_first:
            return
        snapshot = self._snapshot()
        facts = self._facts(snapshot)
        beat = self._servers.registry.beat
        self._patience(self._open_account)  # a Redis that came back without its data knows nothing of the batch
        self._wanted = self._patience(lambda: beat(self._id, facts, is_first=is_first))
        self._report(Progress(self._id, snapshot))
        self._beat_at = time.monotonic() + _BEAT_SECONDS

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
        }

    def _snapshot(self) -> Snapshot:
        counts, reading, source = self._counts, self._reading, self._source
        entries = reading.rows_read * reading.entries_per_row
        share_read = 1.0 if reading.is_at_end else min(1.0, source.bytes_read / max(1, source.size_bytes))
        rate = (counts.done - self._done_before) / max(1e-9, time.monotonic() - self._began_at)
        left = entries / share_read - counts.done if share_read else None
        return Snapshot(
            state=self._state,
            rows_read=reading.rows_read,
            is_read=reading.is_at_end,
            entries=entries,
            done=counts.done,
            ok=counts.ok,
            failed=counts.failed,
            cached=counts.cached,
            joined=counts.joined,
            in_flight=len(self._asking.in_flight),
            spent_usd=to_usd(counts.cost_nano_usd),
            share_read=share_read,
            rows_per_second=rate,
            seconds_left=None if left is None or not rate else left / rate,
        )

    def _outcome(self) -> Outcome:
        counts = self._counts
        rows = self._reading.rows_read * self._reading.entries_per_row
        left = rows - counts.done
        remark = ""
        if self._state == "limited":
            remark = f"{self._rows_left(left)} left: run again with a higher --max-usd"
        elif self._state != "finished":
            remark = f"{self._rows_left(left)} left: run the same command again to go on"
        return Outcome(
            batch_id=self._id,
            state=self._state,
            rows=rows,
            ok=counts.ok,
            failed_by_type=dict(counts.failed_by_type),
            cached=counts.cached,
            joined=counts.joined,
            left=left,
            is_read=self._reading.is_at_end,
            spent_usd=to_usd(counts.cost_nano_usd),
            reconciliation=self._reconciliation(),
            remark=remark,
        )

    def _rows_left(self, left: int) -> str:
        return f"{left:,} rows" if self._reading.is_at_end else f"{left:,} rows and those not read yet are"

    def _reconciliation(self) -> Reconciliation | None:
        try:
            books, calls = self._servers.account.statement()
        except redis.RedisError:
            return None
        return Reconciliation(self._counts.cost_nano_usd, books.settled_nano_usd, tuple(calls))


def _now() -> float:
    return time.time()
