"""A Redis that is added to several under load, and one that is drained, while workers are replaced one by one.

Questions are asked by plain calls, and by calls with an id of their own: one stated, one delayed, one in a chain.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import uuid
from collections.abc import Sequence

from tests.chaos.callers import Call
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
        own = OwnIds(stage, scale.random)
        workers = [stage.worker(before, waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        stage.ask(put)
        own.start()
        with stage.load(scale.pick(quick=15, full=20)) as load:
            time.sleep(scale.pick(quick=1, full=10))
            for worker in workers:
                stage.worker(after)
                worker.terminate(30)
            changed_at = time.time()
            time.sleep(scale.pick(quick=1, full=10))
        own.end()
        stage.wait(60)
        remarks = [f"{count} callers were refused: {text}" for text, count in load.refusals.items()]
        left = [name for server in servers[current:] for name in server.keys("dspy:v1:job:*")]
        remarks += [f"the drained Redis has {len(left)} jobs"] if left else []
        hit = [call for call in stage.calls if call.asked_at < changed_at < (call.answered_at or 0)]
        return stage.outcome(fault, stage.recovery_from(changed_at, hit), remarks=remarks)


class OwnIds(threading.Thread):
    """Callers with ids of their own; plain ones ask half of the same questions just before them or just after."""

    _PAUSE_SECONDS = 0.3

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._random = chance
        self._is_ending = threading.Event()

    def run(self) -> None:
        """Ask."""
        while not self._is_ending.wait(self._PAUSE_SECONDS):
            stated, delayed, first, second = questions = self._stage.questions(4, "own id")
            self._random.shuffle(questions)
            self._ask_plainly(questions[:1])
            self._stage.ask([stated], task_id=str(uuid.UUID(int=self._random.getrandbits(128))))
            self._stage.ask([delayed], countdown=self._random.random())
            self._chain(first, second)
            self._ask_plainly(questions[1:2])

    def end(self) -> None:
        """Ask no more."""
        self._is_ending.set()
        self.join()

    def _ask_plainly(self, questions: list[str]) -> None:
        for question in questions:
            self._stage.ask([question])

    def _chain(self, *questions: str) -> None:
        from celery import chain

        from dspyq import predict

        asked_at = time.time()
        last = chain(predict.si(question=each) for each in questions).apply_async()
        for question, handle in zip(questions, (last.parent, last), strict=True):
            self._stage.listen(Call(question, predict.AsyncResult(handle.id), asked_at))


def _put_by_an_old_process(stage: Stage, env: dict[str, str], count: int) -> list[str]:
    """Have a process with the old list ask questions, which wait then, half of them by ids of its own; return them."""
    from tests.support.producer_process import Producer

    def ask(questions: list[str]) -> int:
        from dspyq import predict

        half = len(questions) // 2
        for each in questions[:half]:
            predict.apply_async(kwargs={"question": each}, task_id=f"put before: {each}")
        return len(predict.many([{"question": each} for each in questions[half:]]))

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
