"""Costs of a new question, read by the producer that asks it: of Redis, of the worker and of itself."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from importlib.resources import files
from statistics import median

import redis

from benchmarks.harness import scheduled_seconds
from dspyq import predict
from dspyq.store.clients import jobs_client
from dspyq.store.script_text import read_script

_WAIT_SECONDS = 180.0
#: After the last answer, until what follows it is done.
_REST_SECONDS = 1.0
_WARM = 100
#: Redis logs commands inside scripts too. Nearly all of those are shorter than this, and nearly all scripts longer.
_LOGGED_MICROSECONDS = 4
_MOST_LOGGED = 1_000_000
_MICROSECONDS = 1e6
#: Scripts of these packages touch what the fleet has once; but for ``remember``, which touches a question's calls.
_MONEY_PACKAGE = "dspyq.guards"
_OF_A_QUESTION = "dspyq.guards/remember"
_PACKAGES = ("dspyq.cache", "dspyq.delivery", _MONEY_PACKAGE)


def ask(way: str, count: int, label: str, worker_pid: int) -> dict[str, float]:
    """Ask new questions and wait for their answers, after some that warm this process up.

    Args:
        way: ``delay`` for one by one, ``many`` for all in one call.
        count: How many.
        label: That no other call has.
        worker_pid: The worker's process.

    Returns:
        For each question: seconds of Redis's processor, of the worker's, and of this process's for the asking and for
        the reading; and how often Redis read from a socket.
    """
    client = jobs_client()
    _ask_and_read(way, min(count, _WARM), f"{label}, warm")
    time.sleep(_REST_SECONDS)
    redis_began, reads_began = _redis_seconds(client), _reads(client)
    worker_began = scheduled_seconds(worker_pid)
    asking, reading = _ask_and_read(way, count, label)
    time.sleep(_REST_SECONDS)
    return {
        "redis": (_redis_seconds(client) - redis_began) / count,
        "worker": (scheduled_seconds(worker_pid) - worker_began) / count,
        "asking": asking / count,
        "reading": reading / count,
        "round_trips": (_reads(client) - reads_began) / count,
    }


def idle(seconds: float, worker_pid: int) -> dict[str, float]:
    """Return what an idle worker takes in a second, of Redis's processor and of its own, while nobody asks."""
    client = jobs_client()
    time.sleep(_REST_SECONDS)
    redis_began, worker_began = _redis_seconds(client), scheduled_seconds(worker_pid)
    time.sleep(seconds)
    return {
        "redis": (_redis_seconds(client) - redis_began) / seconds,
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


def money_share(way: str, count: int, label: str) -> float:
    """Return the part of the time of all scripts that those of money take, by the server's own log."""
    client = jobs_client()
    _ask_and_read(way, min(count, _WARM), f"{label}, warm")
    client.config_set("slowlog-max-len", _MOST_LOGGED)
    client.config_set("slowlog-log-slower-than", _LOGGED_MICROSECONDS)
    client.slowlog_reset()
    _ask_and_read(way, count, label)
    time.sleep(_REST_SECONDS)
    client.config_set("slowlog-log-slower-than", -1)
    names, seconds = _script_names(), Counter[bool]()
    for entry in client.slowlog_get(_MOST_LOGGED):
        command, _, rest = entry["command"].partition(b" ")
        if command == b"EVALSHA":
            name = names.get(rest.partition(b" ")[0].decode(), "")
            is_of_money = name.startswith(_MONEY_PACKAGE) and name != _OF_A_QUESTION
            seconds[is_of_money] += entry["duration"]
    client.slowlog_reset()
    return seconds[True] / seconds.total()


def memory_bytes(count: int, label: str) -> dict[str, float]:
    """Return what the server's memory grows by for each answer, and how much of it a settled call's mark is."""
    client = jobs_client()
    _ask_and_read("many", min(count, _WARM), f"{label}, warm")
    time.sleep(_REST_SECONDS)
    before, marks_before = _used_bytes(client), _mark_bytes(client)
    _ask_and_read("many", count, label)
    time.sleep(_REST_SECONDS)
    grown, marks = _used_bytes(client) - before, _mark_bytes(client) - marks_before
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


def _mark_bytes(client: redis.Redis) -> int:
    keys = list(client.scan_iter("*budget:hold:*", count=1_000))
    pipeline = client.pipeline(transaction=False)
    for each in keys:
        pipeline.memory_usage(each)
    return sum(size or 0 for size in pipeline.execute())


def _script_names() -> dict[str, str]:
    """Return each script's name by its hash, as Redis computes it."""
    found = {}
    for package in _PACKAGES:
        for path in files(package).joinpath("lua").iterdir():
            name = path.name.removesuffix(".lua")
            text = read_script(package, name).text
            found[hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()] = f"{package}/{name}"
    return found
