"""A Redis that is added to several under load, and one that is drained, while workers are replaced one by one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import SPINES_VARIABLE, Stage
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer

_SPINES = 4


def added(scale: Scale) -> Outcome:
    """Add a fourth Redis: callers have the new list from the start, and workers get it one after another."""
    return _changed(scale, "a Redis added to three", former=_SPINES - 1, current=_SPINES)


def drained(scale: Scale) -> Outcome:
    """Leave out the fourth Redis as ``added`` adds it, with jobs on it; in the end it has none."""
    return _changed(scale, "a Redis of four drained", former=_SPINES, current=_SPINES - 1)


def _changed(scale: Scale, fault: str, *, former: int, current: int) -> Outcome:
    os.environ[SPINES_VARIABLE] = str(_SPINES)
    with Stage(model_seconds=0.2, concurrency=8) as stage:
        servers = stage.jobs.servers
        before = {"DSPYQ_REDIS_URLS": _urls(servers[:former])}
        after = {"DSPYQ_REDIS_URLS": _urls(servers[:current]), "DSPYQ_FORMER_REDIS_URLS": _urls(servers[:former])}
        os.environ.update(after)  # read at the first call
        put = _put_by_an_old_process(stage, before, scale.pick(quick=30, full=100))
        workers = [stage.worker(before, waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        stage.ask(put)
        with stage.load(scale.pick(quick=15, full=20)) as load:
            time.sleep(scale.pick(quick=1, full=10))
            for worker in workers:
                stage.worker(after)
                worker.terminate(30)
            changed_at = time.time()
            time.sleep(scale.pick(quick=1, full=10))
        stage.wait(60)
        remarks = [f"{count} callers were refused: {text}" for text, count in load.refusals.items()]
        left = [name for server in servers[current:] for name in server.keys("dspy:v1:job:*")]
        remarks += [f"the drained Redis has {len(left)} jobs"] if left else []
        hit = [call for call in stage.calls if call.asked_at < changed_at < (call.answered_at or 0)]
        return stage.outcome(fault, stage.recovery_from(changed_at, hit), remarks=remarks)


def _put_by_an_old_process(stage: Stage, env: dict[str, str], count: int) -> list[str]:
    """Have a process with the old list ask questions, which wait then; return them."""
    from tests.support.producer_process import Producer

    def ask(questions: list[str]) -> int:
        from dspyq import predict

        return len(predict.many([{"question": each} for each in questions]))

    questions = stage.questions(count, "put before")
    producer = Producer(ask, {"questions": questions}, stage.environment(env))
    try:
        producer.result(60)
    finally:
        producer.close()
    wait_until(lambda: len(stage.redis.keys("dspy:v1:job:*")) == count, 30, "the jobs")
    return questions


def _urls(servers: Sequence[RedisServer]) -> str:
    return json.dumps([server.url for server in servers])
