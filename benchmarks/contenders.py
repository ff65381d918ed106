"""The contenders, with the start and the call of each worker. All answer with the same DSPy program on one Redis."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_CONCURRENCY = "200"


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True)
class Contender:
    """A task queue.

    Attributes:
        name: What the table calls it.
        worker_command: Starts its worker as its manual does, with 200 predictions at once.
        ask: The function of ``benchmarks.subjects`` that sends questions and returns the keys of their results.
    """

    name: str
    worker_command: tuple[str, ...]
    ask: str


DSPYQ = Contender(
    name="dspyq",
    worker_command=(_script("celery"), "-A", "dspyq", "worker"),
    ask="asking:dspyq",
)
CELERY = Contender(
    name="plain Celery",
    worker_command=(_script("celery"), "-A", "benchmarks.subjects.celery_worker", "worker", "-c", _CONCURRENCY),
    ask="asking:plain_celery",
)
DRAMATIQ = Contender(
    name="dramatiq",
    worker_command=(
        _script("dramatiq"), "benchmarks.subjects.dramatiq_worker", "--processes", "1", "--threads", _CONCURRENCY,
    ),
    ask="asking:dramatiq",
)  # fmt: skip
ARQ = Contender(
    name="arq",
    worker_command=(_script("arq"), "benchmarks.subjects.arq_worker.WorkerSettings"),
    ask="asking:arq",
)
