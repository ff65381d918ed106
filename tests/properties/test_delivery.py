"""Claims, jobs and results under random interleavings, against a model of what must hold.

Whoever acts in more than one step (a producer that claims and then puts, a run, a revocation) is a generator that
yields between its round trips. A rule starts it and lets it take some steps; the rest come in between whatever else
happens, or never: its process died. Every reply must be the model's, and after every rule Redis must hold what the
model holds.

Tolerated, and so not played: a revocation whose process dies before it told anybody; a purge, which tells nobody; a
run that lost its job between asking whether it may fail and storing its error; a retry published by such a run; a call
that chose its id and is cancelled after another run took its question, with joiners of its own; a claim that was
invalidated before it was put and is claimed again by its id, while who joined it is about to put it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dspyq.cache.claims import Claim, Run, Stored
from dspyq.delivery.records import Job as Put
from tests.properties.delivery_model import Asked, Delivered, Job, Model, Question
from tests.properties.delivery_world import FOREVER_SECONDS, World
from tests.properties.profiles import stateful_settings

QUESTIONS = ("color", "number")
QUEUE = Asked("").queue
MAX_DELIVERIES = 3
PATIENCE_LOOKS = 3

to_the_end = 99
steps_taken = st.sampled_from((to_the_end, 1, 2, 2, 3))
priorities = st.integers(0, 2)
questions = st.sampled_from(("color", "color", "number"))
deliveries = st.sampled_from((MAX_DELIVERIES, 1, 1))
endings = st.sampled_from(("answer", "fail", "park", "retry", "answer unserved", "set aside"))


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


class Delivery(RuleBasedStateMachine):
    """Callers, workers, a sweeper, an operator and a clock."""

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

    @initialize(is_one_redis=st.booleans())
    def start(self, is_one_redis: bool) -> None:
        self.world = self.worlds[is_one_redis]
        self.world.empty()

    # Callers

    @rule(question=questions, priority=priorities, refresh=st.sampled_from((False, False, True)), steps=steps_taken)
    def call(self, question: str, priority: int, refresh: bool, steps: int) -> None:
        self.start_actor("producer", self.calls(Asked(question, refresh, is_claimed=True), priority), steps)

    @precondition(lambda self: self.claimers)
    @rule(data=st.data(), priority=priorities, steps=steps_taken)
    def call_again(self, data: Any, priority: int, steps: int) -> None:
        """Who claimed a question asks it again by the same id: a reply was lost, or its process died."""
        caller = data.draw(st.sampled_from(self.claimers))
        self.callers.remove(caller)
        steps_of_it = self.calls(self.asked[caller.task_id], priority, task_id=caller.task_id)
        self.start_actor("producer", steps_of_it, steps)

    @rule(question=questions, refresh=st.booleans())
    def call_but_cannot_send(self, question: str, refresh: bool) -> None:
        asked = Asked(question, refresh, is_claimed=True)
        self.start_actor("producer", self.calls(asked, 0, can_send=False), to_the_end)

    @rule(
        question=questions,
        priority=priorities,
        refresh=st.booleans(),
        delayed=st.booleans(),
        is_child=st.booleans(),
    )
    def call_with_own_id(self, question: str, priority: int, refresh: bool, delayed: bool, is_child: bool) -> None:
        task_id = self.name("own-child" if is_child else "own")
        self.asked[task_id] = Asked(question, refresh)
        self.callers.append(Caller(task_id, question, is_shared=False))
        self.put(task_id, priority, delayed=delayed, is_child=is_child)

    @precondition(lambda self: self.own_ids)
    @rule(data=st.data(), priority=priorities)
    def publish_own_id_again(self, data: Any, priority: int) -> None:
        task_id = data.draw(st.sampled_from(self.own_ids))
        self.put(task_id, priority, is_child="child" in task_id)

    @precondition(lambda self: len(self.callers) > 1)
    @rule(data=st.data(), steps=steps_taken)
    def cancel(self, data: Any, steps: int) -> None:
        waited_for = Counter(caller.task_id for caller in self.callers)
        shared = [caller for caller in self.callers if waited_for[caller.task_id] > 1]
        caller = data.draw(st.sampled_from(shared or self.callers))
        self.callers.remove(caller)
        self.start_actor("canceller", self.cancels(caller), steps, (caller.task_id,))

    @precondition(lambda self: [caller for caller in self.callers if caller.is_shared])
    @rule(data=st.data())
    def recall(self, data: Any) -> None:
        """A caller takes its question back, if no run has begun to answer it."""
        caller = data.draw(st.sampled_from([caller for caller in self.callers if caller.is_shared]))
        recalled = self.model.recall(caller.input_hash, caller.task_id)
        assert self.world.bulk.recall([(Asked(caller.input_hash), caller.task_id)]) == [recalled]
        if recalled:
            self.callers.remove(caller)

    @precondition(lambda self: self.questions_with("answer", "pending"))
    @rule(data=st.data())
    def invalidate(self, data: Any) -> None:
        question = data.draw(st.sampled_from(self.questions_with("answer", "pending")))
        self.invalidations[question] += 1
        assert self.world.claims.invalidate([question]) == self.model.invalidate(question)

    # Workers

    @precondition(lambda self: self.model.waiting)
    @rule(steps=st.integers(1, 3), ending=endings, delayed=st.booleans())
    def prefetch(self, steps: int, ending: str, delayed: bool) -> None:
        self.take(ending, steps, delayed)

    @precondition(lambda self: self.model.waiting)
    @rule(count=st.integers(1, 3))
    def work_off(self, count: int) -> None:
        for _ in range(count):
            self.take("answer", to_the_end, delayed=False)

    @precondition(lambda self: self.model.waiting)
    @rule(ending=endings, steps=steps_taken, delayed=st.booleans())
    def take(self, ending: str, steps: int, delayed: bool) -> None:
        if self.world.answer_bell():
            self.start_actor("worker", self.works(ending, delayed=delayed), steps)

    @precondition(lambda self: self.actors)
    @rule(data=st.data(), steps=steps_taken)
    def go_on(self, data: Any, steps: int) -> None:
        self.advance(data.draw(st.sampled_from(self.actors)), steps)

    @precondition(lambda self: self.mortal)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        actor = data.draw(st.sampled_from(self.mortal))
        self.actors.remove(actor)
        if actor.name == "producer" and actor.task_ids:  # the caller died too; who joined waits on
            self.callers = [caller for caller in self.callers if caller is not self.owner_of(actor.task_ids[0])]

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), delayed=st.booleans())
    def hand_back_all_of(self, data: Any, delayed: bool) -> None:
        """A worker ends, or its beat lets something go; the threads of it may go on nevertheless."""
        some = self.draw_runs(data)
        given = sum(self.model.give_back(run, "delayed" if delayed else "queue") for run in some)
        assert self.world.records.give_back([run.tag for run in some], FOREVER_SECONDS * delayed) == given

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def hand_back(self, data: Any) -> None:
        """A worker cannot run a job; others may."""
        run = data.draw(st.sampled_from(self.runs))
        given = self.model.give_back(run, "delayed", is_hand_back=True)
        assert self.world.records.hand_back(run.tag, FOREVER_SECONDS) == given

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def renew(self, data: Any) -> None:
        some = self.draw_runs(data)
        lost = {run.tag for run in some if not self.model.renew(run)}
        assert self.world.records.renew([run.tag for run in some], FOREVER_SECONDS) == lost

    @precondition(lambda self: self.stale_runs)
    @rule(data=st.data())
    def act_late(self, data: Any) -> None:
        """A frozen run thaws and does everything at once: it must change nothing."""
        run = data.draw(st.sampled_from(self.stale_runs))
        asked, fenced = self.asked[run.job.id], fenced_run(run)
        before = self.world.held()
        assert self.world.claims.look(asked, fenced, is_first_look=True).verdict == self.model.look(asked, run)[0]
        assert not self.world.claims.answer(asked, fenced, stored(b"stale"))
        assert not self.world.claims.release(asked, fenced, {"failures": 1})
        assert not self.world.records.give_back([run.tag], FOREVER_SECONDS)
        assert not self.world.records.hand_back(run.tag, FOREVER_SECONDS)
        assert not self.world.records.set_aside(run.tag, "stale")
        assert self.world.records.renew([run.tag], FOREVER_SECONDS) == {run.tag}
        assert not self.world.records.finish(run.tag)
        assert self.world.held() == before, "a run that lost its job changed something"

    # The sweeper

    @rule(max_deliveries=deliveries)
    def sweep(self, max_deliveries: int) -> None:
        due, expired = self.model.sweep(max_deliveries)
        sweep = self.world.records.sweep(max_deliveries)
        assert (sweep.due, set(sweep.expired), set(sweep.untold)) == (due, expired, self.model.untold)
        assert self.world.held().bells >= len(self.model.waiting), "a job waits without a bell"

    @precondition(lambda self: self.model.untold)
    @rule(steps=steps_taken)
    def tell(self, steps: int) -> None:
        self.start_actor("teller", self.tells(sorted(self.model.untold)), steps)

    # The operator

    @precondition(lambda self: self.asked and len(self.model.jobs) != 1)
    @rule(data=st.data(), steps=steps_taken, is_unfinished=st.booleans())
    def revoke(self, data: Any, steps: int, is_unfinished: bool) -> None:
        some = self.model.jobs if is_unfinished and self.model.jobs else self.asked
        task_id = data.draw(st.sampled_from(sorted(some)))
        self.start_actor("operator", self.revokes(task_id), steps, (task_id,))

    @precondition(lambda self: self.ids_in("dead"))
    @rule(data=st.data(), other=st.booleans())
    def replay(self, data: Any, other: bool) -> None:
        some = [data.draw(st.sampled_from(self.ids_in("dead")))]
        if other:
            some += {data.draw(st.sampled_from(sorted(self.asked)))} - set(some)
        assert self.world.dead.replay(some) == sum([self.model.replay(task_id) for task_id in some])

    @precondition(lambda self: len(self.ids_in("dead")) > 1)
    @rule(data=st.data(), steps=steps_taken)
    def drop(self, data: Any, steps: int) -> None:
        task_id = data.draw(st.sampled_from(self.ids_in("dead")))
        self.start_actor("operator", self.drops(task_id), steps)

    @precondition(lambda self: len(self.model.waiting) > 2)
    @rule()
    def purge(self) -> None:
        """Remove what waits, untold: who waits for it waits in vain, and is counted no more."""
        purged = [job.id for job in self.model.waiting]
        assert self.world.records.purge(QUEUE) == len(purged)
        for task_id in purged:
            self.model.end(task_id)
        self.callers = [caller for caller in self.callers if caller.task_id not in purged]

    # The clock, and Redis

    @precondition(lambda self: self.ids_in("leases"))
    @rule(data=st.data(), max_deliveries=deliveries)
    def freeze(self, data: Any, max_deliveries: int) -> None:
        """A worker freezes for longer than its lease; it may go on later."""
        job = self.model.jobs[data.draw(st.sampled_from(self.ids_in("leases")))]
        self.world.time_out(job.id, job.place)
        job.is_over = True
        self.sweep(max_deliveries)

    @precondition(lambda self: self.ids_in("delayed", "leases"))
    @rule(data=st.data())
    def run_out(self, data: Any) -> None:
        """A delay or a lease ends."""
        job = self.model.jobs[data.draw(st.sampled_from(self.ids_in("delayed", "leases")))]
        self.world.time_out(job.id, job.place)
        job.is_over = True

    @precondition(lambda self: self.questions_with("pending"))
    @rule(data=st.data())
    def age_claim(self, data: Any) -> None:
        question = data.draw(st.sampled_from(self.questions_with("pending")))
        self.world.age_claim(question)
        self.model.questions[question].is_old = True

    @precondition(lambda self: self.questions_with("answer"))
    @rule(data=st.data(), refresh_first=st.booleans(), ask_then=st.booleans())
    def expire_answer(self, data: Any, refresh_first: bool, ask_then: bool) -> None:
        name = data.draw(st.sampled_from(self.questions_with("answer")))
        if refresh_first:
            self.call(name, 0, refresh=True, steps=to_the_end)
        question = self.model.questions[name]
        self.world.expire_answer(name)
        question.answer.is_fresh = False
        if not question.pending:
            question.answer = None
        if ask_then:
            self.call(name, 0, refresh=False, steps=1)

    @precondition(lambda self: self.model.results)
    @rule(data=st.data(), is_served=st.sampled_from((True, True, False)), ask_then=st.booleans())
    def forget_result(self, data: Any, is_served: bool, ask_then: bool) -> None:
        served = [self.model.questions[name].answer.task_id for name in self.questions_with("answer")]
        wanted = [task_id for task_id in served if task_id in self.model.results and is_served]
        task_id = data.draw(st.sampled_from(wanted or sorted(self.model.results)))
        self.world.forget(task_id)
        del self.model.results[task_id]
        if ask_then:
            self.call(self.asked[task_id].input_hash, 0, refresh=False, steps=1)

    @rule(rings=st.booleans())
    def disturb_the_bells(self, rings: bool) -> None:
        if rings:
            self.world.ring()
        else:
            self.world.answer_bell()

    # Calm

    @precondition(lambda self: len(self.callers) > 2)
    @rule()
    def let_everything_end(self) -> None:
        """Who is under way ends, every lease runs out, and healthy workers answer whatever there is."""
        while self.actors:
            self.advance(self.actors[0], to_the_end)
        for job_id in self.ids_in("delayed", "leases"):
            job = self.model.jobs[job_id]
            self.world.time_out(job_id, job.place)
            job.is_over = True
        self.sweep(MAX_DELIVERIES)
        self.advance(Actor("teller", self.tells(sorted(self.model.untold))), to_the_end)
        while self.model.waiting:
            assert self.world.answer_bell(), "a job waits without a bell"
            self.advance(Actor("worker", self.works("answer", delayed=False)), to_the_end)
        assert not self.ids_in("queue", "delayed", "leases")
        for caller in self.callers:
            assert caller.task_id in self.model.told, f"whoever waits for {caller.task_id} waits for ever"
        self.callers.clear()

    # What must hold at all times

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        held, model = self.world.held(), self.model
        assert held.places == {job.id: [job.place] for job in model.jobs.values()}, "a job stands in one place"
        assert {job_id: described(record) for job_id, record in held.records.items()} == {
            job.id: expected(job) for job in model.jobs.values()
        }
        for job in model.jobs.values():
            self.check_fence(job, held.records[job.id].get("fence", ""))
        assert held.waiting == [(job.id, job.score) for job in model.waiting]
        assert held.untold == model.untold
        assert held.results == {task_id: payload.decode() for task_id, payload in model.results.items()}
        for name, question in model.questions.items():
            alias = held.aliases.get(name, {})
            assert alias.get("pending") == question.pending
            assert int(alias.get("joined", 0)) == question.joined
            assert alias.get("answered") == (question.answer and question.answer.task_id)
        counts = {name: held.statistics.get(name, 0) for name in ("hits_redis", "joined", "misses")}
        assert counts == {name: model.counts[name] for name in counts}, "each call is counted once"

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        self.callers = [caller for caller in self.callers if caller.task_id not in self.model.told]
        promised = {task_id for actor in self.actors for task_id in actor.task_ids}
        for caller in self.callers:
            assert caller.task_id in promised or self.model.can_still_end(caller.task_id), (
                f"whoever waits for {caller.task_id} waits for ever"
            )

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
            self.world.dead.told([job.id])
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
        delivery = self.world.records.take(QUEUE, FOREVER_SECONDS)
        if delivery is None:
            assert not self.model.waiting
            return None
        run = self.model.take(delivery.tag)
        job = run.job
        assert (delivery.id, delivery.message.decode(), delivery.hand_backs) == (job.id, job.message, job.hand_backs)
        assert run.tag not in {earlier.tag for earlier in self.runs}, "two runs of one tag"
        self.runs.append(run)
        return run

    def looks(self, asked: Asked, run: Delivered) -> Claim:
        counts = not asked.is_claimed and run.is_first
        expected = self.model.look(asked, run, counts=counts)
        claim = self.world.claims.look(asked, fenced_run(run), is_first_look=counts)
        assert (claim.verdict, claim.task_id) == expected
        self.computed_at[run] = self.invalidations[asked.input_hash]
        return claim

    def answers(self, run: Delivered, copied: bytes | None = None, *, serves: bool = True) -> None:
        asked = self.asked[run.job.id]
        payload = copied or orjson.dumps({"status": "SUCCESS", "result": self.name("answer")})
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
        assert self.world.dead.end([task_id]) == [message.encode()]
        return message

    def fail(self, task_id: str, state: str) -> None:
        payload = orjson.dumps({"status": state, "result": self.name("error")})
        if self.model.fail(task_id, payload):
            self.world.store(task_id, payload)

    def check_hit(self, claim: Claim) -> None:
        if claim.verdict == "hit":
            assert b"SUCCESS" in claim.result, "the cache served an error"
            assert claim.result == self.model.results[claim.task_id]

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
        """Who claimed a question, whose task is there."""
        pending = {question.pending for question in self.model.questions.values()}
        there = pending | self.model.jobs.keys()
        return [caller for caller in self.callers if caller.has_claimed and caller.task_id in there]

    @property
    def mortal(self) -> list[Actor]:
        """Who may die half-way: a revocation that does so leaves its callers waiting, which is tolerated."""
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
    numbers = {name: int(record.get(name, 0)) for name in ("generation", "lost", "hand_backs", "score")}
    return {"message": record.get("message"), "is_child": "child" in record, **numbers}


def expected(job: Job) -> dict[str, Any]:
    numbers = {name: getattr(job, name) for name in ("generation", "lost", "hand_backs", "score")}
    return {"message": job.message, "is_child": job.is_child, **numbers}


@pytest.mark.timeout(1800)  # what fails is reduced to its fewest steps, which takes minutes; else it takes seconds
def test_delivery_keeps_its_promises_in_any_order(worlds: dict[bool, World]) -> None:
    run_state_machine_as_test(lambda: Delivery(worlds), settings=stateful_settings())
