"""Producers that die."""

from __future__ import annotations

import time

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.producer_process import Producer


def killed_after_claim(scale: Scale) -> Outcome:
    """Kill producers between claim and publish.

    Half of their questions are asked again at once: who joins sends the message that nobody has sent. The others are
    asked again only once the claim, which has no job, has lapsed: whoever asks then claims anew.
    """
    claim_seconds = scale.pick(quick=2, full=30)
    producers = scale.pick(quick=2, full=10)
    with Stage(settings={"delivery": {"claim_timeout_seconds": claim_seconds}}) as stage:
        stage.worker()
        questions = stage.questions(producers)
        env = stage.environment({"TEST_FAILPOINT": "after-claim"})
        endless: list[str] = []
        for question in questions:
            producer = Producer(_ask, {"question": question}, env)
            producer.process.wait(30)
            producer.close()
            endless += _endless_claims(stage)
            if question in questions[::2]:
                stage.ask_and_get([question], 10)
        stage.wait(10)
        deaths = stage.deaths()
        remarks = [] if len(deaths) == producers else [f"only {len(deaths)} producers were killed"]
        hit_at = {question: death.at_seconds for question, death in zip(questions, deaths, strict=True)}
        for question in questions[1::2]:
            time.sleep(max(0.0, hit_at[question] + claim_seconds - time.time()))
            stage.ask_and_get([question], 10)
        stage.wait(15)
        recovery = [call.answered_at - hit_at[call.question] for call in stage.calls if call.answered_at]
        return stage.outcome(
            f"producer killed between claim and publish ({producers}×)",
            recovery,
            bound_seconds=claim_seconds + 5,
            remarks=[*remarks, *endless],
        )


def _endless_claims(stage: Stage) -> list[str]:
    """Return a remark for each claim that neither ends by itself nor has a job, whose end it would share."""
    with stage.redis.client() as client:
        claims = [name for name in client.keys("dspy:v1:prediction:*") if client.ttl(name) == -1]
        owners = {name: client.hget(name, "pending") for name in claims}
        return [
            f"{name} has no end"
            for name, owner in owners.items()
            if owner and not client.exists(f"dspy:v1:job:{owner}")
        ]


def _ask(question: str) -> None:
    from celery.signals import before_task_publish

    from dspyq import predict
    from tests.support import failpoints

    del failpoints
    before_task_publish.connect(lambda **_: None, weak=False)  # claim and put are two trips where Celery publishes
    predict.delay(question=question)
