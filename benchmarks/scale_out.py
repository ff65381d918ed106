"""One, two and four workers on one queue, a model that takes a second: how near to so many times one worker."""

from __future__ import annotations

import time

import orjson

from benchmarks.contenders import DSPYQ
from benchmarks.harness import Servers
from benchmarks.rows import Row, Target

_MODEL_SECONDS = 1.0
_THREADS = 25
_SIZES = (1, 2, 4)
_ROUNDS, _QUICK_ROUNDS = 12, 2
_PATH = f"workers of {_THREADS} threads, a 1 s model"


def run(*, quick: bool) -> list[Row]:
    """Let fleets answer the same questions: at what speed, beside the ideal, and that their answers are the same."""
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    count = rounds * _SIZES[-1] * _THREADS
    rows, answers = [], []
    for size in _SIZES:
        speed, given = _answer(size, count)
        answers.append(given)
        ideal = size * _THREADS / _MODEL_SECONDS
        noun = "worker" if size == 1 else "workers"
        target = Target("ratio", "at least", 0.80)
        rows.append(Row(_PATH, f"{size} {noun}", "/s", speed, "the ideal", ideal, speed / ideal, target))
    if any(given != answers[0] for given in answers):
        raise RuntimeError("fleets of different sizes gave different answers")
    return rows


def _answer(size: int, count: int) -> tuple[float, list[object]]:
    """Let a fleet find all questions waiting; return how many it answered a second, and what."""
    with Servers() as servers, servers.fleet(size, _THREADS) as workers:
        for worker in workers:
            worker.stop()
        keys = servers.ask(DSPYQ, count, "question")
        servers.endpoint.script(latency_seconds=_MODEL_SECONDS)
        began_at = time.monotonic()
        for worker in workers:
            worker.cont()
        servers.wait_for_results(keys)
        seconds = time.monotonic() - began_at
        answers = [orjson.loads(payload)["result"]["outputs"] for payload in servers.redis.client().mget(keys)]
        if (calls := servers.endpoint.calls()) != count:
            raise RuntimeError(f"{count} questions took {calls} calls of the model")
    return count / seconds, answers
