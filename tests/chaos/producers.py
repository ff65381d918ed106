"""Producers that die."""

from __future__ import annotations

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.producer_process import Producer


def killed_after_claim(scale: Scale) -> Outcome:
    """Kill producers between claim and publish; others have joined them at once, and ask again later."""
    claim_seconds = scale.pick(quick=3, full=30)
    producers = scale.pick(quick=1, full=5)
    with Stage(settings={"delivery": {"claim_timeout_seconds": claim_seconds}}) as stage:
        stage.worker()
        questions = stage.questions(producers)
        env = stage.environment({"TEST_FAILPOINT": "after-claim"})
        for question in questions:
            producer = Producer(_ask, {"question": question}, env)
            producer.process.wait(30)
            producer.close()
        deaths = stage.deaths()
        joiners = [call for question in questions for call in stage.ask_and_get([question], claim_seconds + 15)]
        stage.wait(claim_seconds + 1, joiners)
        later = [call for question in questions for call in stage.ask_and_get([question], 10)]
        stage.wait(15)
        hit_at = {question: death.at_seconds for question, death in zip(questions, deaths, strict=True)}
        recovery = [call.answered_at - hit_at[call.question] for call in (*joiners, *later) if call.answered_at]
        remarks = [] if len(deaths) == producers else [f"only {len(deaths)} producers were killed"]
        return stage.outcome(
            f"producer killed between claim and publish ({producers}×)",
            recovery,
            bound_seconds=claim_seconds + 5,
            remarks=remarks,
        )


def _ask(question: str) -> None:
    from producer import predict
    from tests.support import failpoints

    del failpoints
    predict.delay(question=question)
