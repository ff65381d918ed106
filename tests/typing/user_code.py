"""A user's file: mypy --strict and pyright find nothing in it, and infer these types."""

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_type

from dspyq import Metadata, Prediction, predict
from dspyq.client.result import PredictionResult
from dspyq.errors import DspyqError
from dspyq.testing import Asked, Delayed, answers


def ask(question: str) -> Prediction:
    """Ask and wait."""
    job = predict.delay(question=question)
    assert_type(job, PredictionResult)
    assert_type(job.get(timeout=30), Prediction)
    return job.get()


def ask_with_options(question: str, user: str) -> float:
    """Ask and say how."""
    job = predict.apply_async(kwargs={"question": question}, program="qa", unit=user, priority=3, countdown=5)
    assert_type(job, PredictionResult)
    assert_type(job.cancel(), bool)
    prediction = job.get()
    assert_type(prediction.metadata, Metadata)
    assert_type(prediction.metadata.cost_usd, float | None)
    return prediction.metadata.cost_usd or 0.0


def ask_by_the_hundred(questions: Sequence[str]) -> list[PredictionResult]:
    """Ask for many."""
    jobs = predict.many([{"question": question} for question in questions], program="qa", priority=9)
    assert_type(jobs, list[PredictionResult])
    return jobs


def find(task_id: str) -> str:
    """Look a job up by its id."""
    job = predict.AsyncResult(task_id)
    assert_type(job, PredictionResult)
    text: str = job.get().answer
    return text


async def ask_in_an_event_loop(question: str) -> None:
    """Ask in an event loop."""
    assert_type(await predict.ask(question=question), Prediction)
    assert_type(await predict.ask({"question": question}, program="qa"), Prediction)
    assert_type(await predict.ask_many([{"question": question}]), list[Prediction])
    assert_type(
        await predict.ask_many([{"question": question}], return_exceptions=True), list[Prediction | BaseException]
    )
    job = await predict.adelay(question=question)
    assert_type(job, PredictionResult)
    assert_type(await job, Prediction)
    assert_type(await predict.aapply_async(kwargs={"question": question}), PredictionResult)
    assert_type(await predict.amany([{"question": question}]), list[PredictionResult])


def test_ask(dspyq_answers: Callable[..., list[Asked]]) -> None:
    """Answer in tests."""
    asked = dspyq_answers({"answer": "42"})
    with answers([{"answer": "42"}, Delayed(DspyqError("late"), seconds=3)]) as others:
        assert_type(others, list[Asked])
    with answers(lambda inputs: {"answer": str(inputs["question"])}):
        asyncio.run(ask_in_an_event_loop("q"))
    assert asked[0].inputs == {"question": "q"}
