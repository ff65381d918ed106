"""Each form of a call is counted once: computed, and answered from a cache; answers in the same Redis, or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group

from dspyq.experiments import administration
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until
from tests.support.user_tasks import collect, shout

UNIT = "user"
TWO = ("one of two", "the other")


def many(question: str, **options: Any) -> None:
    from dspyq import predict

    for handle in predict.many([{"question": f"{question}, {each}"} for each in TWO], **options):
        handle.get(timeout=20)


def plain(question: str, **options: Any) -> None:
    from dspyq import predict

    predict.apply_async(kwargs={"question": question}, **options).get(timeout=20)


def awaited(question: str) -> None:
    from dspyq import predict

    asyncio.run(predict.ask({"question": question}, unit=UNIT))


def awaited_many(question: str) -> None:
    from dspyq import predict

    asyncio.run(predict.ask_many([{"question": f"{question}, {each}"} for each in TWO], unit=UNIT))


def awaited_handles(question: str) -> None:
    from dspyq import predict

    async def ask() -> None:
        handle = await predict.aapply_async(kwargs={"question": question}, unit=UNIT)
        await handle
        for each in await predict.amany([{"question": f"{question}, alone"}], unit=UNIT):
            await each

    asyncio.run(ask())


def signature(question: str) -> Any:
    from dspyq import predict

    return predict.s(question=question).set(unit=UNIT)


#: By name: the calls that it makes, of which each has a question of its own.
FORMS: dict[str, tuple[int, Callable[[str], Any]]] = {
    "apply_async": (1, lambda question: plain(question, unit=UNIT)),
    "a number as the unit": (1, lambda question: plain(question, unit=7)),
    "many": (2, lambda question: many(question, unit=UNIT)),
    "ask": (1, awaited),
    "ask_many": (2, awaited_many),
    "aapply_async and amany": (2, awaited_handles),
    "a countdown": (1, lambda question: plain(question, unit=UNIT, countdown=0.01)),
    "a link": (1, lambda question: plain(question, unit=UNIT, link=shout.s())),
    "a signature": (1, lambda question: signature(question).delay().get(timeout=20)),
    "a chain": (1, lambda question: chain(signature(question), shout.s())().get(timeout=20)),
    "a group": (2, lambda question: group(signature(f"{question}, {each}") for each in TWO)().get(timeout=20)),
    "a chord": (
        2,
        lambda question: chord([signature(f"{question}, {each}") for each in TWO])(collect.s()).get(timeout=20),
    ),
}


@pytest.fixture(params=["one Redis", "answers elsewhere"])
def counted(request, settings_file, configure, worker, fresh_redis_server):
    """Read the calls, the hits and the answers of both arms."""
    changes = with_experiment()
    if request.param != "one Redis":
        changes["result_url"] = fresh_redis_server().url
    path = settings_file(changes, challenger=0.5)
    program = configure(path).programs["qa"]
    state, table = administration.start(program), administration.plan_of(program).table
    worker(path, env={"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'})

    def read():
        process_tally().flush()
        readings = read_sums(state, table, today=20_000).values()

        def total(metric, side):
            return int(sum(sum(getattr(each.metrics[metric].by_unit, side)) for each in readings))

        sums = total("call.hit", "denominators"), total("call.hit", "numerators"), total("answer.cost", "denominators")
        return dict(zip(("calls", "hits", "answers"), sums, strict=True))

    return read


def test_each_form_of_a_call_is_counted_once(counted):
    expected = {"calls": 0, "hits": 0, "answers": 0}
    for name, (calls, ask) in FORMS.items():
        for repetition in range(3):  # computed; from Redis, or from memory already; from memory, where it can be
            ask(f"asked by {name}")
            expected["calls"] += calls
            expected["answers" if repetition == 0 else "hits"] += calls
            # Where answers live elsewhere, one is there a moment before it is counted.
            wait_until(lambda: counted()["calls"] >= expected["calls"], 60, f"{name} to be counted")
            assert counted() == expected, (name, repetition)
