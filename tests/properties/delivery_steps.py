"""Steps of those who act on a delivery: each is a round trip, made in Redis and in the model at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import orjson
from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from dspyq.cache.claim import Claim, Run, Stored
from dspyq.delivery.records import QueuedJob as Put
from dspyq.delivery.versions import version_queue
from tests.properties.delivery_model import Asked, Delivered, Job, Model, Question
from tests.properties.delivery_world import FOREVER_SECONDS, World

QUESTIONS = ("color", "number")
QUEUE = Asked("").queue
VERSION_QUEUE = version_queue(QUEUE, "0123456789abcdef" * 4)
MAX_DELIVERIES = 3
PATIENCE_LOOKS = 3

to_the_end = 99


class Caller:
    """Someone who waits for a task's result."""

    def __init__(self, task_id: str, input_hash: str, *, is_shared: bool, has_claimed: bool = False) -> None:
        self.task_id, self.input_hash, self.is_shared, self.has_claimed = task_id, input_hash, is_shared, has_claimed

    def __repr__(self) -> str:
        return f"caller of {self.task_id}"


class Actor:
    """Something under way: what is left of it, and the tasks that will yet hear of it."""

    def __init__(self, name: str, steps: Iterator[None], task_ids: tuple[str, ...] = ()) -> None:
        self.name, self.steps, self.task_ids = name, steps, task_ids

    def __repr__(self) -> str:
        return self.name


