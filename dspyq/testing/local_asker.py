"""The asker of tests, which answers every form of a call of ``predict`` in the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from celery import Task, states
from celery.utils import uuid
from pydantic import JsonValue

from dspyq.celery_app.application import process_app
from dspyq.client.asking import MOST_URGENT, replace_asker
from dspyq.client.predict import install_body, predict
from dspyq.config.codec import Encoded
from dspyq.prediction.prediction import Metadata, to_json
from dspyq.prediction.request import Request
from dspyq.testing.local_result import LocalJob, LocalResult


@dataclass
class Asked:
    """One call of ``predict``.

    Attributes:
        inputs: The inputs as JSON values, defaults included.
        program: The program's name.
        variant: The variant that the unit, or the caller, chose.
        unit: The unit that the caller stated; None without one.
        request_id: The caller's id of the call, or a generated one.
        refresh: Whether the call refuses cached answers.
        priority: The turn, 0 (most urgent) to 9.
        task_id: The id of the job, as ``job.id``.
        is_cancelled: Whether the job was cancelled before it was done.
    """

    inputs: dict[str, JsonValue]
    program: str
    variant: str
    unit: str | None
    request_id: str
    refresh: bool
    priority: int
    task_id: str
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Note that the job was cancelled."""
        self.is_cancelled = True


class LocalOutcome(NamedTuple):
    """The answer to a question.

    Attributes:
        given: The outputs, or the job's error.
        seconds: Duration of the job.
        sleeps: Whether waiting takes real time.
    """

    given: Encoded | Exception
    seconds: float = 0.0
    sleeps: bool = False


class LocalAsker:
    """Answers each question by a function, at once, and records the calls.

    Args:
        answer: Function that answers a question. Its errors are the test's own and leave the call of ``predict``.
    """

    is_local = True

    def __init__(self, answer: Callable[[Request], LocalOutcome]) -> None:
        self._answer = answer
        self._jobs: dict[str, LocalJob] = {}
        self._running: dict[str, tuple[Request, LocalOutcome]] = {}
        self.asked: list[Asked] = []

    def find(self, _: Request) -> None:
        """Return None: nothing is cached, so that every call is counted."""

    def ask(self, request: Request, options: Mapping[str, Any]) -> LocalResult:
        """Answer a question, then run its links."""
        task_id = options.get("task_id") or uuid()
        asked = _asked(request, task_id, options.get("priority", MOST_URGENT))
        self.asked.append(asked)
        outcome = self._answer(request)
        job = LocalJob(None, time.monotonic() + outcome.seconds, outcome.sleeps, asked.cancel)
        job.payload = self._run(request, outcome, task_id, options)
        self._jobs[task_id] = job
        handle = LocalResult.of_job(job, task_id)
        handle.request = request
        return handle

    def ask_many(
        self, requests: Sequence[Request], priority: int, task_ids: Sequence[str | None] | None = None
    ) -> list[Any]:
        """Answer questions, in their order."""
        ids = task_ids or [None] * len(requests)
        return [
            self.ask(request, {"priority": priority, "task_id": task_id})
            for request, task_id in zip(requests, ids, strict=True)
        ]

    def result(self, task_id: str, **_: Any) -> LocalResult:
        """Return a handle of a job of this test; an unknown id stays pending."""
        return LocalResult.of_job(self._jobs.get(task_id, LocalJob()), task_id)

    @contextmanager
    def installed(self) -> Iterator[LocalAsker]:
        """Answer all calls of this process within a block, and run Celery's canvas in this process."""
        app = process_app()
        asker, body, is_eager = replace_asker(self), install_body(self._body), app.conf.task_always_eager
        app.conf.task_always_eager = True
        try:
            yield self
        finally:
            app.conf.task_always_eager = is_eager
            install_body(body)
            replace_asker(asker)

    def _run(self, request: Request, outcome: LocalOutcome, task_id: str, options: Mapping[str, Any]) -> bytes:
        """Run the task as Celery does, with its links and signals; return the result that a worker would store."""
        self._running[task_id] = request, outcome
        links = {name: options[name] for name in ("link", "link_error", "headers") if name in options}
        try:
            ended = predict.run_here(request, task_id=task_id, throw=False, **links)
        finally:
            del self._running[task_id]
        result = ended.result
        if ended.state != states.SUCCESS:
            result = process_app().backend.prepare_exception(result, "json")
        meta = {
            "status": ended.state,
            "result": result,
            "traceback": ended.traceback,
            "children": [],
            "input_hash": request.input_hash,
        }
        return orjson.dumps(meta)

    def _body(self, task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to the question, in place of a worker's program."""
        del inputs
        request, outcome = self._running[task.request.id]
        if isinstance(outcome.given, Exception):
            raise outcome.given
        plain, exact = outcome.given
        return to_json(plain, _metadata(request, outcome), exact)


def _asked(request: Request, task_id: str, priority: int) -> Asked:
    return Asked(
        inputs=request.inputs,
        program=request.program.name,
        variant=request.variant.name,
        unit=request.unit,
        request_id=request.request_id,
        refresh=request.refresh,
        priority=priority,
        task_id=task_id,
    )


def _metadata(request: Request, outcome: LocalOutcome) -> Metadata:
    return Metadata(
        program=request.program.name,
        variant=request.variant.name,
        model=request.variant.model.model,
        input_hash=request.input_hash,
        request_id=request.request_id,
        timestamp=time.time(),
        duration_seconds=outcome.seconds,
    )
