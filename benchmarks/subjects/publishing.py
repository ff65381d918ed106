"""Sends new questions, beside what it takes the others to send as many, all in one thread of one process."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from benchmarks.repetition import alternate, round_trips_per_call, seconds_per_call
from benchmarks.subjects import arq_worker, dramatiq_worker, plain
from benchmarks.subjects.plain import new_question
from dspyq import predict


def seconds_of_delay(calls: int) -> dict[str, float]:
    """Return the seconds that a ``predict.delay`` of a new question takes, and those of the processor, ``cpu``."""
    predict.delay(question=new_question())  # connects
    started = time.process_time()
    seconds = seconds_per_call(calls, lambda: predict.delay(question=new_question()))()
    return {"seconds": seconds, "cpu": (time.process_time() - started) / calls}


def measure(rows: int | None, calls: int, rounds: int) -> dict[str, Any]:
    """Measure sending.

    Args:
        rows: The rows of each call of ``predict.many``; None measures ``predict.delay``.
        calls: The calls of a block of everybody else, and of ``predict.delay``.
        rounds: The blocks of each.

    Returns:
        By contender, the seconds of a question in each round; and ``round_trips`` of one call of dspyq and of Celery.
    """

    def many() -> None:
        predict.many({"question": new_question()} for _ in range(rows or 0))

    def delay() -> None:
        predict.delay(question=new_question())

    def dramatiq() -> None:
        dramatiq_worker.answer.send(new_question())

    with asyncio.Runner() as loop:
        client = arq_worker.connect()

        async def arq() -> None:
            for _ in range(calls):
                await client.enqueue_job("answer", new_question())

        ours = many if rows else delay
        ours_calls = 1 if rows else calls
        for connect in (ours, dramatiq):
            connect()
        loop.run(arq())
        seconds = alternate(
            rounds,
            {
                "dspyq": seconds_per_call(ours_calls, ours),
                "plain Celery": plain.seconds_per_delay(calls),
                "dramatiq": seconds_per_call(calls, dramatiq),
                "arq": seconds_per_call(1, lambda: loop.run(arq())),
            },
        )
        loop.run(client.aclose())
    seconds["dspyq"] = [each / (rows or 1) for each in seconds["dspyq"]]
    seconds["arq"] = [each / calls for each in seconds["arq"]]
    url = os.environ["DSPYQ_REDIS_URL"]
    round_trips = {
        "dspyq": round_trips_per_call(url, ours_calls, ours),
        "plain Celery": round_trips_per_call(url, calls, plain.delay),
    }
    return {"seconds": seconds, "round_trips": round_trips}
