"""Everything at once for minutes; then it must all be gone: keys in Redis, and what processes hold in memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

from celery import group

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.client.test_data_model import OTHERS, PREFIX, is_documented
from tests.support.processes import REPOSITORY, wait_until
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

_RESULT_SECONDS = 3
_GET_SECONDS = 60
#: What stays only as long as a job, a call or a claim is under way.
#: What calls of killed workers hold goes too, a quarter of an hour later.
_OF_WORK = ("job:*", "calls:*", "queue:*", "leases", "delayed", "untold", "unserved")
#: Keys of one question, job or batch, so of any number: each must end by itself.
_ENDING = ("prediction:*", "done:*", "rate:*:*", "budget:*:*:*", "costs:*", "savings:*", "batch:*", "budget:batch:*")
_LONGEST_INVALIDATIONS = 10_000


def soak(scale: Scale) -> Outcome:
    """Ask 200 programs in every way while workers and batches are killed; then see what is left."""
    programs = scale.pick(quick=12, full=200)
    with Stage(model_seconds=0.01, concurrency=8, settings=_settings(programs)) as stage:
        soaked = _Soak(stage, scale, programs)
        soaked.run(scale.pick(quick=3.0, full=300.0))
        left = soaked.left()
        return Outcome(
            fault=f"a soak of {programs} programs",
            jobs=soaked.counts["asked"],
            lost=soaked.counts["lost"],
            doubled_answers=0,
            extra_model_calls=0,
            explained_model_calls=0,
            recovery_seconds=(),
            recovery_bound_seconds=0,
            remarks=(*soaked.errors[:5], *left),
            figures=dict(sorted(soaked.counts.items())),
        )


def _settings(programs: int) -> dict[str, Any]:
    one = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
    named = {f"p{number:03}": {**one, "cache_ttl_seconds": _RESULT_SECONDS} for number in range(programs - 1)}
    return {
        "programs": {"qa": {"cache_ttl_seconds": _RESULT_SECONDS}, **named},
        "cache": {"result_ttl_seconds": _RESULT_SECONDS, "memory_ttl_seconds": 1},
        "delivery": {"claim_timeout_seconds": 2},
        "metrics": {"port": 0},
        "models": {"control": {"max_tokens": 100}},
        "budget": {"daily_usd": 1000},
    }


class _Soak:
    """The load, the kills and what they came to.

    Attributes:
        counts: How often each thing was done.
        errors: What callers saw that they should not.
    """

    def __init__(self, stage: Stage, scale: Scale, programs: int) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._stage, self._scale, self._programs = stage, scale, programs
        self._numbers = itertools.count(1)
        self._is_ending = threading.Event()
        self._workers: list[Worker] = []

    def run(self, seconds: float) -> None:
        """Do everything for so long, then let what is under way end."""
        self._workers = [self._stage.worker(waits=False) for _ in range(2)]
        for worker in self._workers:
            worker.ready()
        threads = [threading.Thread(target=self._ask_on) for _ in range(self._scale.pick(quick=3, full=4))]
        threads += [threading.Thread(target=self._kill_on), threading.Thread(target=self._batch_on)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._is_ending.set()
        for thread in threads:
            thread.join()
        for worker in self._workers:
            worker.ready()  # the last to be started may be on its way yet

    def _ask_on(self) -> None:
        ways = [self._one, self._many, self._group, self._cancelled, self._refreshed, self._repeated, self._forgotten]
        while not self._is_ending.is_set():
            way = self._scale.random.choice(ways)
            self.counts[way.__name__.strip("_")] += 1
            try:
                way()
            except Exception as error:  # noqa: BLE001 - what a caller sees
                self.counts["lost"] += 1
                self.errors.append(f"{way.__name__}: {type(error).__name__}: {error}")

    def _question(self) -> dict[str, Any]:
        self.counts["asked"] += 1
        number = self._scale.random.randrange(self._programs)
        return {
            "kwargs": {"question": f"question {next(self._numbers)}"},
            "program": f"p{number - 1:03}" if number else "qa",
        }

    def _one(self) -> None:
        from dspyq import predict

        predict.apply_async(**self._question()).get(timeout=_GET_SECONDS)

    def _many(self) -> None:
        from dspyq import predict

        questions = [self._question() for _ in range(5)]
        rows = [question["kwargs"] for question in questions]
        for job in predict.many(rows, program=questions[0]["program"]):
            job.get(timeout=_GET_SECONDS)

    def _group(self) -> None:
        from dspyq import predict

        asked = [self._question() for _ in range(3)]
        members = group(predict.s(**one["kwargs"]).set(program=one["program"]) for one in asked)
        members.apply_async().get(timeout=_GET_SECONDS, disable_sync_subtasks=False)

    def _cancelled(self) -> None:
        from dspyq import predict

        predict.apply_async(**self._question()).cancel()

    def _refreshed(self) -> None:
        from dspyq import predict

        question = self._question()
        predict.apply_async(**question).get(timeout=_GET_SECONDS)
        predict.apply_async(**question, refresh=True).get(timeout=_GET_SECONDS)

    def _repeated(self) -> None:
        from dspyq import predict

        question = self._question()
        jobs = [predict.apply_async(**question) for _ in range(3)]
        called = threading.Event()
        jobs[0].then(lambda _: called.set())
        for job in jobs:
            job.get(timeout=_GET_SECONDS)

    def _forgotten(self) -> None:
        """Nobody waits."""
        from dspyq import predict

        predict.apply_async(**self._question())

    def _kill_on(self) -> None:
        while not self._is_ending.wait(self._scale.pick(quick=1.5, full=12.0)):
            worker = self._scale.random.choice(self._workers)
            if self._scale.random.random() < 0.5:
                worker.kill()
            else:
                worker.terminate(30)
            worker.start()
            self.counts["workers ended"] += 1

    def _batch_on(self) -> None:
        while not self._is_ending.wait(self._scale.pick(quick=0.1, full=8.0)):
            number = self.counts["batches"] = self.counts["batches"] + 1
            rows = self._stage.folder / f"in-{number}.jsonl"
            rows.write_text("".join(json.dumps({"question": f"row {number}.{row}"}) + "\n" for row in range(60)))
            command = [sys.executable, "-m", "dspyq", "batch", "run", str(rows), "--program", "qa"]
            command += ["--output", str(rows.with_suffix(".out"))]
            environment = self._stage.environment() | {"PYTHONPATH": str(REPOSITORY)}
            log = rows.with_suffix(".log")
            with log.open("w") as output:
                batch = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                is_killed = number % 3 == 0
                with contextlib.suppress(subprocess.TimeoutExpired):
                    batch.wait(3 if is_killed else _GET_SECONDS)
            if batch.poll() is None:
                batch.send_signal(signal.SIGKILL)
                batch.wait()
                self.counts["batches killed"] += 1
            elif batch.returncode:
                self.errors.append(f"a batch ended with {batch.returncode}: {log.read_text()[-300:]}")

    def left(self) -> list[str]:
        """Return what should be gone and is not."""
        remarks: list[str] = []
        for found in (self._work_left, self._worker_tables, self._producer_tables):
            began_at = time.monotonic()
            remarks += _settled(found)
            self.counts[f"seconds until {found.__name__.strip('_')} was nothing"] = round(time.monotonic() - began_at)
        time.sleep(_RESULT_SECONDS + 1)
        for server in self._stage.servers:
            remarks += self._keys_left(server)
        return remarks

    def _keys_left(self, server: RedisServer) -> list[str]:
        with server.client() as client:
            names = client.keys("*")
            self.counts.update(f"keys {_family(name)}" for name in names)
            mine = [name for name in names if not name.startswith(OTHERS) and name != "failpoint-deaths"]
            unknown = [name for name in mine if not is_documented(name.removeprefix(PREFIX))]
            remarks = [f"no table has {name}" for name in unknown if not self._is_bells(name)][:5]
            remarks += [
                f"{name} has no end"
                for pattern in (PREFIX + one for one in _ENDING)
                for name in client.keys(pattern)
                if client.ttl(name) == -1
            ][:5]
            bindings = client.keys("_kombu.binding*")
            self.counts["bindings"] += sum(client.scard(name) for name in bindings if client.type(name) == "set")
        return remarks

    def _is_bells(self, name: str) -> bool:
        return bool(re.fullmatch(r"(p\d{3}|qa)\.control|dspyq", name))

    def _work_left(self) -> list[str]:
        with self._stage.redis.client() as client:
            return [f"{pattern} is left" for pattern in _OF_WORK if client.keys(PREFIX + pattern)]

    def _worker_tables(self) -> list[str]:
        remarks = []
        for worker in self._workers:
            url = re.findall(r"metrics are served at (http\S+)", worker.logs())[-1]
            with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 - our own
                text = page.read().decode()
            for name in ("dspy_held_jobs", "dspy_unsettled_calls"):
                value = float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0])
                remarks += [f"a worker shows {name} {value:g}"] if value else []
            self.counts["bytes of a scrape"] = len(text)
        return remarks

    def _producer_tables(self) -> list[str]:
        from dspyq import predict
        from dspyq.cache.memory import process_cache
        from dspyq.celery_app.waiting import process_waiter
        from dspyq.client.result import PredictionResult
        from dspyq.store.keys import REPLY_START_LENGTH
        from dspyq.store.spines import each_spine

        gc.collect()
        backend = predict.app.backend
        awaited, invalidations = [], 0
        for _ in each_spine():
            awaited += process_waiter()._awaited  # noqa: SLF001 - what is kept is what is tested
            invalidations = max(invalidations, len(process_cache().memory._invalidated_at))  # noqa: SLF001 - as above
        concrete, weak = backend._pending_results  # noqa: SLF001 - as above
        tables = {
            "results that are waited for": awaited,
            "Celery's pending results": [*concrete, *weak],
            "Celery's messages": list(backend._pending_messages),  # noqa: SLF001 - as above
            "Celery's subscriptions": backend.result_consumer.subscribed_to,
            "handles": [one for one in gc.get_objects() if type(one) is PredictionResult],
        }
        self.counts["invalidations kept"] = invalidations
        over = ["more invalidations than are kept"] if invalidations > _LONGEST_INVALIDATIONS else []
        with self._stage.redis.client() as client:
            channels = list(client.pubsub_channels("celery-task-meta-?*"))
        # A process that has waited keeps one, of all its tasks.
        own = len("celery-task-meta-") + REPLY_START_LENGTH
        tables["channels"] = [channel for channel in channels if len(channel) != own]
        return [f"{len(table)} {name}" for name, table in tables.items() if len(table)] + over


def _family(name: str) -> str:
    """Return what comes before the first name of a key's own."""
    first, *others = name.removeprefix(PREFIX).split(":")
    return first.split("-meta-")[0] + ":" * bool(others)


def _settled(found: Callable[[], list[str]]) -> list[str]:
    """Return what is found once it does not change any more, or is nothing."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not found(), 30, "nothing to be left")
    return found()
