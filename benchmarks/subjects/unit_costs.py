"""Costs of a new question, read by the producer that asks it: of Redis, of the worker and of itself."""

from __future__ import annotations

import time
from statistics import median

import redis

from benchmarks.harness import scheduled_seconds
from dspyq import predict
from dspyq.store.clients import jobs_client, money_client

_WAIT_SECONDS = 180.0
#: After the last answer, until what follows it is done.
_REST_SECONDS = 1.0
_WARM = 100


def ask(way: str, count: int, label: str, worker_pid: int) -> dict[str, float]:
    """Ask new questions and wait for their answers, after some that warm this process up.

    Args:
        way: ``delay`` for one by one, ``many`` for all in one call.
        count: How many.
        label: That no other call has.
        worker_pid: The worker's process.

    Returns:
        For each question: seconds of the processor of the questions' Redis and of that of money, where it is another,
        of the worker's, and of this process's for the asking and for the reading; and how often both read from a
        socket.
    """
    client, money = jobs_client(), money_client()
    _ask_and_read(way, min(count, _WARM), f"{label}, warm")
    time.sleep(_REST_SECONDS)
    began = _redis_seconds(client), _redis_seconds(money), _reads(client) + _reads(money)
    worker_began = scheduled_seconds(worker_pid)
    asking, reading = _ask_and_read(way, count, label)
    time.sleep(_REST_SECONDS)
    return {
        "redis": (_redis_seconds(client) - began[0]) / count,
        "money": (_redis_seconds(money) - began[1]) / count,
        "worker": (scheduled_seconds(worker_pid) - worker_began) / count,
        "asking": asking / count,
        "reading": reading / count,
        "round_trips": (_reads(client) + _reads(money) - began[2]) / count,
    }


def idle(seconds: float, worker_pid: int) -> dict[str, float]:
    """Return what an idle worker takes in a second, of both servers' processors and of its own, while nobody asks."""
    client, money = jobs_client(), money_client()
    time.sleep(_REST_SECONDS)
    redis_began, money_began = _redis_seconds(client), _redis_seconds(money)
    worker_began = scheduled_seconds(worker_pid)
    time.sleep(seconds)
    return {
        "redis": (_redis_seconds(client) - redis_began) / seconds,
        "money": (_redis_seconds(money) - money_began) / seconds,
        "worker": (scheduled_seconds(worker_pid) - worker_began) / seconds,
    }


def alone_seconds(count: int, label: str) -> float:
    """Return the median time from a question to its answer, one after another."""
    client = jobs_client()
    client.ping()
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        predict.delay(question=f"{label}, alone {number}").get(timeout=_WAIT_SECONDS)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def memory_bytes(count: int, label: str) -> dict[str, float]:
    """Return what the memory of the questions' Redis grows by for each answer, and what a settled call's mark takes."""
    client = jobs_client()
    _ask_and_read("many", min(count, _WARM), f"{label}, warm")
    time.sleep(_REST_SECONDS)
    before, marks_before = _used_bytes(client), _mark_bytes()
    _ask_and_read("many", count, label)
    time.sleep(_REST_SECONDS)
    grown, marks = _used_bytes(client) - before, _mark_bytes() - marks_before
    return {"all": grown / count, "marks": marks / count}


def _ask_and_read(way: str, count: int, label: str) -> tuple[float, float]:
    questions = [f"What is {label} number {number}?" for number in range(count)]
    began = time.process_time()
    if way == "delay":
        handles = [predict.delay(question=question) for question in questions]
    else:
        handles = list(predict.many({"question": question} for question in questions))
    asked = time.process_time()
    for handle in handles:
        handle.get(timeout=_WAIT_SECONDS)
    return asked - began, time.process_time() - asked


def _redis_seconds(client: redis.Redis) -> float:
    used = client.info("cpu")  # to the microsecond, unlike /proc
    return float(used["used_cpu_sys"] + used["used_cpu_user"])


def _reads(client: redis.Redis) -> int:
    return int(client.info("stats")["total_reads_processed"])


def _used_bytes(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _mark_bytes() -> int:
    client = money_client()
    keys = list(client.scan_iter("*budget:hold:*", count=1_000))
    pipeline = client.pipeline(transaction=False)
    for each in keys:
        pipeline.memory_usage(each)
    return sum(size or 0 for size in pipeline.execute())
