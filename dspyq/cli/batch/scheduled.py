"""Run one time of a scheduled batch, for the worker that claimed it: ``python -m dspyq.cli.batch.scheduled``.

It renews the claim while it runs. It stops when its standard input closes, as its worker has then ended, on
``SIGTERM``, and when another runner has the claim; in the first two cases it releases its time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from dspyq.batch.events import BatchOutcome
from dspyq.batch.options import BatchOptions, in_flight_rows
from dspyq.batch.run import run_batch
from dspyq.batch.schedule import ClaimedTime, End, Schedule, process_schedule
from dspyq.cli.batch.display import display
from dspyq.config.batches import ScheduledBatch
from dspyq.config.lanes import split_lane
from dspyq.config.settings import get_settings
from dspyq.console.output import console, dollars, prepare_streams
from dspyq.core.crontab import Occurrence
from dspyq.errors import ConfigurationError, DspyqError

#: EX_TEMPFAIL of ``sysexits.h``: a released time can succeed later.
_GIVEN_BACK = os.EX_TEMPFAIL
_RENEWALS_PER_LEASE = 3
_FAILED = 2


class Keeper:
    """Keeps a claim while its batch runs, and signals when to stop.

    Args:
        schedule: The claims.
        claimed: The claimed time.
        grace_seconds: Time allowed for stopping; after that the process exits at once.

    Attributes:
        stop: Set when the batch must stop.
        is_lost: True if another runner has the claim.
    """

    def __init__(self, schedule: Schedule, claimed: ClaimedTime, grace_seconds: float) -> None:
        self.stop = threading.Event()
        self.is_lost = False
        self._schedule = schedule
        self._claimed = claimed
        self._grace_seconds = grace_seconds

    def start(self) -> None:
        """Begin to renew it."""
        signal.signal(signal.SIGTERM, lambda *_: self._begin_to_stop())
        for target in (self._renew, self._listen):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()

    def end(self, end: End, exit_code: int | None, note: str) -> None:
        """Record how the batch ended, unless the claim is lost."""
        if not self.is_lost:
            self._schedule.end(self._claimed, end, exit_code=exit_code, note=note)

    def _renew(self) -> None:
        while True:
            try:
                self.is_lost = self.is_lost or not self._schedule.renew(self._claimed)
            except Exception as error:  # noqa: BLE001 - another process would take the batch while this one runs it
                say(f"the claim is not renewed, trying again: {type(error).__name__}")
            if self.is_lost:
                say("stopping: another process has this time now")
                self._begin_to_stop()
                return
            time.sleep(self._schedule.lease_seconds / _RENEWALS_PER_LEASE)

    def _listen(self) -> None:
        while os.read(sys.stdin.fileno(), 1):  # a buffered read would hold a lock that Python needs at exit
            pass
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        if not self.stop.is_set():
            self.stop.set()
            timer = threading.Timer(self._grace_seconds, self._give_up)
            timer.daemon = True
            timer.start()

    def _give_up(self) -> None:
        say("ended: stopping took too long")
        try:
            self.end("pending", None, "it took too long to stop")
        finally:
            os._exit(_GIVEN_BACK)


def main(name: str, label: str, token: str) -> int:
    """Run it and return the exit status: the batch's own, or 75 if the time was released."""
    prepare_streams()
    settings = get_settings()
    keeper = Keeper(process_schedule(), ClaimedTime(name, label, token), settings.delivery.shutdown_grace_seconds)
    keeper.start()
    try:
        batch = settings.batches.get(name)
        if batch is None:
            raise ConfigurationError(f"there is no [batches.{name}] table any more")
        with display(as_json=False) as show:
            outcome = run_batch(_options(batch, label), report=show, stop=keeper.stop)
    except DspyqError as error:
        say(f"cannot run: {error}")
        if error.retryable:
            keeper.end("pending", None, str(error))
            return _GIVEN_BACK
        keeper.end("failed", _FAILED, str(error))
        return _FAILED
    if keeper.stop.is_set() and outcome.state == "stopped":
        keeper.end("pending", None, "its worker ended")
        return _GIVEN_BACK
    keeper.end("done" if outcome.exit_code == 0 else "failed", outcome.exit_code, _summary(outcome))
    return outcome.exit_code


def say(text: str) -> None:
    """Write a line to the log."""
    console.print(f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M:%S} {text}", highlight=False, markup=False, soft_wrap=True)


def _options(batch: ScheduledBatch, label: str) -> BatchOptions:
    source, output = batch.files_of(Occurrence.of_label(label, batch.crontab.zone).shown)
    lane, rest_goes_live = split_lane(batch.lane or "")
    return BatchOptions(
        input=source,
        output=output,
        program=batch.program,
        variant=batch.variant,
        is_ordered=batch.ordered,
        is_paired=batch.paired,
        is_scored=batch.score,
        cluster=batch.cluster,
        max_usd=batch.max_usd,
        budget_share=batch.budget_share,
        rate_share=batch.rate_share,
        window=batch.window,
        priority=batch.priority,
        name=f"{batch.name} {label}",
        lane=lane,
        rest_goes_live=rest_goes_live,
        finish_by=finish_by_of(batch),
        in_flight_rows=in_flight_rows(lane),
        tenant=batch.tenant,
    )


def finish_by_of(batch: ScheduledBatch) -> tuple[str, str] | None:
    """Return the hour by which a scheduled batch is to be done, and its time zone; None for no hour."""
    settings = get_settings()
    if batch.lane is None:
        return None
    if batch.finish_by is not None:
        return batch.finish_by, batch.timezone
    return None if settings.lane.finish_by is None else (settings.lane.finish_by, settings.budget.timezone)


def _summary(outcome: BatchOutcome) -> str:
    failed = sum(outcome.failed_by_type.values())
    counts = f"{outcome.rows:,} rows, {outcome.ok:,} ok, {failed:,} failed, {dollars(outcome.spent_usd)}"
    return f"batch {outcome.batch_id} {outcome.state}: {counts}" + (f"; {outcome.remark}" if outcome.remark else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
