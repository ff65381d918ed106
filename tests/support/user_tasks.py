"""Tasks of a user's own on the project's Celery app, for canvas and links around predictions."""

from __future__ import annotations

from typing import Any

from config.celery import app
from config.redis import jobs_client


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
