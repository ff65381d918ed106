"""Tasks of a user's own that say their input wherever a task can say something."""

from __future__ import annotations

import warnings
from typing import Any

from dspyq.celery_app.application import app


@app.task
def echo(text: str) -> str:
    """Return the input, after printing it and warning of it."""
    print(text)  # noqa: T201 - what it is for
    warnings.warn(text, stacklevel=1)
    return text


@app.task
def fail(text: str) -> None:
    """Raise the input, on account of another exception with it."""
    try:
        {}[text]
    except KeyError as error:
        raise ValueError(text) from error


@app.task(bind=True, max_retries=1)
def retry(self: Any, text: str) -> None:
    """Raise the input, and once more."""
    raise self.retry(exc=LookupError(text), countdown=0)


@app.task
def return_what_is_not_json(text: str) -> object:
    """Return the input in something that no result can hold."""
    return {text: object()}
