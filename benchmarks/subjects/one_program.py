"""Costs of a producer's question, and questions for every variant of many programs."""

from __future__ import annotations

import time
from statistics import median

from dspyq import predict

_ROUNDS = 5
_WAIT_SECONDS = 120.0


def producer_seconds(calls: int, label: str) -> float:
    """Return the processor time that this process takes to ask a new question."""
    predict.apply_async(kwargs={"question": f"{label}, first"}, program="qa")
    found = []
    for _ in range(_ROUNDS):
        questions = [f"{label}, number {len(found) * calls + number}" for number in range(calls)]
        began = time.process_time()
        for question in questions:
            predict.apply_async(kwargs={"question": question}, program="qa")
        found.append((time.process_time() - began) / calls)
    return median(found)


def ask_each(programs: int, variants: list[str], label: str) -> None:
    """Ask each variant of each program once, and wait for the answers."""
    jobs = [
        predict.apply_async(kwargs={"question": label}, program=program, variant=variant)
        for program in ("qa", *(f"p{number:03}" for number in range(programs - 1)))
        for variant in variants
    ]
    for job in jobs:
        job.get(timeout=_WAIT_SECONDS)
