"""One answer, one claim: who answers a question, agreed by every producer and worker in one script each.

An alias, ``dspy:v1:prediction:<input hash>``, points at the task that answered a question or is about to. Aliases live
with the jobs; where answers live in the same Redis, a hit is one round trip.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from config.redis import KEY_PREFIX, answers_client, jobs_client, load_script
from config.settings import Settings, get_settings
from producer.request import Request

ALIAS_PREFIX = f"{KEY_PREFIX}prediction:"
STATISTICS_PREFIX = f"{KEY_PREFIX}statistics:"
CACHE_STATISTICS = f"{KEY_PREFIX}cache-statistics"
INVALIDATIONS = f"{KEY_PREFIX}invalidations"
RESULT_PREFIX = "celery-task-meta-"
#: Sent on the invalidations channel in place of an input hash.
EVERYTHING = "*"

Verdict = Literal["hit", "join", "urge", "claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a look at a question's alias found.

    Attributes:
        verdict: ``hit``: answered; ``join``: being answered; ``urge``: as join, but this call is more urgent;
            ``claim``: yours to answer.
        task_id: The task that answered, answers, or is to answer.
        result: The stored result of a hit, as Celery wrote it.
        milliseconds_left: How long a hit is good for.
    """

    verdict: Verdict
    task_id: str
    result: bytes = b""
    milliseconds_left: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A task's run: what it may change in Redis, it may only while it holds the job.

    Attributes:
        task_id: The task.
        fence: The number of the run, from its delivery tag; empty for a run without a job record.
    """

    task_id: str
    fence: str = ""

    @classmethod
    def of_delivery_tag(cls, task_id: str, delivery_tag: str | None) -> Run:
        """Return the run that a delivery tag, ``<task id>:<fence>``, stands for."""
        owner, _, fence = (delivery_tag or "").rpartition(":")
        return cls(task_id, fence if owner == task_id else "")


class Claims:
    """Claims, answers and releases over the two Redis servers, which may be one."""

    def __init__(self, settings: Settings, jobs: redis.Redis, answers: redis.Redis) -> None:
        self._jobs = jobs
        self._answers = answers
        self._is_one_redis = settings.is_one_redis
        self._claim_timeout_seconds = settings.delivery.claim_timeout_seconds
        self._claim, self._answer, self._release = (
            load_script(jobs, "producer", name, library="library") for name in ("claim", "answer", "release")
        )

    def claim(self, request: Request, task_id: str, *, priority: int) -> Claim:
        """Look a question up for a caller, and claim it for ``task_id`` if nobody answers it."""
        return self.claim_many([request], [task_id], priority=priority)[0]

    def claim_many(self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int) -> list[Claim]:
        """Look many questions up in one round trip."""
        arguments = [self._arguments(*one, priority) for one in zip(requests, task_ids, strict=True)]
        claims = self._run_many(arguments)
        if self._is_one_redis:
            return claims
        return self._fetch(claims, arguments)

    def look(self, request: Request, run: Run, *, is_first_look: bool) -> Claim:
        """Look a question up for a worker about to run it; ``join`` means that a living worker runs it now.

        Args:
            request: The question.
            run: The worker's run.
            is_first_look: Whether to count it as a call: one that its producer did not claim, seen for the first time.
        """
        keys, arguments = self._arguments(request, run.task_id, 0, by_worker=True, counts=is_first_look)
        claims = self._run_many([(keys, arguments)])
        return claims[0] if self._is_one_redis else self._fetch(claims, [(keys, arguments)])[0]

    def answer(self, request_hash: str, variant_queue: str, run: Run, stored: Stored) -> bool:
        """Store an answer, tell who waits for it, and let the alias serve it.

        Returns:
            Whether the run still held its job; if not, nothing was stored.
        """
        keys = [ALIAS_PREFIX + request_hash, STATISTICS_PREFIX + variant_queue, INVALIDATIONS]
        result_key = RESULT_PREFIX + run.task_id
        if self._is_one_redis:
            keys.append(result_key)
            payload = stored.payload
        else:
            pipeline = self._answers.pipeline()
            pipeline.set(result_key, stored.payload, ex=stored.keep_seconds)
            pipeline.publish(result_key, stored.payload)
            pipeline.execute()
            payload = b""
        counts = _pairs(stored.counts)
        arguments = [run.task_id, run.fence, stored.serve_seconds, stored.keep_seconds, payload, request_hash, *counts]
        return bool(self._answer(keys=keys, args=arguments))

    def release(self, request_hash: str, variant_queue: str, run: Run, counts: Mapping[str, int] | None = None) -> bool:
        """End a run without an answer, so that the next caller computes anew.

        Args:
            request_hash: The question's input hash.
            variant_queue: Whose statistics count.
            run: The run that ends.
            counts: What the statistics add for a run that failed; none for a claim that is given back.
        """
        keys = [ALIAS_PREFIX + request_hash, STATISTICS_PREFIX + variant_queue]
        return bool(self._release(keys=keys, args=[run.task_id, run.fence, *_pairs(counts or {})]))

    def invalidate(self, request_hashes: Iterable[str]) -> int:
        """Forget aliases, and have every process forget them; a run under way no longer becomes their answer.

        Returns:
            How many there were.
        """
        pipeline = self._jobs.pipeline()
        for request_hash in request_hashes:
            pipeline.delete(ALIAS_PREFIX + request_hash)
            pipeline.publish(INVALIDATIONS, request_hash)
        return sum(pipeline.execute()[::2])

    def _arguments(
        self,
        request: Request,
        task_id: str,
        priority: int,
        *,
        by_worker: bool = False,
        counts: bool = True,
    ) -> tuple[list[str], list[Any]]:
        keys = [ALIAS_PREFIX + request.input_hash, STATISTICS_PREFIX + request.variant.queue]
        return keys, [
            task_id,
            int(request.refresh),
            self._claim_timeout_seconds,
            priority,
            request.program.name,
            request.variant.name,
            RESULT_PREFIX if self._is_one_redis else "",
            "",
            int(by_worker),
            int(counts),
        ]

    def _run_many(self, calls: list[tuple[list[str], list[Any]]]) -> list[Claim]:
        if len(calls) == 1:
            keys, arguments = calls[0]
            return [_claim(self._claim(keys=keys, args=arguments))]
        pipeline = self._jobs.pipeline(transaction=False)
        for keys, arguments in calls:
            self._claim(keys=keys, args=arguments, client=pipeline)
        return [_claim(reply) for reply in pipeline.execute()]

    def _fetch(self, claims: list[Claim], calls: list[tuple[list[str], list[Any]]]) -> list[Claim]:
        """Read the answers of hits from the other Redis; ask again for those it has evicted."""
        hits = [index for index, claim in enumerate(claims) if claim.verdict == "hit"]
        if not hits:
            return claims
        results = cast(
            "list[bytes | None]", self._answers.mget([RESULT_PREFIX + claims[index].task_id for index in hits])
        )
        fetched = list(claims)
        again = []
        for index, result in zip(hits, results, strict=True):
            claim = claims[index]
            if result is not None:
                fetched[index] = Claim(claim.verdict, claim.task_id, result, claim.milliseconds_left)
            else:
                keys, arguments = calls[index]
                again.append((index, (keys, [*arguments[:7], claim.task_id, *arguments[8:]])))
        if again:
            second = self._run_many([call for _, call in again])
            for (index, _), claim in zip(again, second, strict=True):
                fetched[index] = claim
        return fetched


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer to store.

    Attributes:
        payload: The result as Celery stores it.
        serve_seconds: How long the cache serves it; 0 for not at all.
        keep_seconds: How long it can be fetched by its task id.
        counts: What the variant's statistics add.
    """

    payload: bytes
    serve_seconds: int
    keep_seconds: int
    counts: Mapping[str, int]


@functools.cache
def process_claims() -> Claims:
    """Return this process's claims."""
    return Claims(get_settings(), jobs_client(), answers_client())


def _claim(reply: list[Any]) -> Claim:
    verdict, task_id, result, left = reply
    return Claim(verdict.decode(), task_id.decode(), result, int(left))


def _pairs(counts: Mapping[str, int]) -> list[str | int]:
    return [part for pair in counts.items() for part in pair]
