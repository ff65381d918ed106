"""Predictions by the hundred: each step of a chunk of them is one round trip, or two.

``look`` and ``ask`` do for a chunk what ``predict.delay`` does for one call, with the same verdicts and counts.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TypeVar, cast

import redis
from kombu.exceptions import OperationalError

from dspyq.cache.claims import (
    ALIAS_PREFIX,
    COSTS_PREFIX,
    RESULT_PREFIX,
    STATISTICS_PREFIX,
    AnsweredRequest,
    Claim,
    Claims,
    process_claims,
)
from dspyq.celery_app.application import app
from dspyq.client.publishing import Claimed, publish_many
from dspyq.config.periods import Calendar, process_calendar
from dspyq.config.settings import Settings, get_settings
from dspyq.prediction.request import Request
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.scripts import load_script

#: Rows of one round trip: so many that it costs each little, so few that Redis serves others in between.
CHUNK_ROWS = 500
#: The bytes of results after which one look ends, and the next begins.
_MOST_RESULT_BYTES = 8 * 2**20

Asked = tuple[AnsweredRequest, str]
Element = TypeVar("Element")


class Bulk:
    """Looks up, asks, collects and withdraws many predictions. Any thread may call any method.

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
        self._look = load_script(jobs, "dspyq.cache", "look", library="claims")
        self._recall = load_script(jobs, "dspyq.cache", "recall", library="claims", second_library="dspyq.delivery")

    def look(self, requests: Sequence[Request]) -> list[Claim | None]:
        """Return the answers that the cache has, and count them; what it has not is None and counts nothing."""
        wanted = [request for request in requests if not request.refresh]
        found: list[Claim | None] = []
        while chunk := wanted[len(found) : len(found) + CHUNK_ROWS]:
            found += self._look_chunk(chunk)
        if len(wanted) == len(requests):
            return found
        answers = iter(found)
        return [None if request.refresh else next(answers) for request in requests]

    def ask(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """Look questions up, and claim and send those that nobody answers.

        A question that its task id holds already is claimed again, counted once, and its message put again: Redis keeps
        one of them. One that this batch joined, asked again by the id it joined, is joined, counted once.

        Args:
            requests: The questions. A refresh passes over the answer that is there.
            task_ids: The task of each, should it claim its question.
            priority: The turn of all, 0 (most urgent) to 9.
            batch: The id of the batch that asks, and that pays for what it claims; empty for none.

        Returns:
            For each row ``hit``, ``claim``, or ``join`` and ``urge`` for what another call claimed. Whoever sends an
            urged question's message sends it in the name of the call that claimed it, which pays. Of an id that is
            asked again, the first verdict says who that is.

        Raises:
            redis.RedisError: If Redis does not answer. What this chunk claimed is released, as far as Redis lets it.
            kombu.exceptions.OperationalError: The same.
        """
        claims: list[Claim] = []
        for start in range(0, len(requests), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            claims += self._ask_chunk(requests[rows], task_ids[rows], priority, batch)
        return claims

    def collect(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """Return what is stored of tasks, as Celery stored it; None where nothing is."""
        stored: list[bytes | None] = []
        for chunk in _chunks(task_ids):
            keys = [RESULT_PREFIX + task_id for task_id in chunk]
            stored += cast("list[bytes | None]", self._answers.mget(keys))
        return stored

    def withdraw(self, asked: Sequence[Asked], *, batch: str = "") -> int:
        """Take this caller's interest off questions; the last one's ends the job, begun or not.

        A job that others wait for goes on. Where this batch had claimed it and it has not begun, it is paid by no batch
        from now on.

        Args:
            asked: The questions that ``ask`` answered with ``claim``, ``join`` or ``urge``, each with the task id that
                it named.
            batch: The batch that asked; empty for none.

        Returns:
            How many jobs were ended. They are paid as far as they had got.
        """
        ended = 0
        for chunk in _chunks(asked):
            is_free = self._claims.withdraw_many(chunk, batch=batch)
            task_ids = [task_id for (_, task_id), ends in zip(chunk, is_free, strict=True) if ends]
            if task_ids:
                app.control.revoke(task_ids)
            ended += len(task_ids)
        return ended

    def recall(self, asked: Sequence[Asked], *, batch: str = "") -> list[bool]:
        """Take questions back that no run has begun to answer, as if they had not been asked.

        True says that this caller waits for the question no longer and has paid nothing for it. Its job is gone; or
        others wait for it, then it stays for them, and is paid by no batch even where this one had claimed it. In
        either case the task id is this caller's no more: to ask the question again, take a new one.

        False says that nothing was changed: a run has the job, or had it and may have paid for model calls; or the
        question is answered, failed, was invalidated, or is another task's by now. What comes of the task id is still
        to be collected.

        Args:
            asked: As of ``withdraw``.
            batch: As of ``withdraw``.
        """
        recalled: list[bool] = []
        for chunk in _chunks(asked):
            keys = [ALIAS_PREFIX + request.input_hash for request, _ in chunk]
            replies = self._recall(keys=keys, args=(batch, *(task_id for _, task_id in chunk)))
            recalled += map(bool, replies)
        return recalled

    def _look_chunk(self, requests: Sequence[Request]) -> list[Claim | None]:
        """Look up as many of these as one script looks up."""
        today = self._calendar.now().today
        result_prefix = RESULT_PREFIX if self._is_one_redis else ""
        task_ids, results, milliseconds_left, costs = self._look(
            keys=[ALIAS_PREFIX + request.input_hash for request in requests],
            args=(today, result_prefix, _MOST_RESULT_BYTES, *(request.variant.queue for request in requests)),
        )
        found: list[Claim | None] = [
            None if task_id is None else Claim("hit", task_id.decode(), result, left)
            for task_id, result, left in zip(task_ids, results, milliseconds_left, strict=True)
        ]
        if not self._is_one_redis:
            self._fetch(found, requests, costs, today)
        return found

    def _fetch(
        self, found: list[Claim | None], requests: Sequence[Request], costs: Sequence[bytes], today: str
    ) -> None:
        """Read the answers where they live; one that Redis has evicted is no hit, and its count is taken back."""
        hits = [(index, claim) for index, claim in enumerate(found) if claim is not None]
        results = self.collect([claim.task_id for _, claim in hits])
        evicted: Counter[str] = Counter()
        not_saved_nano_usd: Counter[str] = Counter()
        for (index, claim), result in zip(hits, results, strict=True):
            if result is not None:
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
            pipeline.hincrby(STATISTICS_PREFIX + queue, "hits_redis", -number)
            pipeline.hincrby(COSTS_PREFIX + today, f"{queue} avoided_nano_usd", -not_saved_nano_usd[queue])
        pipeline.execute()

    def _ask_chunk(
        self, requests: Sequence[Request], task_ids: Sequence[str], priority: int, batch: str
    ) -> list[Claim]:
        claims = self._claims.claim_many(requests, task_ids, priority=priority, batch=batch)
        unsent: dict[str, Claimed] = {}  # a question asked twice is sent once
        for request, claim in zip(requests, claims, strict=True):
            if claim.verdict in ("claim", "urge"):
                unsent.setdefault(claim.task_id, Claimed(request, claim.task_id, claim.batch))
        try:
            publish_many(list(unsent.values()), priority=priority)
        except (OperationalError, redis.RedisError, OSError):
            # Some may have been sent all the same; those claims stay. Redis may be gone: then claims without a job
            # lapse by themselves, after delivery.claim_timeout_seconds.
            with suppress(redis.RedisError):
                self._claims.release_many(
                    (request, claim.task_id)
                    for request, claim in zip(requests, claims, strict=True)
                    if claim.verdict == "claim"
                )
            raise
        return claims


@functools.cache
def process_bulk() -> Bulk:
    """Return this process's."""
    return Bulk(get_settings(), process_claims(), jobs_client(), answers_client(), process_calendar())


def _chunks(rows: Sequence[Element]) -> Iterator[Sequence[Element]]:
    return (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))
