"""A run of a task: what its delivery states, and what its parts leave for each other on Celery's request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from celery.app.task import Context

from dspyq.core.runtime import Runtime

#: The delivery among the properties of a message.
DELIVERY_PROPERTY = "dspyq_delivery"
_ATTRIBUTE = "dspyq_run"

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class DeliveryProperties:
    """The delivery of a job to a run, among its message's properties.

    Attributes:
        tag: The run's name, Celery's delivery tag; empty for a call without a message.
        run_count: Number of runs of the job, including this one.
        is_given_up: Whether it has waited too long for a worker of its version.
        claim_seen_at: The monotonic second at which its question was claimed for it and not answered; None otherwise.
        disowned_by: The batch that its message names and that does not pay for it any more; empty for none.
        is_streamed: Whether a caller who joined it has it streamed.
        runtime: The part of the runtime that is its spine's; None where one Redis holds all jobs.
    """

    tag: str = ""
    run_count: int = 1
    is_given_up: bool = False
    claim_seen_at: float | None = None
    disowned_by: str = ""
    is_streamed: bool = False
    runtime: Runtime | None = None

    def write(self, message: dict[str, Any]) -> None:
        """Make a message the one of this run."""
        properties = message["properties"]
        properties["delivery_tag"] = self.tag
        properties[DELIVERY_PROPERTY] = self
        properties["delivery_info"]["redelivered"] = self.run_count > 1


NOT_DELIVERED = DeliveryProperties()


def delivery_of(request: Context | None) -> DeliveryProperties:
    """Return the delivery of a task's request; ``NOT_DELIVERED`` for one that no worker took from a queue."""
    properties = getattr(request, "properties", None) or {}
    found = properties.get(DELIVERY_PROPERTY)
    return found if isinstance(found, DeliveryProperties) else NOT_DELIVERED


class SpentByRun(TypedDict):
    """Usage and cost of a run that failed, as its stored result states them."""

    cost_usd: float | None
    prompt_tokens: int
    completion_tokens: int
    duration_seconds: float


@dataclass(slots=True)
class TaskRun:
    """State of one run, from before its body until Celery is done with it.

    Attributes:
        began_at: The monotonic second at which it began.
        is_answer_stored: Whether its answer is stored already, before what follows from it is sent.
        unscored: Its answer and its inputs, if its program has an experiment with scores; else empty.
        awaits_scores: Whether the stored answer waits for them.
        spent: What it had spent when it failed; None while it has not.
    """

    began_at: float = field(default_factory=time.monotonic)
    is_answer_stored: bool = False
    unscored: bytes = b""
    awaits_scores: bool = False
    spent: SpentByRun | None = None
    _parts: dict[type[Any], Any] = field(default_factory=dict)

    def keep(self, part: object) -> None:
        """Keep an object of a room above, one for each class."""
        self._parts[type(part)] = part

    def find(self, kind: type[Part]) -> Part | None:
        """Return the kept object of a class."""
        found: Part | None = self._parts.get(kind)
        return found


def begin_task_run(request: Context) -> TaskRun:
    """Begin a run; ``task_run`` finds it from here on."""
    run = TaskRun()
    setattr(request, _ATTRIBUTE, run)
    return run


def task_run(request: Context | None) -> TaskRun:
    """Return a request's run; one without any state where its body has not begun."""
    found = getattr(request, _ATTRIBUTE, None)
    return found if isinstance(found, TaskRun) else TaskRun()
