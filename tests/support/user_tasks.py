"""Tasks of a user's own on the project's Celery app, for canvas and links around predictions."""

from __future__ import annotations

import gc
import os
from typing import Any

from dspyq.celery_app.application import app
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.transport import Channel
from dspyq.store.clients import jobs_client

if "TEST_FAILPOINTS" in os.environ:
    import tests.support.failpoints  # noqa: F401 - may end this process


@app.task
def make_question(topic: str) -> dict[str, str]:
    """Return the inputs of a prediction."""
    return {"question": f"What of {topic}?"}


@app.task
def shout(prediction: dict[str, Any]) -> str:
    """Return a prediction's answer in capitals."""
    return str(prediction["outputs"]["answer"]).upper()


@app.task
def collect(predictions: list[dict[str, Any]]) -> list[str]:
    """Return the answers of many predictions."""
    return [prediction["outputs"]["answer"] for prediction in predictions]


@app.task
def note(prediction: dict[str, Any]) -> None:
    """Note that a link fired."""
    jobs_client().rpush("noted", prediction["outputs"]["answer"])


@app.task
def note_error(task_id: str) -> None:
    """Note that an error link fired."""
    jobs_client().rpush("noted-errors", task_id)


@app.task
def note_many(predictions: list[dict[str, Any]]) -> None:
    """Note that a chord reached its body."""
    jobs_client().rpush("noted-many", len(predictions))


@app.task
def pause(queue: str) -> None:
    """Pause a queue on the worker that runs this."""
    process_pauses().pause(queue)


@app.task
def resume(queue: str) -> None:
    """Resume a queue on the worker that runs this."""
    process_pauses().resume(queue)


@app.task
def deafen() -> None:
    """Leave this worker alive but deaf for good: no channel asks for anything more."""
    Channel._brpop_start = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001 - as below


@app.task
def break_consumer() -> None:
    """Leave this worker alive but deaf: its channels ask for nothing more; channels made later do."""
    gc.unfreeze()  # a worker's start hides what there is from this list
    for each in gc.get_objects():
        if isinstance(each, Channel):
            each._brpop_start = lambda *_: None  # noqa: SLF001 - as a fault of kombu's would


@app.task
def pass_on(given: Any, mine: Any) -> list[Any]:
    """Return what the task before returned, a prediction by its answer, and an argument of its own."""
    is_prediction = isinstance(given, dict) and "outputs" in given
    return [given["outputs"]["answer"] if is_prediction else given, mine]
