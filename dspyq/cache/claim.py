"""A claim on a question, a run that has one, and what becomes of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntFlag
from typing import Literal, NamedTuple, Protocol

ClaimVerdict = Literal["hit", "join", "queued", "urge", "claim", "lost", "damaged", "stale", "moved"]
#: Outcome of a release: a ``shared`` run continues, because others wait for it.
Release = Literal["lost", "ended", "shared"]


class Claim(NamedTuple):
    """Result of looking up a question's alias.

    Attributes:
        verdict: ``hit``: answered; ``join``: being answered; ``queued``: as join, for a worker, by a job that waits for
            its turn; ``urge``: as join, but this call is more urgent; ``claim``: unanswered, and now claimed for this
            caller; ``damaged``: another program wrote to its alias; ``stale``: the program's experiment has another
            state than gave the call its variant; ``moved``: as ``claim``, but the question is another Redis's, and
            nothing was claimed.
        task_id: The task that answered, answers, or will answer; of a stale call the version of that state.
        result: The stored result of a hit, as Celery wrote it; the failure of a damaged one; the state itself.
        milliseconds_left: Remaining lifetime of a hit.
        batch: The batch that claimed a question not yet answered; its message is put for that batch. Of a hit,
            ``counted`` where its experiment has counted the call: it was noted for the run that has answered since, and
            the reply of that look-up was lost.
    """

    verdict: ClaimVerdict
    task_id: str
    result: bytes = b""
    milliseconds_left: int = 0
    batch: str = ""


class Run(NamedTuple):
    """A task's run; it may change state in Redis only while it holds the job.

    Attributes:
        task_id: The task.
        fence: The number of the run, from its delivery tag; empty for a run without a job record.
        is_repeated: Whether the job was taken before.
    """

    task_id: str
    fence: str = ""
    is_repeated: bool = False

    @classmethod
    def of_delivery_tag(cls, task_id: str, delivery_tag: str | None, run_count: int = 1) -> Run:
        """Return the run that a delivery tag, ``<task id>:<fence>``, stands for."""
        owner, _, fence = (delivery_tag or "").rpartition(":")
        return cls(task_id, fence if owner == task_id else "", run_count > 1)


class Kept(IntFlag):
    """Outcome of storing an answer: lost because another run owns the job, stored, or stored and the job ended.

    ``UNSCORED`` is added where it waits for an experiment's scores.
    """

    LOST = 0
    STORED = 1
    ENDED = 2
    UNSCORED = 4


class NewQuestions(NamedTuple):
    """Questions of one queue that probably were not asked yet.

    Attributes:
        queue: The variant's queue.
        seen: The version of the experiment's state that gave them their variant, as of ``Request``.
        tenant: The tenant of their calls; empty for none.
        input_hashes: Their hashes.
        jobs: For each the task id and the message of the job that would answer it.
    """

    queue: str
    seen: str
    tenant: str
    input_hashes: list[str]
    jobs: list[str | bytes]


class AnsweredRequest(Protocol):
    """Minimal view of a request, as needed to finish a run."""

    @property
    def input_hash(self) -> str:
        """The hash that identifies the question."""

    @property
    def queue(self) -> str:
        """The variant's queue, whose statistics count."""


class Stored(NamedTuple):
    """An answer to store.

    Attributes:
        payload: The result as Celery stores it.
        serve_seconds: Time for which the cache serves it; 0 for not at all.
        keep_seconds: Time for which it can be fetched by its task id.
        counts: What the variant's statistics add.
        cost_nano_usd: What it cost, which each later hit saves; 0 where that is unknown.
        is_last: Whether its job has nothing else to do: no link, chain or chord.
        time_ms: How long its program ran.
        tokens: What it used.
        is_fallback: Whether it is not its variant's own answer.
        row: What an experiment keeps of it for exports; empty for nothing.
        found: ``redis`` or ``joined`` where it is a copy of another task's answer; empty for one that its run computed.
        unscored: It and its inputs, for the scores of an experiment; empty for none.
        tenant: The tenant that it belongs to; empty for none.
        is_own_id: Whether its task's id is not the question's, so that callers may wait for it on other spines.
    """

    payload: bytes
    serve_seconds: int
    keep_seconds: int
    counts: Mapping[str, int]
    cost_nano_usd: int = 0
    is_last: bool = False
    time_ms: int = 0
    tokens: int = 0
    is_fallback: bool = False
    found: str = ""
    unscored: bytes = b""
    row: bytes = b""
    tenant: str = ""
    is_own_id: bool = False

    @property
    def marks(self) -> dict[str, str]:
        """The arguments of ``answer.lua`` that state what kind of answer it is."""
        return {"is_fallback": "1" if self.is_fallback else "", "found": self.found}


def asked_by(asked: Iterable[tuple[AnsweredRequest, str]]) -> list[str]:
    """Return of each call its task and the id under which an experiment counts it, for scripts that take calls back."""
    return [part for request, task_id in asked for part in (task_id, getattr(request, "noted_as", ""))]
