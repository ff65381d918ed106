"""One answer, one claim: who answers a question, agreed by every producer and worker in one script each.

An alias, ``dspy:v1:prediction:<input hash>``, points at the task that answered a question or is about to. Aliases live
with the jobs; where answers live in the same Redis, a hit is one round trip.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol, cast

import redis

from dspyq.config.periods import Calendar, process_calendar
from dspyq.config.settings import Settings, get_settings
from dspyq.prediction.request import Request
from dspyq.store.clients import JOB_PREFIX, KEY_PREFIX, answers_client, jobs_client
from dspyq.store.scripts import load_script, run_together

ALIAS_PREFIX = f"{KEY_PREFIX}prediction:"
STATISTICS_PREFIX = f"{KEY_PREFIX}statistics:"
#: The books of a day.
COSTS_PREFIX = f"{KEY_PREFIX}costs:"
KEEP_COSTS_SECONDS = 400 * 86_400
CACHE_STATISTICS = f"{KEY_PREFIX}cache-statistics"
INVALIDATIONS = f"{KEY_PREFIX}invalidations"
RESULT_PREFIX = "celery-task-meta-"
#: How a stored prediction begins, as the result backend writes it.
_SUCCESS = b'{"status":"SUCCESS",'
#: Sent on the invalidations channel in place of an input hash.
EVERYTHING = "*"

Verdict = Literal["hit", "join", "urge", "claim", "lost"]
#: What became of a run: ``shared`` goes on, for others wait for it.
Release = Literal["lost", "ended", "shared"]
_RELEASES: tuple[Release, ...] = ("lost", "ended", "shared")


class Claim(NamedTuple):
    """What a look at a question's alias found.

    Attributes:
        verdict: ``hit``: answered; ``join``: being answered; ``urge``: as join, but this call is more urgent;
            ``claim``: yours to answer.
        task_id: The task that answered, answers, or is to answer.
        result: The stored result of a hit, as Celery wrote it.
        milliseconds_left: How long a hit is good for.
        batch: The batch that claimed what is yet to be answered: whoever puts the message puts it for that one.
    """

    verdict: Verdict
    task_id: str
    result: bytes = b""
    milliseconds_left: int = 0
    batch: str = ""


class Run(NamedTuple):
    """A task's run: what it may change in Redis, it may only while it holds the job.

    Attributes:
        task_id: The task.
        fence: The number of the run, from its delivery tag; empty for a run without a job record.
        is_repeated: Whether the job was taken before.
    """

    task_id: str
    fence: str = ""
    is_repeated: bool = False

    @classmethod
    def of_delivery_tag(cls, task_id: str, delivery_tag: str | None, run_count: int = 1) -> Run:
        """Return the run that a delivery tag, ``<task id>:<fence>``, stands for."""
        owner, _, fence = (delivery_tag or "").rpartition(":")
        return cls(task_id, fence if owner == task_id else "", run_count > 1)


class Kept(IntEnum):
    """What became of an answer: nothing, for another run has the job; it is stored; the job is ended with it."""

    LOST = 0
    STORED = 1
    ENDED = 2


class Claims:
    """Claims, answers and releases over the two Redis servers, which may be one."""

    def __init__(
        self, settings: Settings, jobs: redis.Redis, answers: redis.Redis, calendar: Calendar | None = None
    ) -> None:
        self._calendar = calendar or Calendar("UTC")
        self._jobs = jobs
        self._answers = answers
        self._is_one_redis = settings.is_one_redis
        self._claim_timeout_seconds = settings.delivery.claim_timeout_seconds
        names = ("claim", "answer", "release", "withdraw")
        self._claim, self._answer, self._release, self._withdraw = (
            load_script(jobs, "dspyq.cache", name, library="claims") for name in names
        )

    def claim(self, request: Request, task_id: str, *, priority: int) -> Claim:
        """Look a question up for a caller, and claim it for ``task_id`` if nobody answers it."""
        return self._ask(self._question(request, task_id, "c", priority))

    def claim_many(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """Look many questions up in one round trip, and claim those that nobody answers, for a batch or for none."""
        questions = [self._question(*one, "c", priority, batch=batch) for one in zip(requests, task_ids, strict=True)]
        return self._fetch(self._ask_many(questions), questions)

    def look(self, request: Request, run: Run, *, is_first_look: bool) -> Claim:
        """Look a question up for a worker about to run it; ``join`` means that a living worker runs it now.

        Args:
            request: The question.
            run: The worker's run.
            is_first_look: Whether to count it as a call: one that its producer did not claim, seen for the first time.
        """
        if run.is_repeated and (own := self._answers.get(RESULT_PREFIX + run.task_id)):
            result = cast("bytes", own)
            if result.startswith(_SUCCESS):  # an earlier run stored it and did not get to say that it is done
                return Claim("hit", run.task_id, result)
        return self._ask(self._question(request, run.task_id, "wc" if is_first_look else "w", 0, fence=run.fence))

    def answer(self, request: AnsweredRequest, run: Run, stored: Stored) -> Kept:
        """Store an answer, tell who waits, let the alias serve it, and end the job where it has nothing else to do.

        Where answers live elsewhere, a run that has lost its job may be noticed only once its answer is stored.
        """
        keys = [ALIAS_PREFIX + request.input_hash]
        result_key = RESULT_PREFIX + run.task_id
        payload = stored.payload
        if self._is_one_redis:
            keys.append(result_key)
        elif run.fence and self._jobs.hget(f"{JOB_PREFIX}{run.task_id}", "fence") != run.fence.encode():
            return Kept.LOST
        else:
            pipeline = self._answers.pipeline()
            pipeline.set(result_key, payload, ex=stored.keep_seconds)
            pipeline.publish(result_key, payload)
            pipeline.execute()
            payload = b""
        counts = _pairs(stored.counts)
        arguments: list[str | int | bytes] = [
            run.task_id,
            run.fence,
            stored.serve_seconds,
            stored.keep_seconds,
            payload,
            request.input_hash,
            request.queue,
            stored.cost_nano_usd,
            self._calendar.now().today,
            "1" if stored.is_last else "",
        ]
        return Kept(self._answer(keys=keys, args=[*arguments, *counts]))

    def release(self, request: AnsweredRequest, run: Run, counts: Mapping[str, int] | None = None) -> bool:
        """End a run without an answer, so that the next caller computes anew; return whether it still held its job.

        Args:
            request: The question.
            run: The run that ends.
            counts: What the statistics add for a run that failed; none for a claim that is given back.
        """
        return _RELEASES[self._end(request, run, "", counts)] == "ended"

    def release_for(self, batch: str, request: AnsweredRequest, run: Run, counts: Mapping[str, int]) -> Release:
        """As ``release``; a run that a batch pays for only where nobody else waits for it."""
        return _RELEASES[self._end(request, run, batch, counts)]

    def _end(self, request: AnsweredRequest, run: Run, batch: str, counts: Mapping[str, int] | None) -> int:
        arguments = [run.task_id, run.fence, request.queue, batch, *_pairs(counts or {})]
        return int(self._release(keys=[ALIAS_PREFIX + request.input_hash], args=arguments))

    def release_many(self, asked: Iterable[tuple[AnsweredRequest, str]]) -> None:
        """Give claims of these tasks back, in one round trip; those whose jobs were sent after all stay."""
        steps = [
            self._release.step(bool, (ALIAS_PREFIX + request.input_hash,), (task_id, "", request.queue))
            for request, task_id in asked
        ]
        run_together(self._jobs, steps)

    def withdraw(self, request: AnsweredRequest, task_id: str, *, is_own: bool = False) -> bool:
        """Take one caller's interest off a run; return whether nobody waits for it any more.

        Args:
            request: The question.
            task_id: The run.
            is_own: Whether the caller chose that id, and so waits for it whether or not it became the question's run.
        """
        return self.withdraw_many([(request, task_id)], is_own=is_own)[0]

    def withdraw_many(
        self, asked: Sequence[tuple[AnsweredRequest, str]], *, is_own: bool = False, batch: str = ""
    ) -> list[bool]:
        """Take one caller's interest off many runs, as ``withdraw`` does, in one script; a batch's claims with it."""
        keys = [ALIAS_PREFIX + request.input_hash for request, _ in asked]
        arguments = ["1" if is_own else "", batch, *(task_id for _, task_id in asked)]
        return [bool(is_free) for is_free in self._withdraw(keys=keys, args=arguments)]

    def invalidate(self, input_hashes: Iterable[str]) -> int:
        """Forget aliases, and have every process forget them; a run under way no longer becomes their answer.

        Returns:
            How many there were.
        """
        pipeline = self._jobs.pipeline()
        for input_hash in input_hashes:
            pipeline.delete(ALIAS_PREFIX + input_hash)
            pipeline.publish(INVALIDATIONS, input_hash)
        return sum(pipeline.execute()[::2])

    def _question(  # noqa: PLR0913 - what claim.lua is told
        self, request: Request, task_id: str, flags: str, priority: int, *, fence: str = "", batch: str = ""
    ) -> _Question:
        arguments = (
            task_id,
            flags + "r" if request.refresh else flags,
            self._claim_timeout_seconds,
            priority,
            request.queue,
            RESULT_PREFIX if self._is_one_redis else "",
        )
        return ALIAS_PREFIX + request.input_hash, (*arguments, "", fence, self._calendar.now().today, batch)

    def _ask(self, question: _Question) -> Claim:
        key, arguments = question
        claim = _claim(self._claim(keys=(key,), args=arguments))
        return claim if self._is_one_redis else self._fetch([claim], [question])[0]

    def _ask_many(self, questions: Sequence[_Question]) -> list[Claim]:
        return run_together(self._jobs, [self._claim.step(_claim, (key,), arguments) for key, arguments in questions])

    def _fetch(self, claims: list[Claim], questions: Sequence[_Question]) -> list[Claim]:
        """Where answers live elsewhere, read those of hits there, and ask again for those that Redis has evicted."""
        hits = [] if self._is_one_redis else [index for index, claim in enumerate(claims) if claim.verdict == "hit"]
        if not hits:
            return claims
        keys = [RESULT_PREFIX + claims[index].task_id for index in hits]
        results = cast("list[bytes | None]", self._answers.mget(keys))
        evicted = []
        for index, result in zip(hits, results, strict=True):
            if result is None:
                evicted.append(index)
            else:
                claims[index] = claims[index]._replace(result=result)
        if evicted:
            again = self._ask_many([_without(questions[index], claims[index].task_id) for index in evicted])
            for index, claim in zip(evicted, again, strict=True):
                claims[index] = claim
        return claims


#: An alias's key, and the arguments of claim.lua.
_Question = tuple[str, tuple[str | float, ...]]


def _without(question: _Question, gone: str) -> _Question:
    """The same question, to whom knows that an answer is gone."""
    key, arguments = question
    return key, (*arguments[:-4], gone, *arguments[-3:])


class AnsweredRequest(Protocol):
    """What ending a run needs to know of its question."""

    @property
    def input_hash(self) -> str:
        """What identifies the question."""

    @property
    def queue(self) -> str:
        """The variant's queue, whose statistics count."""


class Stored(NamedTuple):
    """An answer to store.

    Attributes:
        payload: The result as Celery stores it.
        serve_seconds: How long the cache serves it; 0 for not at all.
        keep_seconds: How long it can be fetched by its task id.
        counts: What the variant's statistics add.
        cost_nano_usd: What it cost, which each later hit saves; 0 where that is unknown.
        is_last: Whether its job has nothing else to do: no link, chain or chord.
    """

    payload: bytes
    serve_seconds: int
    keep_seconds: int
    counts: Mapping[str, int]
    cost_nano_usd: int = 0
    is_last: bool = False


@functools.cache
def process_claims() -> Claims:
    """Return this process's claims."""
    return Claims(get_settings(), jobs_client(), answers_client(), process_calendar())


def _claim(reply: list[Any]) -> Claim:
    verdict, task_id, result, left, batch = reply
    return Claim(verdict.decode(), task_id.decode(), result, left, batch.decode())


def _pairs(counts: Mapping[str, int]) -> list[str | int]:
    return [part for pair in counts.items() for part in pair]
