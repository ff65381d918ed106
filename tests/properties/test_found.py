"""Faults that the random interleavings found, in their fewest steps."""

from __future__ import annotations

import orjson
import pytest

from dspyq.cache.claim import Run, Stored
from dspyq.delivery.records import Delivery, QueuedJob
from tests.properties.delivery_model import Asked
from tests.properties.delivery_world import FOREVER_SECONDS, World

QUESTION = Asked("question", is_claimed=True)


@pytest.fixture(params=[True, False], ids=["one Redis", "two Redis"])
def world(request: pytest.FixtureRequest, worlds: dict[bool, World]) -> World:
    return worlds[request.param]


def put(world: World, task_id: str) -> None:
    world.records.put(QueuedJob(task_id, "message", world.queue))


def take(world: World) -> Delivery:
    delivery = world.records.take(world.queue, FOREVER_SECONDS)
    assert delivery is not None
    return delivery


def run_of(delivery: Delivery) -> Run:
    return Run.of_delivery_tag(delivery.id, delivery.tag)


def stored(text: bytes) -> Stored:
    result = {"answer": text.decode(), "input_hash": QUESTION.input_hash}
    return Stored(orjson.dumps({"status": "SUCCESS", "result": result}), FOREVER_SECONDS, FOREVER_SECONDS, {})


def test_a_caller_that_joins_a_claim_without_a_job_puts_it(world: World) -> None:
    world.claims.claim(QUESTION, "one", priority=0)  # and its producer dies, or cannot send
    joined = world.claims.claim(QUESTION, "two", priority=0)
    assert (joined.verdict, joined.task_id) == ("urge", "one")


def test_a_revoked_run_that_looks_again_does_not_keep_its_question_claimed(world: World) -> None:
    world.claims.claim(QUESTION, "one", priority=0)
    put(world, "one")
    run = run_of(take(world))
    world.records.end(["one"])
    world.claims.release(QUESTION, Run("one"), {"failures": 1})
    world.claims.look_up(QUESTION, run, is_first_look=False)
    assert world.claims.claim(QUESTION, "two", priority=0).verdict == "claim"


def test_a_run_that_lost_its_job_stores_nothing(world: World) -> None:
    put(world, "one")
    run = run_of(take(world))
    world.records.end(["one"])
    assert not world.claims.answer(QUESTION, run, stored(b"stale"))
    assert world.held().results == {}


def test_a_run_of_an_ended_job_does_not_pass_for_one_of_the_same_id_put_again(world: World) -> None:
    put(world, "mine")
    old = take(world)
    world.records.end(["mine"])
    put(world, "mine")
    new = take(world)
    assert old.tag != new.tag
    assert not world.records.finish(old.tag)
    assert world.records.finish(new.tag)


def test_cancelling_one_caller_does_not_end_a_run_whose_question_was_invalidated_under_it(world: World) -> None:
    world.claims.claim(QUESTION, "one", priority=0)
    put(world, "one")
    world.claims.claim(QUESTION, "two", priority=0)
    world.claims.invalidate([QUESTION.input_hash])
    world.claims.look_up(QUESTION, run_of(take(world)), is_first_look=False)
    assert not world.claims.withdraw(QUESTION, "one"), "another caller waits"


def test_a_run_that_is_ended_after_redis_forgot_its_answer_is_no_hit(world: World) -> None:
    world.claims.claim(QUESTION, "one", priority=0)
    put(world, "one")
    world.claims.answer(QUESTION, run_of(take(world)), stored(b"answer"))  # and its worker dies before its ack
    world.forget("one")
    world.records.end(["one"])
    world.claims.release(QUESTION, Run("one"), {"failures": 1})
    world.store("one", b'{"status":"REVOKED"}')
    assert world.claims.claim(QUESTION, "two", priority=0).verdict == "claim"
