"""Landing of lines: each outcome is settled, kept for its job's next run, and the job woken.

Money first, then the line: both are safe to repeat, so that a worker that dies in between leaves nothing half done. A
line whose hold is gone was settled before, and is not charged again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import orjson
import redis

from dspyq.core.money import to_nano_usd, to_usd
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.guards.call import CallFailure, CallReply, LineReader
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import ANSWERED, CallRecord
from dspyq.lane import metrics
from dspyq.lane.disk import wait_for_disk_of_money
from dspyq.lane.journal import LaneJournal
from dspyq.lane.line import LaneLine, attempt_id_of, call_key_of
from dspyq.lane.providers.protocol import LineOutcome, RemoteLine
from dspyq.lane.step_log import log_step
from dspyq.store.scripts import Step, run_together

_MOST_REASONS = 40
_OK = 200


class LandedLines(NamedTuple):
    """Numbers of lines that landed, by their outcome."""

    answered: int = 0
    failed: int = 0
    unanswered: int = 0


class _LineResult(NamedTuple):
    """The outcome of a line in the product's own terms: its bill, None for none; and what its job gets."""

    record: CallRecord
    bill: Bill | None
    reply: bytes | None = None
    failure: bytes | None = None


class _Record(Protocol):
    """Makes the record of a line's attempt."""

    def __call__(
        self, code: str, cost_usd: float, *, is_estimated: bool = False, tokens: tuple[int | None, int | None] = ...
    ) -> CallRecord:
        """Return the record."""


