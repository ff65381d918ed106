"""Files, batches and the bill of the endpoint's batch interfaces, whatever form a client speaks."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.batch_endpoint.forms import Dialect, tokens_of

#: A window after which batches expire, as all three providers state it.
WINDOW_SECONDS = 24 * 3600
_LINES_AT_ONCE = 200
_SHARES = 10_000
#: Answers the body of a line: its status and its reply, as the live interface would.
AnswerLine = Callable[[Dialect, dict[str, Any]], tuple[int, dict[str, Any]]]


@dataclass
class BatchScript:
    """The fate of some batches, from their creation on.

    Shares are of a batch's lines; a line's custom id decides, so that the same line has the same fate.

    Attributes:
        times: How many creations it is for; all, where left out.
        status: The creation answers this and creates nothing; with ``creates`` it creates all the same.
        error_code: The code of that error.
        retry_after: The header of that name beside it.
        creates: Whether a batch is created although the status is another than 200.
        loses_reply: The connection is cut after the batch was created.
        missing_polls: So many polls answer 404 first.
        list_lag_seconds: How long listings leave it out.
        fails_with: The batch becomes ``failed`` after its creation, with this code.
        limit_tokens: The limit that such an error states.
        bad_line: The number of the line at fault that such an error states.
        delay_seconds: How long it runs.
        is_manual: Whether it runs until ``finish``.
        ignores_cancel: Whether a cancellation comes too late to change anything.
        expired_share: Lines that expire; then so does the batch.
        failed_share: Lines that end with ``failed_status``.
        failed_status: As above.
        failed_code: The code of their error.
        failed_usage: Whether their error states a usage, which is billed.
        unparseable_share: Lines answered with prose.
        unreadable_share: Lines billed whose result is no JSON.
        missing_share: Lines billed without a result.
        doubled_share: Lines whose result comes twice.
        shuffles: Whether results come in another order than requests.
        cut_results: So many downloads of results are cut in the middle.
        refused_results: So many downloads of results answer 503 first.
    """

    times: int | None = None
    status: int = 200
    error_code: str = ""
    retry_after: str = ""
    creates: bool = False
    loses_reply: bool = False
    missing_polls: int = 0
    list_lag_seconds: float = 0.0
    fails_with: str = ""
    limit_tokens: int | None = None
    bad_line: int | None = None
    delay_seconds: float = 0.0
    is_manual: bool = False
    ignores_cancel: bool = False
    expired_share: float = 0.0
    failed_share: float = 0.0
    failed_status: int = 400
    failed_code: str = ""
    failed_usage: bool = False
    unparseable_share: float = 0.0
    unreadable_share: float = 0.0
    missing_share: float = 0.0
    doubled_share: float = 0.0
    shuffles: bool = True
    cut_results: int = 0
    refused_results: int = 0


@dataclass
class StoredFile:
    """A file.

    Attributes:
        id: Its id.
        name: Its name.
        purpose: Its purpose.
        content: Its bytes.
        created_at: When it was uploaded.
    """

    id: str
    name: str
    purpose: str
    content: bytes
    created_at: float = field(default_factory=time.time)


@dataclass
class LineResult:
    """The outcome of a line.

    Attributes:
        custom_id: Its id.
        kind: ``answered``, ``failed``, ``expired`` or ``cancelled``.
        status: The HTTP status of a reply or an error.
        body: The reply or the error.
        fate: ``unreadable``, ``missing`` or ``doubled``, of its place in the results; empty for a usual one.
    """

    custom_id: str
    kind: str
    status: int = 200
    body: dict[str, Any] = field(default_factory=dict)
    fate: str = ""


@dataclass
class StoredBatch:
    """A batch.

    Attributes:
        id: Its id.
        dialect: The form it was created in.
        name: The client's name of it; empty without one.
        script: Its fate.
        requests: Custom ids and bodies of its lines.
        input_file_id: Its file; empty without one.
        state: ``validating``, ``in_progress``, ``cancelling``, ``completed``, ``failed``, ``expired`` or ``cancelled``.
        results: The outcomes so far.
        output_file_id: The file of replies.
        error_file_id: The file of errors.
        created_at: When it was created.
        ended_at: When it ended.
        enqueued_tokens: Tokens of its prompts.
        is_deleted: Whether its client deleted it.
    """

    id: str
    dialect: Dialect
    name: str
    script: BatchScript
    requests: list[tuple[str, dict[str, Any]]]
    input_file_id: str = ""
    state: str = "validating"
    results: list[LineResult] = field(default_factory=list)
    output_file_id: str = ""
    error_file_id: str = ""
    created_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    enqueued_tokens: int = 0
    is_deleted: bool = False
    finishing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """True if it changes no more."""
        return self.ended_at is not None

    def count(self, *kinds: str) -> int:
        """Return how many lines ended so."""
        return sum(result.kind in kinds for result in self.results)


class BatchStore:
    """All files and batches of the endpoint, and the bill of their lines.

    ``write_results`` holds for each form the function that writes the results of a batch that has ended.

    Args:
        answer: Answers a line.
    """

    def __init__(self, answer: AnswerLine) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self.write_results: dict[Dialect, Callable[[StoredBatch], None]] = {}
        self.start_over()

    def start_over(self) -> None:
        """Forget everything."""
        for task in self._tasks:
            task.cancel()
        self._tasks = set()
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, StoredBatch] = {}
        self.scripts: list[BatchScript] = []
        self.counts: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0, "discount": 0.5}
        self.enqueued_limit_tokens: int | None = None
        self.most_per_page = 1000
        self.pending_polls = self.cut_lists = 0
        self.files_deleted = 0

    def add_file(self, name: str, purpose: str, content: bytes, prefix: str = "file-") -> StoredFile:
        """Keep a file."""
        self.counts["files"] += 1
        file = StoredFile(f"{prefix}{self.counts['files']}", name, purpose, content)
        self.files[file.id] = file
        return file

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; return False if it was not there."""
        self.files_deleted += file_id in self.files
        return self.files.pop(file_id, None) is not None

    def take_script(self) -> BatchScript:
        """Return the script for a creation: counted ones first, in their order, else the latest."""
        self.counts["creations"] += 1
        counted = next((script for script in self.scripts if script.times is not None), None)
        if counted is None:
            return replace(self.scripts[-1]) if self.scripts else BatchScript()
        counted.times = (counted.times or 0) - 1
        if counted.times <= 0:
            self.scripts.remove(counted)
        return replace(counted, times=None)

    def create(
        self,
        dialect: Dialect,
        name: str,
        script: BatchScript,
        requests: list[tuple[str, dict[str, Any]]],
        input_file_id: str = "",
    ) -> StoredBatch:
        """Create a batch and let it run."""
        self.counts["batches"] += 1
        prefix = {"openai": "batch_", "anthropic": "msgbatch_", "gemini": "batches/"}[dialect]
        batch = StoredBatch(f"{prefix}{self.counts['batches']}", dialect, name, script, requests, input_file_id)
        batch.enqueued_tokens = sum(len(json.dumps(body)) // 4 for _, body in requests)
        self.batches[batch.id] = batch
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    def page(self, entries: list[Any], start: int, asked: int) -> tuple[list[Any], bool]:
        """Return a page of a listing, and True if more follow."""
        most = min(asked, self.most_per_page)
        return entries[start : start + most], start + most < len(entries)

    def listed(self, dialect: Dialect) -> list[StoredBatch]:
        """Return the batches that a listing shows, the newest first."""
        now = time.time()
        found = [each for each in self.batches.values() if each.dialect == dialect and not each.is_deleted]
        return [each for each in reversed(found) if each.created_at + each.script.list_lag_seconds <= now]

    def find(self, batch_id: str) -> StoredBatch | None:
        """Return a batch as a poll sees it; None for 404."""
        batch = self.batches.get(batch_id)
        if batch is None or batch.is_deleted:
            return None
        if batch.script.missing_polls > 0:
            batch.script.missing_polls -= 1
            self.counts["polls_missed"] += 1
            return None
        return batch

    def cancel(self, batch: StoredBatch) -> None:
        """Cancel what has not been answered yet."""
        self.counts["cancellations"] += 1
        if not batch.is_over and not batch.script.ignores_cancel:
            batch.state = "cancelling"
            batch.finishing.set()

    def finish(self, batch_ids: Iterable[str] = ()) -> int:
        """Let manual batches end; return how many."""
        chosen = [
            each for each in self.batches.values() if not each.is_over and (not batch_ids or each.id in batch_ids)
        ]
        for batch in chosen:
            batch.finishing.set()
        return len(chosen)

    def advance(self, count: int) -> int:
        """Answer so many more lines of batches that run, without ending them; return how many there were."""
        left = count
        for batch in self.batches.values():
            while left and not batch.is_over and len(batch.results) < len(batch.requests):
                self._answer_next(batch)
                left -= 1
        return count - left

    async def _run(self, batch: StoredBatch) -> None:
        script = batch.script
        queued = sum(each.enqueued_tokens for each in self.batches.values() if not each.is_over)
        if self.enqueued_limit_tokens is not None and queued > self.enqueued_limit_tokens:
            script.fails_with, script.limit_tokens = "token_limit_exceeded", self.enqueued_limit_tokens
        if script.fails_with:
            self._end(batch, "failed")
            return
        batch.state = "in_progress"
        if script.is_manual:
            await batch.finishing.wait()
        elif script.delay_seconds:
            await asyncio.wait({asyncio.ensure_future(batch.finishing.wait())}, timeout=script.delay_seconds)
        while len(batch.results) < len(batch.requests) and batch.state == "in_progress":
            for _ in range(min(_LINES_AT_ONCE, len(batch.requests) - len(batch.results))):
                self._answer_next(batch)
            await asyncio.sleep(0)
        cancelled = batch.requests[len(batch.results) :]
        batch.results += [LineResult(custom_id, "cancelled") for custom_id, _ in cancelled]
        state = "expired" if batch.count("expired") else "completed"
        self._end(batch, "cancelled" if batch.state == "cancelling" else state)

    def _answer_next(self, batch: StoredBatch) -> None:
        custom_id, body = batch.requests[len(batch.results)]
        script = batch.script
        if _falls(custom_id, "expired", script.expired_share):
            batch.results.append(LineResult(custom_id, "expired"))
            return
        status, reply = self._answer(batch.dialect, body)
        if _falls(custom_id, "failed", script.failed_share):
            usage = {name: reply[name] for name in ("usage", "usageMetadata") if name in reply}
            error: dict[str, Any] = {"scripted": script.failed_code}
            status, reply = script.failed_status, error | (usage if script.failed_usage else {})
        if _falls(custom_id, "unparseable", script.unparseable_share) and status == 200:
            reply = _as_prose(reply)
        fates = ("unreadable", "missing", "doubled")
        shares = (script.unreadable_share, script.missing_share, script.doubled_share)
        fate = next((name for name, share in zip(fates, shares, strict=True) if _falls(custom_id, name, share)), "")
        batch.results.append(LineResult(custom_id, "answered" if status == 200 else "failed", status, reply, fate))
        prompt, completion = tokens_of(reply)
        if prompt or completion:
            self.billed[custom_id] += 1
            self.prompt_tokens += prompt
            self.completion_tokens += completion

    def _end(self, batch: StoredBatch, state: str) -> None:
        if batch.script.shuffles:
            batch.results.sort(key=lambda result: zlib.crc32(result.custom_id.encode()))
        batch.state, batch.ended_at = state, time.time()
        if state != "failed":
            self.write_results[batch.dialect](batch)
        batch.requests = []  # tens of thousands of bodies


def in_results(results: Iterable[LineResult]) -> Iterable[LineResult]:
    """Yield the results that a file has: missing ones never, doubled ones twice."""
    for result in results:
        if result.fate != "missing":
            yield result
        if result.fate == "doubled":
            yield result


def _falls(custom_id: str, kind: str, share: float) -> bool:
    return zlib.crc32(f"{kind}:{custom_id}".encode()) % _SHARES < share * _SHARES


def _as_prose(reply: dict[str, Any]) -> dict[str, Any]:
    prose = "I would rather talk about something else."
    if "choices" in reply:
        choices = [each | {"message": {"role": "assistant", "content": prose}} for each in reply["choices"]]
        return reply | {"choices": choices}
    if "content" in reply:
        return reply | {"content": [{"type": "text", "text": prose}]}
    candidates = [each | {"content": {"role": "model", "parts": [{"text": prose}]}} for each in reply["candidates"]]
    return reply | {"candidates": candidates}
