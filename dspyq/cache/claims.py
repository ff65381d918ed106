"""Claims on questions: one task answers each question, coordinated by one script for each operation.

An alias, ``dspy:v1:prediction:<input hash>``, points at the task that answered a question or is about to. Aliases live
with the jobs; if the answers live in the same Redis, a hit is one round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson
import redis

from dspyq.cache.claim import AnsweredRequest, Claim, Kept, NewQuestions, Release, Run, Stored, asked_by
from dspyq.cache.claim_flags import ClaimFlags
from dspyq.cache.earlier_results import earlier_answer, prepare_own_id, store_and_publish
from dspyq.config.periods import Calendar, process_calendar
from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.delivery.records import QueuedJob
from dspyq.prediction.request import Request
from dspyq.prediction.stored import answers_question, failed_meta
from dspyq.store import content
from dspyq.store.clients import answers_client, damaged_key, is_wrong_type, jobs_client, name_damage
from dspyq.store.content import decode_result
from dspyq.store.keys import alias_key, invalidations_channel, job_key, result_key
from dspyq.store.scripts import Step, load_script, run_each, run_together
from dspyq.store.spines import on_spine, places_beside

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: Length of an input hash, and of a task's id that Celery makes.
_HASH_BYTES, _ID_BYTES = 64, 36

_STALE = b"stale"
_RELEASES: tuple[Release, ...] = ("lost", "ended", "shared")


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
        names = ("claim", "ask", "ask_new", "answer", "release", "withdraw")
        self._claim, self._claim_and_put, self._ask_new, self._answer, self._release, self._withdraw = (
            load_script(jobs, "dspyq.cache", name) for name in names
        )
        self._flags = ClaimFlags()
        #: The day they name, and the templates.
        self._templates: tuple[str, dict[tuple[str, int, bool, str, str], bytes]] = ("", {})

    def claim(self, request: Request, task_id: str, *, priority: int) -> Claim:
        """Look a question up for a caller, and claim it for ``task_id`` if it has no answer and no running task."""
        input_hash, own_id = request.input_hash.encode(), task_id.encode()
        claimant = _Claimant(task_id, self._flags.of_caller(request), priority)
        is_unlike = request.exposure is not None or request.tenant
        if is_unlike or len(input_hash) != _HASH_BYTES or len(own_id) != _ID_BYTES:
            return self._ask(self._question(request, claimant))
        try:
            reply = self._claim.run_packed(self._template(request, claimant) % (input_hash, own_id))
        except redis.ResponseError as error:
            raise self._explained(error, self._question(request, claimant)) from None
        claim = _claim(reply)
        if claim.verdict != "hit" or answers_question(claim.result, request.input_hash):
            return claim
        return self._own([claim], [self._question(request, claimant)])[0]

    def ask(self, request: Request, job: QueuedJob) -> Claim:
        """As ``claim`` for the job, and put it where it claims the question, in one round trip."""
        alias, arguments = self._question(request, _Claimant(job.id, self._flags.of_caller(request), job.priority))
        return self._ask((alias, {**arguments, "message": job.message}))

    def ask_new(self, questions: Iterable[NewQuestions], *, priority: int, batch: str = "") -> list[bool]:
        """Claim and put those of many questions of which nothing is known yet, for a batch or none, in one round trip.

        Args:
            questions: The questions; they are sent as they come.
            priority: The turn of their jobs.
            batch: The batch that pays; empty for none.

        Returns:
            For each question whether it was claimed and put. Of the others nothing was changed: ``claim_many`` decides.
        """
        aliases = alias_key("")
        spread = {"is_spread": "1"} if self._flags.are_spread else {}
        steps = (
            self._ask_new.step(
                list,
                [aliases + input_hash for input_hash in each.input_hashes],
                queue=each.queue,
                priority=priority,
                batch=batch,
                seen=each.seen,
                tenant=each.tenant,
                jobs=each.jobs,
                **spread,
            )
            for each in questions
        )
        return [bool(is_new) for replies in run_together(self._jobs, steps) for is_new in replies]

    def claim_many(
        self, requests: Sequence[Request], task_ids: Sequence[str], *, priority: int, batch: str = ""
    ) -> list[Claim]:
        """Look many questions up in one round trip, and claim those without an answer or a run, for a batch or none.

        One whose alias another program wrote to is ``damaged``; the others are claimed all the same.
        """
        questions = [
            self._question(request, _Claimant(task_id, self._flags.of_caller(request), priority, batch=batch))
            for request, task_id in zip(requests, task_ids, strict=True)
        ]
        return self._own(self._ask_many(questions), questions)

    def look_up(self, request: Request, run: Run, *, is_first_look: bool) -> Claim:
        """Look a question up for a worker about to run it; ``join`` means that a living worker runs it now.

        Args:
            request: The question.
            run: The worker's run.
            is_first_look: Whether to count it as a call: one that its producer did not claim, seen for the first time.
        """
        if run.is_repeated:
            with on_spine(run.task_id):
                own = earlier_answer(self._answers_here(), run.task_id, request.input_hash)
            if own is not None:
                return Claim("hit", run.task_id, own)
        flags = self._flags.of_worker(request, counts=is_first_look)
        return self._ask(self._question(request, _Claimant(run.task_id, flags, fence=run.fence)))

    def look_on(self, request: Request, *, is_first_look: bool) -> Claim:
        """Look a question up, as ``look_up``, for a worker whose job is on another spine; nothing is claimed."""
        flags = self._flags.of_onlooker(request, counts=is_first_look)
        return self._ask(self._question(request._replace(exposure=None), _Claimant("", flags)))

    def prepare_own_id(self, request: Request, task_id: str) -> None:
        """Refuse a task id of another question, and withdraw a failure of this one stored under it.

        Where answers live with the jobs, the script that puts the job checks the id once more.

        Raises:
            InvalidOption: If it is another question's.
        """
        with on_spine(task_id):
            prepare_own_id(self._answers_here(), request, task_id)

    def answer(self, request: AnsweredRequest, run: Run, stored: Stored) -> Kept:
        """Store an answer, notify its waiters, serve it by the alias, and end the job if nothing is left to do.

        Where answers live elsewhere, a run that has lost its job may be noticed only once its answer is stored.
        """
        keys = [alias_key(request.input_hash)]
        stored_under = result_key(run.task_id)
        tenant, kinds = stored.tenant, content.Kind
        payload = content.encode(kinds.RESULT, run.task_id, stored.payload, tenant=tenant)
        unscored = stored.unscored and content.encode(kinds.UNSCORED, run.task_id, stored.unscored, tenant=tenant)
        places = places_beside(run.task_id) if stored.is_own_id else []
        if places or self._answers is not self._jobs:
            if run.fence and self._jobs.hget(job_key(run.task_id), "fence") != run.fence.encode():
                return Kept.LOST
            for place in places or [nullcontext()]:
                with place:
                    store_and_publish(self._answers_here(), run.task_id, payload, stored.keep_seconds)
        if self._is_one_redis:  # of an id on another spine too, so that the question's next caller finds it here
            keys.append(stored_under)
        else:
            payload = b""
        kept = self._answer(
            keys,
            id=run.task_id,
            fence=run.fence,
            serve_seconds=stored.serve_seconds,
            keep_seconds=stored.keep_seconds,
            result=payload,
            input_hash=request.input_hash,
            queue=request.queue,
            cost=stored.cost_nano_usd,
            day=self._calendar.now().today,
            is_last="1" if stored.is_last else "",
            time_ms=stored.time_ms,
            tokens=stored.tokens,
            **stored.marks,
            unscored=unscored,
            row=stored.row,
            counts=_pairs(stored.counts),
        )
        return Kept(kept)

    def release(self, request: AnsweredRequest, run: Run, counts: Mapping[str, int] | None = None) -> bool:
        """End a run without an answer, so that the next caller computes anew; return whether it still held its job.

        Args:
            request: The question.
            run: The run that ends.
            counts: What the statistics add for a run that failed; none for a claim that is given back.
        """
        (release,) = run_together(self._jobs, [self._end(request, run, counts=counts)])
        return bool(release == _RELEASES.index("ended"))

    def release_for(self, batch: str, request: AnsweredRequest, run: Run, counts: Mapping[str, int]) -> Release:
        """Release a run as ``release`` does; one that a batch pays for only if no other caller waits for it."""
        (release,) = run_together(self._jobs, [self._end(request, run, batch, counts)])
        return _RELEASES[int(release)]

    def _end(
        self, request: AnsweredRequest, run: Run, batch: str = "", counts: Mapping[str, int] | None = None
    ) -> Step[int]:
        return self._release.step(
            int,
            (alias_key(request.input_hash),),
            id=run.task_id,
            fence=run.fence,
            queue=request.queue,
            batch=batch,
            counts=_pairs(counts or {}),
        )

    def release_many(self, asked: Iterable[tuple[AnsweredRequest, str]]) -> None:
        """Release the claims of these tasks in one round trip; claims whose jobs were sent stay."""
        run_together(self._jobs, [self._end(request, Run(task_id)) for request, task_id in asked])

    def withdraw(self, request: AnsweredRequest, task_id: str, *, is_own: bool = False) -> bool:
        """Withdraw one caller's interest in a run; return True if it has no waiting callers left.

        Args:
            request: The question.
            task_id: The run.
            is_own: True if the caller chose that id, and so waits for it even if it is not the question's run.
        """
        return self.withdraw_many([(request, task_id)], is_own=is_own)[0]

    def withdraw_many(
        self, asked: Sequence[tuple[AnsweredRequest, str]], *, is_own: bool = False, batch: str = ""
    ) -> list[bool]:
        """Withdraw one caller's interest in many runs in one script, as ``withdraw``; also a batch's claims."""
        keys = [alias_key(request.input_hash) for request, _ in asked]
        replies = self._withdraw(keys, is_own="1" if is_own else "", batch=batch, asked=asked_by(asked))
        return list(map(bool, replies))

    def invalidate(self, input_hashes: Iterable[str]) -> int:
        """Delete aliases here and in every process's memory; a run in progress no longer becomes their answer.

        Returns:
            Number of aliases deleted.
        """
        pipeline = self._jobs.pipeline()
        for input_hash in input_hashes:
            pipeline.delete(alias_key(input_hash))
            pipeline.publish(invalidations_channel(), input_hash)
        return sum(pipeline.execute()[::2])

    def _answers_here(self) -> redis.Redis:
        """Return the Redis of results of the active spine, which a task's id may lead to."""
        return answers_client() if self._flags.are_spread else self._answers

    def _question(self, request: Request, claimant: _Claimant) -> _Question:
        task_id, flags, priority, fence, batch = claimant
        arguments = {
            "id": task_id,
            "flags": flags + "r" if request.refresh else flags,
            "claim_seconds": self._claim_timeout_seconds,
            "priority": priority,
            "queue": request.queue,
            "is_here": "1" if self._is_one_redis else "",
            "gone": "",
            "fence": fence,
            "day": self._calendar.now().today,
            "batch": batch,
            "seen": request.seen,
        }
        if request.exposure is not None:
            arguments["exposure"] = request.exposure.stated()
        if tenant := request.sharer or request.tenant:
            arguments["tenant"] = tenant
        return alias_key(request.input_hash), arguments

    def _template(self, request: Request, claimant: _Claimant) -> bytes:
        """Return the look-up by a caller, packed but for the question's hash and the task's id.

        Packing a look-up takes longer than all else that a hit needs before it is sent.
        """
        today = self._calendar.now().today
        day, templates = self._templates
        if day != today:
            templates = {}
            self._templates = today, templates
        _, flags, priority, *_ = claimant
        look_up = request.queue, priority, request.refresh, request.seen, flags
        template = templates.get(look_up)
        if template is None:
            alike = request._replace(input_hash="\0" * _HASH_BYTES, tenant="")
            key, arguments = self._question(alike, claimant._replace(task_id="\0" * _ID_BYTES))
            template = templates[look_up] = self._claim.template((key,), **arguments)
        return template

    def _ask(self, question: _Question) -> Claim:
        try:
            (claim,) = run_together(self._jobs, [self._step(question)])
        except redis.ResponseError as error:
            raise self._explained(error, question) from None
        return claim if claim.verdict != "hit" else self._own([claim], [question])[0]

    def _ask_many(self, questions: Sequence[_Question]) -> list[Claim]:
        found = run_each(self._jobs, [self._step(question) for question in questions])
        return [
            each if isinstance(each, Claim) else self._damaged(each, question)
            for each, question in zip(found, questions, strict=True)
        ]

    def _damaged(self, error: redis.RedisError, question: _Question) -> Claim:
        """Return the claim of a question whose alias is of another type; raise any other error."""
        explained = self._explained(error, question)
        if explained is error:
            raise error
        failure = failed_meta(damaged_key("ask for the prediction", str(explained)))
        return Claim("damaged", question[1]["id"], orjson.dumps(failure))

    def _explained(self, error: redis.RedisError, question: _Question) -> redis.RedisError:
        if not isinstance(error, redis.ResponseError) or not is_wrong_type(error):
            return error
        return name_damage(self._jobs, question[0], error, own_type="hash")

    def _step(self, question: _Question) -> Step[Claim]:
        key, arguments = question
        script = self._claim_and_put if "message" in arguments else self._claim
        return script.step(_claim, (key,), **arguments)

    def _own(self, claims: list[Claim], questions: Sequence[_Question]) -> list[Claim]:
        """Look up hits again whose answer is gone: evicted by Redis, or replaced by that of another question."""
        hits = [index for index, claim in enumerate(claims) if claim.verdict == "hit"]
        while hits:
            if not self._is_one_redis:
                results = self._answers.mget([result_key(claims[index].task_id) for index in hits])
                for index, result in zip(hits, cast("list[bytes | None]", results), strict=True):
                    task_id = claims[index].task_id
                    claims[index] = claims[index]._replace(result=decode_result(task_id, result) if result else b"")
            gone = [
                index for index in hits if not answers_question(claims[index].result, _input_hash(questions[index]))
            ]
            if not gone:
                break
            again = self._ask_many([_without(questions[index], claims[index].task_id) for index in gone])
            for index, claim in zip(gone, again, strict=True):
                claims[index] = claim
            hits = [index for index in gone if claims[index].verdict == "hit"]
        return claims


class _Claimant(NamedTuple):
    """A task that looks a question up; the flags are those of claim.lua."""

    task_id: str
    flags: str
    priority: int = 0
    fence: str = ""
    batch: str = ""


#: An alias's key, and the arguments of claim.lua, or of ask.lua where a message is among them.
_Question = tuple[str, dict[str, Any]]


def _input_hash(question: _Question) -> str:
    return question[0].rpartition(":")[2]


def _without(question: _Question, gone: str) -> _Question:
    """Return the same look-up, which ignores the given stale answer."""
    key, arguments = question
    return key, arguments | {"gone": gone}


@per_runtime(is_of_part=True)
def process_claims() -> Claims:
    """Return this process's claims."""
    return Claims(get_settings(), jobs_client(), answers_client(), process_calendar())


def _claim(reply: list[Any]) -> Claim:
    verdict, owner, stored, left, batch = reply
    task_id = owner.decode()
    if verdict == _STALE:
        return Claim("stale", task_id, stored)
    return Claim(verdict.decode(), task_id, decode_result(task_id, stored) if stored else stored, left, batch.decode())


def _pairs(counts: Mapping[str, int]) -> list[str | int]:
    return [part for pair in counts.items() for part in pair]