class Landing:
    """Lands the lines of a model's lane.

    Args:
        money: The Redis of money.
        journal: The lane's journal.
        budget: The budget.
        reader: The model's engine.
    """

    def __init__(self, money: redis.Redis, journal: LaneJournal, budget: Budget, reader: LineReader) -> None:
        self._money = money
        self._journal = journal
        self._budget = budget
        self._reader = reader
        self._model = journal.model
        self._reasons: set[str] = set()

    def land(self, remote: Sequence[RemoteLine]) -> LandedLines:
        """Land these lines; those that had landed before change nothing.

        Raises:
            LaneLost: If another worker runs the lane.
            redis.RedisError: If Redis does not answer; a repetition lands the rest.
        """
        lines, outcomes = self._outcomes(remote)
        steps = []
        for custom_id, outcome in outcomes.items():
            line = lines[custom_id]
            fields = CallJournal.fields_of(
                line.job, attempt_id_of(line.variant, custom_id), outcome.record, outcome.reply, outcome.failure
            )
            steps.append(self._journal.land(custom_id, fields))
        self._settle(lines, outcomes)
        has_landed = self._journal.run(steps)
        self._settle(lines, outcomes)  # once more: a Redis that restarted in between may have lost it
        return self._counted([outcome for outcome, done in zip(outcomes.values(), has_landed, strict=True) if done])

    @property
    def is_money_apart(self) -> bool:
        """True where money has a Redis of its own, which may lose its last second while that of jobs keeps it."""
        return self._money is not self._journal.client

    def settle(self, remote: Sequence[RemoteLine]) -> str:
        """Settle the money of these lines, which land later; return a batch that pays for one, or an empty string."""
        lines, outcomes = self._outcomes(remote)
        self._settle(lines, outcomes)
        return next((line.batch for line in lines.values()), "")

    def wait_for_disk(self, batch: str) -> None:
        """Wait until what was settled is on the disk of the Redis of money; see ``wait_for_disk_of_money``."""
        wait_for_disk_of_money(self._money, batch)

    def _outcomes(self, remote: Sequence[RemoteLine]) -> tuple[dict[str, LaneLine], dict[str, _LineResult]]:
        """Return those of these lines that have not landed, and their outcomes."""
        lines = self._journal.lines([one.custom_id for one in remote if one.custom_id])
        return lines, {
            one.custom_id: self._outcome(lines[one.custom_id], one) for one in remote if one.custom_id in lines
        }

    def _settle(self, lines: dict[str, LaneLine], outcomes: dict[str, _LineResult]) -> None:
        money: list[Step[Any]] = []
        for custom_id, outcome in outcomes.items():
            billed = lines[custom_id].billed(self._model, custom_id)
            if outcome.bill is None:
                money.append(self._budget.release(billed))
            else:
                money.append(self._budget.settle(billed, outcome.bill, only_held=True))
        settled = [settlement for settlement in run_together(self._money, money) if settlement is not None]
        if unknown := sum(settlement.found == "unknown" for settlement in settled):
            metrics.UNKNOWN.labels(self._model).inc(unknown)
            reason = "settled long ago, or Redis has lost its hold: then its bill is in no account"
            log_step("lane_lines_without_hold", self._model, "", logging.WARNING, lines=unknown, reason=reason)

    def drop(self, custom_ids: Iterable[str]) -> int:
        """Drop lines that nothing waits for, and free their holds; return their number."""
        lines = self._journal.lines(list(custom_ids))
        run_together(self._money, [self._budget.take_back(one.billed(self._model, of)) for of, one in lines.items()])
        return sum(self._journal.run([self._journal.land(custom_id, ()) for custom_id in lines]))

    def charge_double(self, lines: dict[str, LaneLine], remote: Sequence[RemoteLine], batch_id: str) -> int:
        """Charge what a second batch of the same lines cost, on no row; return how many lines that were."""
        steps = []
        for one in remote:
            line = lines.get(one.custom_id)
            if line is None or one.outcome is not LineOutcome.ANSWERED or one.body is None:
                continue
            reply, _ = self._reader.answer(one.status or _OK, one.body)
            billed = line.billed(self._model, one.custom_id)
            double = billed._replace(id=f"{billed.id}:double-{batch_id}")
            bill = _bill_of(reply)
            steps.append(
                self._budget.settle(double, bill if bill.nano_usd is not None else bill._replace(nano_usd=line.bound))
            )
        run_together(self._money, steps)
        return len(steps)

    def _outcome(self, line: LaneLine, remote: RemoteLine) -> _LineResult:
        key = call_key_of(remote.custom_id)
        seconds = max(0.0, time.time() - line.at)

        def record(
            code: str,
            cost_usd: float,
            *,
            is_estimated: bool = False,
            tokens: tuple[int | None, int | None] = (None, None),
        ) -> CallRecord:
            return CallRecord(self._model, code, seconds, *tokens, cost_usd, is_estimated, key, line.at)

        if remote.outcome is LineOutcome.ANSWERED and remote.body is not None:
            with suppress(Exception):  # it is paid, and cannot be read
                reply, kept = self._reader.answer(remote.status or _OK, remote.body)
                if reply.cost_usd is not None and to_nano_usd(reply.cost_usd) > line.bound:
                    reply = replace(reply, cost_usd=None)  # as live: what is beyond all bounds is charged the bound
                bill = _bill_of(reply)
                cost_usd = to_usd(line.bound) if reply.cost_usd is None else reply.cost_usd
                tokens = reply.prompt_tokens, reply.completion_tokens
                if kept is not None:
                    answered = record(ANSWERED, cost_usd, is_estimated=reply.cost_usd is None, tokens=tokens)
                    return _LineResult(answered, bill, kept)
        if remote.outcome in {LineOutcome.ANSWERED, LineOutcome.UNREADABLE}:
            return _LineResult(record("unreadable", to_usd(line.bound), is_estimated=True), Bill(None))
        if remote.status is None or (remote.outcome is LineOutcome.UNANSWERED and not remote.usage):
            return _LineResult(record(remote.code or f"http_{remote.status}", 0.0), None)
        is_lasting = remote.outcome is not LineOutcome.UNANSWERED
        return self._failed(record, remote.status, remote.body or {}, is_lasting=is_lasting)

    def _failed(self, record: _Record, status: int, body: dict[str, Any], *, is_lasting: bool) -> _LineResult:
        """Return the outcome of a line with an error, which is billed where it states a usage."""
        failure = failure_of(self._reader, status, body)
        kept = orjson.dumps({"status": status, "body": body}) if is_lasting else None
        if not failure.is_billed or failure.cost_usd is None:
            return _LineResult(record(failure.code, 0.0), None, failure=kept)
        tokens = failure.prompt_tokens, failure.completion_tokens
        bill = Bill(to_nano_usd(failure.cost_usd), tokens[0] or 0, tokens[1] or 0)
        return _LineResult(record(failure.code, failure.cost_usd, tokens=tokens), bill, failure=kept)

    def _counted(self, outcomes: Iterable[_LineResult]) -> LandedLines:
        answered = failed = unanswered = 0
        for outcome in outcomes:
            if outcome.reply is not None:
                answered += 1
            elif outcome.failure is not None:
                failed += 1
            else:
                unanswered += 1
                metrics.UNANSWERED.labels(self._model, self._reason(outcome.record.outcome)).inc()
        for name, number in (("answered", answered), ("failed", failed), ("unanswered", unanswered)):
            metrics.LANDED.labels(self._model, name).inc(number)
        return LandedLines(answered, failed, unanswered)

    def _reason(self, code: str) -> str:
        """Return a code as a label; a provider may make up any number of them."""
        if code not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            return "other"
        self._reasons.add(code)
        return code


def failure_of(reader: LineReader, status: int, body: dict[str, Any]) -> CallFailure:
    """Return the failure that a line states, as a live call would have had it."""
    try:
        reader.answer(status, body)
    except Exception as error:  # noqa: BLE001 - the engine's own errors, which it classifies
        return reader.classify(error)
    return reader.classify(RuntimeError(f"the line failed with status {status} and a reply"))


def _bill_of(reply: CallReply) -> Bill:
    nano_usd = None if reply.cost_usd is None else to_nano_usd(reply.cost_usd)
    return Bill(nano_usd, reply.prompt_tokens or 0, reply.completion_tokens or 0)