class DeliverySteps(RuleBasedStateMachine):
    """State of a delivery, and what callers, workers and operators do in it, step by step."""

    def __init__(self, worlds: dict[bool, World]) -> None:
        super().__init__()
        self.worlds = worlds
        self.model = Model(questions={name: Question() for name in QUESTIONS})
        self.asked: dict[str, Asked] = {}
        self.callers: list[Caller] = []
        self.actors: list[Actor] = []
        self.runs: list[Delivered] = []
        self.invalidations = dict.fromkeys(QUESTIONS, 0)
        self.computed_at: dict[Delivered, int] = {}
        self.serial = 0

    # What each actor does, step by step

    def calls(self, asked: Asked, priority: int, *, can_send: bool = True, task_id: str | None = None) -> Iterator[str]:
        """A producer; yields the task whose message it is about to put."""
        task_id = task_id or self.name("task")
        expected = self.model.claim(asked, task_id, priority)
        self.asked[task_id] = asked
        claim = self.world.claims.claim(asked, task_id, priority=priority)
        assert (claim.verdict, claim.task_id) == expected
        self.check_hit(claim)
        if claim.verdict == "hit":
            return
        caller = Caller(claim.task_id, asked.input_hash, is_shared=True, has_claimed=claim.verdict == "claim")
        self.callers.append(caller)
        if claim.verdict == "join":
            return
        yield claim.task_id
        if can_send:
            self.put(claim.task_id, priority)
            return
        self.callers.remove(caller)  # it is told by an exception
        if claim.verdict == "claim":
            assert self.world.claims.release(asked, Run(task_id)) == self.model.release(asked, task_id)

    def works(self, ending: str, *, delayed: bool) -> Iterator[None]:
        run = self.takes()
        if run is None:
            return
        asked = self.asked[run.job.id]
        waited_for = None
        for _ in range(PATIENCE_LOOKS):
            yield
            claim = self.looks(asked if waited_for is None else Asked(asked.input_hash), run)
            if claim.verdict == "lost":
                return
            if claim.verdict == "claim":
                yield
                yield from self.ends(run, ending, delayed=delayed)
                return
            if claim.verdict == "join":
                waited_for = claim.task_id
                continue
            self.check_hit(claim)
            if not asked.refresh or claim.task_id in (waited_for, run.job.id):
                yield
                self.answers(run, claim.result)
                yield
                self.finishes(run)
                return
            waited_for = None
        yield
        self.gives_back(run, delayed=True)

    def ends(self, run: Delivered, ending: str, *, delayed: bool) -> Iterator[None]:
        """A run that has computed, or could not."""
        task_id, asked = run.job.id, self.asked[run.job.id]
        match ending:
            case "answer" | "answer unserved":
                self.answers(run, serves=ending == "answer")
            case "fail":
                released = self.model.release(asked, task_id, run)
                fenced = Run.of_delivery_tag(task_id, run.tag)
                assert self.world.claims.release(asked, fenced, {"failures": 1}) == released
                if not released:
                    return
                yield
                if self.model.holds(run):
                    self.fail(task_id, "FAILURE")
            case "retry":
                if not self.model.holds(run):
                    return  # a newer generation ends the run that it finds, whoever publishes it: tolerated
                self.put(task_id, run.job.priority, delayed=delayed, generation=run.job.generation + 1)
            case "park":
                self.gives_back(run, delayed=delayed)
                return
            case "set aside":
                given = self.model.give_back(run, "dead")
                assert self.world.records.set_aside(run.tag, "unreadable") == given
                return
        yield
        self.finishes(run)

    def cancels(self, caller: Caller) -> Iterator[None]:
        if caller.task_id in self.model.results:
            return
        is_own, asked = not caller.is_shared, Asked(caller.input_hash)
        is_counted = self.model.questions[caller.input_hash].pending == caller.task_id
        is_last = self.model.withdraw(caller.input_hash, caller.task_id, is_own=is_own)
        assert self.world.claims.withdraw(asked, caller.task_id, is_own=is_own) == is_last
        if not is_last:
            return
        others = [other for other in self.callers if other.task_id == caller.task_id]
        if is_counted or caller.is_shared:
            assert not others, f"cancelling one caller of {caller.task_id} ends it for another"
        yield
        yield from self.revokes(caller.task_id)

    def revokes(self, task_id: str) -> Iterator[None]:
        message = self.end(task_id)
        yield
        if message:
            asked = self.asked[task_id]
            released = self.model.release(asked, task_id)
            assert self.world.claims.release(asked, Run(task_id), {"failures": 1}) == released
            yield
            self.fail(task_id, "REVOKED")

    def tells(self, task_ids: list[str]) -> Iterator[None]:
        for job in self.world.dead.find(job_ids=task_ids):
            asked = self.asked[job.id]
            released = self.model.release(asked, job.id)
            assert self.world.claims.release(asked, Run(job.id), {"failures": 1}) == released
            yield
            self.fail(job.id, "FAILURE")
            yield
            self.world.dead.mark_notified([job.id])
            if job.id in self.model.jobs:
                self.model.jobs[job.id].is_untold = False

    def drops(self, task_id: str) -> Iterator[None]:
        if task_id in self.model.untold:
            yield from self.tells([task_id])
        self.end(task_id)

    # Single round trips, here and in the model

    def put(
        self, task_id: str, priority: int, *, delayed: bool = False, generation: int = 0, is_child: bool = False
    ) -> None:
        message = f"{task_id} generation {generation}"
        put = Put(task_id, message, QUEUE, priority, FOREVER_SECONDS * delayed, generation, is_child)
        expected = self.model.put(
            task_id, message, priority=priority, delayed=delayed, generation=generation, is_child=is_child
        )
        assert self.world.records.put(put) == expected
        if task_id in self.model.jobs:
            self.model.number(task_id, self.world.sequence_of(task_id))

    def takes(self) -> Delivered | None:
        delivery = self.world.records.take(QUEUE, FOREVER_SECONDS, VERSION_QUEUE)
        if delivery is None:
            assert not self.model.waiting
            return None
        run = self.model.take(delivery.tag)
        job = run.job
        assert (delivery.id, delivery.message.decode(), delivery.is_given_up) == (job.id, job.message, False)
        assert run.tag not in {earlier.tag for earlier in self.runs}, "two runs of one tag"
        self.runs.append(run)
        return run

    def looks(self, asked: Asked, run: Delivered) -> Claim:
        counts = not asked.is_claimed and run.is_first
        expected = self.model.look(asked, run, counts=counts)
        claim = self.world.claims.look_up(asked, fenced_run(run), is_first_look=counts)
        assert (claim.verdict, claim.task_id) == expected
        self.computed_at[run] = self.invalidations[asked.input_hash]
        return claim

    def answers(self, run: Delivered, copied: bytes | None = None, *, serves: bool = True) -> None:
        asked = self.asked[run.job.id]
        answered = {"answer": self.name("answer"), "input_hash": asked.input_hash}
        payload = copied or orjson.dumps({"status": "SUCCESS", "result": answered})
        holds = self.model.answer(asked, run, payload, is_served=serves)
        answer = stored(payload, FOREVER_SECONDS * serves)
        assert self.world.claims.answer(asked, fenced_run(run), answer) == holds
        served = self.model.questions[asked.input_hash].answer
        if holds and served and served.payload == payload and copied is None:
            assert self.computed_at[run] == self.invalidations[asked.input_hash], "an invalidated answer came back"

    def finishes(self, run: Delivered) -> None:
        assert self.world.records.finish(run.tag) == self.model.finish(run)

    def gives_back(self, run: Delivered, *, delayed: bool) -> None:
        given = self.model.give_back(run, "delayed" if delayed else "queue")
        assert self.world.records.give_back([run.tag], FOREVER_SECONDS * delayed) == given

    def end(self, task_id: str) -> str:
        message = self.model.end(task_id)
        assert self.world.records.end([task_id]) == [message.encode()]
        return message

    def fail(self, task_id: str, state: str) -> None:
        payload = orjson.dumps({"status": state, "result": self.name("error")})
        if self.model.fail(task_id, payload):
            self.world.store(task_id, payload)

    def check_hit(self, claim: Claim) -> None:
        if claim.verdict == "hit":
            assert b"SUCCESS" in claim.result, "the cache served an error"
            assert claim.result == self.model.results[claim.task_id]

    def check_records(self, records: dict[str, dict[str, str]]) -> None:
        assert {job_id: described(record) for job_id, record in records.items()} == {
            job.id: expected(job) for job in self.model.jobs.values()
        }

    def check_fence(self, job: Job, fence: str) -> None:
        tag = f"{job.id}:{fence}"
        if job.run:
            assert job.run.tag == tag
        else:
            assert tag not in {run.tag for run in self.runs}, f"the run {tag} lost its job and may act"

    # Actors and choices

    def start_actor(self, name: str, steps: Iterator[Any], count: int, task_ids: tuple[str, ...] = ()) -> None:
        actor = Actor(name, steps, task_ids)
        self.actors.append(actor)
        self.advance(actor, count)

    def advance(self, actor: Actor, count: int) -> None:
        for _ in range(count):
            try:
                reached = next(actor.steps)
            except StopIteration:
                self.actors = [other for other in self.actors if other is not actor]
                return
            if actor.name == "producer":
                actor.task_ids = (reached,)

    def name(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}-{self.serial}"

    def owner_of(self, task_id: str) -> Caller | None:
        return next((caller for caller in self.callers if caller.task_id == task_id), None)

    def ids_in(self, *places: str) -> list[str]:
        return sorted(job.id for job in self.model.jobs.values() if job.place in places)

    def questions_with(self, *attributes: str) -> list[str]:
        questions = self.model.questions.items()
        return [name for name, question in questions if any(getattr(question, attribute) for attribute in attributes)]

    def draw_runs(self, data: Any) -> list[Delivered]:
        """Some runs, those that hold their jobs more often than all that ever were."""
        live = [run for run in self.runs if self.model.holds(run)]
        among = data.draw(st.sampled_from((live, live, self.runs))) or self.runs
        return data.draw(st.lists(st.sampled_from(among), unique=True, min_size=1, max_size=3))

    @property
    def own_ids(self) -> list[str]:
        return sorted(task_id for task_id in self.asked if task_id.startswith("own"))

    @property
    def claimers(self) -> list[Caller]:
        """The producer that claimed a question, whose task is there."""
        pending = {question.pending for question in self.model.questions.values()}
        there = pending | self.model.jobs.keys()
        return [caller for caller in self.callers if caller.has_claimed and caller.task_id in there]

    @property
    def mortal(self) -> list[Actor]:
        """A process that may die half-way: a revocation that does so leaves its callers waiting, which is tolerated."""
        return [actor for actor in self.actors if actor.name in ("producer", "worker", "teller")]

    @property
    def stale_runs(self) -> list[Delivered]:
        return [run for run in self.runs if not self.model.holds(run)]


def fenced_run(run: Delivered) -> Run:
    return Run.of_delivery_tag(run.job.id, run.tag, run.number)


def stored(payload: bytes, serve_seconds: int = FOREVER_SECONDS) -> Stored:
    return Stored(payload, serve_seconds, FOREVER_SECONDS, {"successes": 1})


def described(record: dict[str, str]) -> dict[str, Any]:
    """A record's fields as the model has them."""
    numbers = {name: int(record.get(name, 0)) for name in ("generation", "lost", "score")}
    return {"message": record.get("message"), "is_child": "child" in record, **numbers}


def expected(job: Job) -> dict[str, Any]:
    numbers = {name: getattr(job, name) for name in ("generation", "lost", "score")}
    return {"message": job.message, "is_child": job.is_child, **numbers}
