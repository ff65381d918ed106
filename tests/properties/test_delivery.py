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
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.properties.delivery_model import Asked
from tests.properties.delivery_steps import (
    MAX_DELIVERIES,
    QUEUE,
    VERSION_QUEUE,
    Actor,
    Caller,
    DeliverySteps,
    fenced_run,
    stored,
    to_the_end,
)
from tests.properties.delivery_world import FOREVER_SECONDS, World
from tests.properties.profiles import stateful_settings

steps_taken = st.sampled_from((to_the_end, 1, 2, 2, 3))
priorities = st.integers(0, 2)
questions = st.sampled_from(("color", "color", "number"))
deliveries = st.sampled_from((MAX_DELIVERIES, 1, 1))
endings = st.sampled_from(("answer", "fail", "park", "retry", "answer unserved", "set aside"))


class Delivery(DeliverySteps):
    """Callers, workers, a sweeper, an operator and a clock."""

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
        """The producer that claimed a question asks it again by the same id: a reply was lost, or its process died."""
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
    def pass_on(self, data: Any) -> None:
        """A worker has another version of a job's variant; the worker that takes here has its version."""
        run = data.draw(st.sampled_from(self.runs))
        given = self.model.give_back(run, "queue")
        assert self.world.records.pass_on(run.tag, VERSION_QUEUE) == given

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
        assert self.world.claims.look_up(asked, fenced, is_first_look=True).verdict == self.model.look(asked, run)[0]
        assert not self.world.claims.answer(asked, fenced, stored(b"stale"))
        assert not self.world.claims.release(asked, fenced, {"failures": 1})
        assert not self.world.records.give_back([run.tag], FOREVER_SECONDS)
        assert not self.world.records.pass_on(run.tag, VERSION_QUEUE)
        assert not self.world.records.set_aside(run.tag, "stale")
        assert self.world.records.renew([run.tag], FOREVER_SECONDS) == {run.tag}
        assert not self.world.records.finish(run.tag)
        assert self.world.held() == before, "a run that lost its job changed something"

    # The sweeper

    @rule(max_deliveries=deliveries)
    def sweep(self, max_deliveries: int) -> None:
        due, expired = self.model.sweep(max_deliveries)
        sweep = self.world.records.sweep(max_deliveries)
        assert (sweep.due, set(sweep.expired), set(sweep.unnotified)) == (due, expired, self.model.untold)
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
        """Processes under way end, every lease runs out, and healthy workers answer whatever there is."""
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
        self.check_records(held.records)
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


@pytest.mark.property
@pytest.mark.timeout(1800)  # what fails is reduced to its fewest steps, which takes minutes; else it takes seconds
def test_delivery_keeps_its_promises_in_any_order(worlds: dict[bool, World]) -> None:
    run_state_machine_as_test(lambda: Delivery(worlds), settings=stateful_settings())
