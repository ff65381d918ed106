"""Bulk predictions: each step of a chunk takes one round trip, or two.

``peek`` and ``ask`` do for a chunk what ``predict.delay`` does for one call, with the same verdicts and counts.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

import redis
from kombu.exceptions import OperationalError

from dspyq.cache.claim import AnsweredRequest, Claim, NewQuestions, asked_by
from dspyq.cache.claims import Claims, process_claims
from dspyq.celery_app.application import process_app
from dspyq.client.call_counters import process_calls
from dspyq.client.message_template import MessageTemplate, Outgoing
from dspyq.client.publishing import find_template, publish_many
from dspyq.config.periods import Calendar, process_calendar
from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.delivery.leases import process_leases
from dspyq.prediction.request import Request
from dspyq.prediction.stored import answers_question
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.content import decode_result
from dspyq.store.keys import (
    SECONDS_OF_BOOKS,
    alias_key,
    month_of,
    result_key,
    savings_key,
    statistics_key,
    tenant_savings_key,
)
from dspyq.store.scripts import load_script
from dspyq.store.unit_index import note_units

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: Rows of one round trip: enough to share its cost, few enough that Redis serves others in between.
CHUNK_ROWS = 500
#: Bytes of results after which a look-up ends and the next begins.
_MOST_RESULT_BYTES = 8 * 2**20
#: New rows of one script, and bytes of their messages after which a script ends: Redis runs it while the next is made.
_ROWS_OF_SCRIPT = 100
_BYTES_OF_SCRIPT = 2**20

TaskOfRequest = tuple[AnsweredRequest, str]

Element = TypeVar("Element")


class Bulk:
    """Look up, ask, collect and withdraw many predictions. Any thread may call any method.

    All methods take any number of rows and raise ``redis.RedisError`` if Redis does not answer; what they did before
    stays done, and may be done again.

    Args:
        settings: The settings.
        claims: The claims, on the same servers.
        jobs: The Redis of jobs.
        answers: The Redis of answers, which may be the same.
        calendar: The days of the books.
    """

    def __init__(
        self, settings: Settings, claims: Claims, jobs: redis.Redis, answers: redis.Redis, calendar: Calendar
    ) -> None:
        self._claims = claims
        self._jobs = jobs
        self._answers = answers
        self._is_one_redis = settings.is_one_redis
        self._calendar = calendar
        self._expects_new: dict[str, bool] = {}
        self._look = load_script(jobs, "dspyq.cache", "look")
        self._recall = load_script(jobs, "dspyq.cache", "recall")

    def peek(self, requests: Sequence[Request]) -> list[Claim | None]:
        """Return cached answers, and count them as hits; None for each question without one, which counts nothing."""
        wanted = [request for request in requests if not request.refresh]
        found: list[Claim | None] = []
        while chunk := _of_one_tenant(wanted[len(found) : len(found) + CHUNK_ROWS]):
            found += self._look_chunk(chunk)
        if len(wanted) == len(requests):
            return found
        answers = iter(found)
        return [None if request.refresh else next(answers) for request in requests]

    def look(self, requests: Sequence[Request]) -> list[Claim | None]:
        """Call ``peek`` by its name of 0.1."""
        warnings.warn("Bulk.look is Bulk.peek since 0.2; 0.3 drops look", DeprecationWarning, stacklevel=2)
        return self.peek(requests)

    def ask(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """Look questions up, and claim and send those without an answer or a run.

        A question that its task id holds already is claimed again, counted once, and its message put again: Redis keeps
        one of them. One that this batch joined, asked again by the id it joined, is joined, counted once.

        Args:
            requests: The questions. A refresh ignores a cached answer.
            task_ids: The task of each, should it claim its question.
            priority: The turn of all, 0 (most urgent) to 9.
            batch: The id of the batch of these questions, which pays for those it claims; empty for none.

        Returns:
            For each row ``hit``, ``claim``, or ``join`` and ``urge`` for what another call claimed. An urged question's
            message is sent in the name of the call that claimed it, which pays. Of an id that is asked again, the first
            verdict names that call. ``damaged`` holds the failure of a question whose key another program wrote to.
            ``stale`` changed nothing.

        Raises:
            redis.RedisError: If Redis does not answer. What this chunk claimed is released, as far as Redis lets it.
            kombu.exceptions.OperationalError: The same.
        """
        claims: list[Claim] = []
        for start in range(0, len(requests), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            note_units(zip(requests[rows], task_ids[rows], strict=True))
            claims += self._ask_chunk(requests[rows], task_ids[rows], priority, batch)
        return claims

    def ask_former(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """As ``ask``, of questions whose bucket has moved from here: those without a run or an answer are ``moved``."""
        claims: list[Claim] = []
        for start in range(0, len(requests), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            claims += self._ask_known(requests[rows], task_ids[rows], priority, batch)
        return claims

    def collect(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """Return tasks' stored results, as Celery stored them; None for each without one."""
        stored: list[bytes | None] = []
        for chunk in _chunks(task_ids):
            keys = [result_key(task_id) for task_id in chunk]
            found = cast("list[bytes | None]", self._answers.mget(keys))
            stored += [one and decode_result(task_id, one) for task_id, one in zip(chunk, found, strict=True)]
        return stored

    def withdraw(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> int:
        """Withdraw this caller from questions; a job, begun or not, ends with its last caller.

        A job that others wait for goes on. Where this batch had claimed it and it has not begun, it is paid by no batch
        from now on.

        Args:
            asked: The questions that ``ask`` answered with ``claim``, ``join`` or ``urge``, each with the task id that
                it named.
            batch: The batch that asked; empty for none.

        Returns:
            Number of jobs ended. Calls that they had made are paid.
        """
        ended = 0
        for chunk in _chunks(asked):
            is_free = self._claims.withdraw_many(chunk, batch=batch)
            task_ids = [task_id for (_, task_id), ends in zip(chunk, is_free, strict=True) if ends]
            if task_ids:
                process_app().control.revoke(task_ids)
            ended += len(task_ids)
        return ended

    def recall(self, asked: Sequence[TaskOfRequest], *, batch: str = "") -> list[bool]:
        """Recall questions that no run has begun to answer: they leave no trace and cost nothing.

        True: this caller waits for the question no longer and has paid nothing for it. Its job is gone; or
        others wait for it, then it stays for them, and is paid by no batch even where this one had claimed it. In
        either case the task id is this caller's no more: to ask the question again, take a new one.

        False: nothing was changed. A run has the job, or had it and may have paid for model calls; or the
        question is answered, failed, was invalidated, or is another task's by now. What comes of the task id is still
        to be collected.

        Args:
            asked: As of ``withdraw``.
            batch: As of ``withdraw``.
        """
        recalled: list[bool] = []
        for chunk in _chunks(asked):
            keys = [alias_key(request.input_hash) for request, _ in chunk]
            replies = self._recall(keys, batch=batch, asked=asked_by(chunk))
            recalled += map(bool, replies)
        return recalled

    def _look_chunk(self, requests: Sequence[Request]) -> list[Claim | None]:
        """Look up as many of these as fit one script."""
        today = self._calendar.now().today
        task_ids, results, milliseconds_left, costs = self._look(
            [alias_key(request.input_hash) for request in requests],
            day=today,
            is_here="1" if self._is_one_redis else "",
            most_bytes=_MOST_RESULT_BYTES,
            tenant=requests[0].tenant,
            queues=[request.variant.queue for request in requests],
        )
        found: list[Claim | None] = [
            None if task_id is None else _hit(task_id.decode(), stored, left)
            for task_id, stored, left in zip(task_ids, results, milliseconds_left, strict=True)
        ]
        self._keep_own(found, requests, costs, today)
        return found

    def _keep_own(
        self, found: list[Claim | None], requests: Sequence[Request], costs: Sequence[bytes], today: str
    ) -> None:
        """Drop hits whose answer is gone (evicted, or replaced by that of another question), with their counts."""
        hits = [(index, claim) for index, claim in enumerate(found) if claim is not None]
        results: Sequence[bytes | None]
        if self._is_one_redis:
            results = [claim.result for _, claim in hits]
        else:
            results = self.collect([claim.task_id for _, claim in hits])
        evicted: Counter[str] = Counter()
        not_saved_nano_usd: Counter[str] = Counter()
        for (index, claim), result in zip(hits, results, strict=True):
            if result is not None and answers_question(result, requests[index].input_hash):
                found[index] = claim._replace(result=result)
                continue
            found[index] = None
            queue = requests[index].queue
            evicted[queue] += 1
            not_saved_nano_usd[queue] += int(costs[index])
        if not evicted:
            return
        pipeline = self._jobs.pipeline()
        for queue, number in evicted.items():
            pipeline.hincrby(statistics_key(queue), "hits_redis", -number)
            pipeline.hincrby(savings_key(today), f"{queue} avoided_nano_usd", -not_saved_nano_usd[queue])
            if tenant := requests[0].tenant:
                own = tenant_savings_key(tenant, month_of(today))
                pipeline.hincrby(own, today, -not_saved_nano_usd[queue])
                pipeline.expire(own, SECONDS_OF_BOOKS)
        pipeline.expire(savings_key(today), SECONDS_OF_BOOKS)  # they may have been deleted since
        pipeline.execute()

    def _ask_chunk(
        self, requests: Sequence[Request], task_ids: Sequence[str], priority: int, batch: str
    ) -> list[Claim]:
        rows = [Outgoing(request, task_id, batch) for request, task_id in zip(requests, task_ids, strict=True)]
        found = self._ask_new(rows, priority, batch)
        rest = [index for index, claim in enumerate(found) if claim is None]
        others = [rows[index] for index in rest]
        asked = self._ask_known([row.request for row in others], [row.task_id for row in others], priority, batch)
        for index, claim in zip(rest, asked, strict=True):
            found[index] = claim
        claims = [claim for claim in found if claim is not None]
        self._note_how_many_are_new(rows, claims)
        return claims

    def _ask_new(self, rows: Sequence[Outgoing], priority: int, batch: str) -> list[Claim | None]:
        """Claim and send rows of which nothing is known yet; None for each other.

        They come with their messages, in one round trip. Those of a variant whose last rows were mostly known are not
        tried: their messages would be made in vain.
        """
        claims: list[Claim | None] = [None] * len(rows)
        tried: list[int] = []
        alike: dict[tuple[str, str, bool, str], list[int]] = {}
        for index, row in enumerate(rows):
            if row.request.exposure is None:  # each of the others is counted by itself
                request = row.request
                kind = request.queue, request.seen, request.is_streamed, request.tenant
                alike.setdefault(kind, []).append(index)

        def questions() -> Iterator[NewQuestions]:
            for (queue, *_), indexes in alike.items():
                template = find_template(rows[indexes[0]], priority) if self._expects_new.get(queue, True) else None
                if template is not None:
                    tried.extend(indexes)
                    yield from _new_questions([rows[index] for index in indexes], template)

        is_new = self._claims.ask_new(questions(), priority=priority, batch=batch)
        counts: Counter[str] = Counter()
        for index, is_claimed in zip(tried, is_new, strict=True):
            if is_claimed:
                claims[index] = Claim("claim", rows[index].task_id, batch=batch)
                counts[rows[index].request.queue] += 1
        for queue, number in counts.items():
            process_calls().count_published(queue, number)
        return claims

    def _note_how_many_are_new(self, rows: Sequence[Outgoing], claims: Sequence[Claim]) -> None:
        new: Counter[str] = Counter()
        for row, claim in zip(rows, claims, strict=True):
            new[row.request.variant.queue] += 1 if claim.verdict == "claim" else -1
        self._expects_new.update({queue: number > 0 for queue, number in new.items()})

    def _ask_known(
        self, requests: Sequence[Request], task_ids: Sequence[str], priority: int, batch: str
    ) -> list[Claim]:
        """Look up, claim and send rows, in a round trip for the claims and one for the messages."""
        if not requests:
            return []
        claims = self._claims.claim_many(requests, task_ids, priority=priority, batch=batch)
        unsent: dict[str, Outgoing] = {}  # a question asked twice is sent once
        for request, claim in zip(requests, claims, strict=True):
            if claim.verdict in ("claim", "urge"):
                unsent.setdefault(claim.task_id, Outgoing(request, claim.task_id, claim.batch))
        try:
            publish_many(list(unsent.values()), priority=priority)
        except (OperationalError, redis.RedisError, OSError):
            # Some may have been sent despite the error; those claims stay. Redis may be down: then claims without a job
            # expire by themselves, after delivery.claim_timeout_seconds.
            with suppress(redis.RedisError):
                self._claims.release_many(
                    (request, claim.task_id)
                    for request, claim in zip(requests, claims, strict=True)
                    if claim.verdict == "claim"
                )
            raise
        return claims


@per_runtime(is_of_part=True)
def bulk_here() -> Bulk:
    """Return this process's bulk client of the active spine."""
    return Bulk(get_settings(), process_claims(), jobs_client(), answers_client(), process_calendar())


def _new_questions(rows: Sequence[Outgoing], template: MessageTemplate) -> Iterator[NewQuestions]:
    """Yield rows of one queue, state and tenant, with their messages, in parts of one script each."""
    records = process_leases().records
    alike = rows[0].request.queue, rows[0].request.seen, rows[0].request.tenant
    hashes: list[str] = []
    jobs: list[str | bytes] = []
    size = 0
    for row, message in zip(rows, template.write(rows), strict=True):
        records.check_size(message)
        hashes.append(row.request.input_hash)
        jobs += (row.task_id, message)
        size += len(message)
        if len(hashes) == _ROWS_OF_SCRIPT or size > _BYTES_OF_SCRIPT:
            yield NewQuestions(*alike, hashes, jobs)
            hashes, jobs, size = [], [], 0
    if hashes:
        yield NewQuestions(*alike, hashes, jobs)


def _hit(task_id: str, stored: bytes, milliseconds_left: int) -> Claim:
    return Claim("hit", task_id, stored and decode_result(task_id, stored), milliseconds_left)


def _of_one_tenant(requests: Sequence[Request]) -> list[Request]:
    """Return those before the first of another tenant."""
    return list(itertools.takewhile(lambda each: each.tenant == requests[0].tenant, requests))


def _chunks(rows: Sequence[Element]) -> Iterator[Sequence[Element]]:
    return (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))
