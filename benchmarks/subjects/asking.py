"""Sends each contender's worker new questions, and says under which keys Redis will hold the results."""

from __future__ import annotations

import asyncio

# Each function imports its own contender only: the others' connections and settings do not belong in its process.
# ruff: noqa: PLC0415


def questions(count: int, label: str) -> list[str]:
    """Return questions that no other label has."""
    return [f"What is {label} number {number}?" for number in range(count)]


def dspyq(count: int, label: str, tenant: str = "") -> list[str]:
    """Ask dspyq."""
    from dspyq import predict

    handles = predict.many(({"question": question} for question in questions(count, label)), tenant=tenant or None)
    return [f"celery-task-meta-{handle.id}" for handle in handles]


def plain_celery(count: int, label: str) -> list[str]:
    """Ask plain Celery."""
    from benchmarks.subjects.celery_worker import answer

    return [f"celery-task-meta-{answer.delay(question).id}" for question in questions(count, label)]


def dramatiq(count: int, label: str) -> list[str]:
    """Ask dramatiq."""
    from benchmarks.subjects.dramatiq_worker import answer, backend

    return [backend.build_message_key(answer.send(question)) for question in questions(count, label)]


def arq(count: int, label: str) -> list[str]:
    """Ask arq."""
    from arq.constants import result_key_prefix

    from benchmarks.subjects.arq_worker import connect

    async def ask() -> list[str]:
        client = connect()
        jobs = [await client.enqueue_job("answer", question) for question in questions(count, label)]
        await client.aclose()
        return [f"{result_key_prefix}{job.job_id}" for job in jobs if job is not None]

    return asyncio.run(ask())


def ask_one(question: str) -> list[str]:
    """Ask dspyq one question."""
    from dspyq import predict

    return [f"celery-task-meta-{predict.delay(question=question).id}"]
