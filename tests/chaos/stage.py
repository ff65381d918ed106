"""The stage of one fault: real servers and workers, the callers, and the fate of every question."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import orjson
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.errors import AnswerLost
from tests.chaos.callers import Call, Load
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stored import StoredResults, what_is_left, whereabouts
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.failpoints import DEATHS_KEY, Death, read_deaths
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.several_servers import SeveralServers
from tests.support.worker import Worker

#: How long a run keeps its job here. What the project promises is this and 5 s.
LEASE_SECONDS = 2.0
RECOVERY_SECONDS = 5.0
#: Each call of the model gives another answer, so that a second run of a question shows.
REPLY = "[[ ## answer ## ]]\n{call} to {question}\n\n[[ ## completed ## ]]\n"
#: Number of Redis servers that hold questions, where there are several.
SPINES_VARIABLE = "CHAOS_SPINES"
_IMPORTS = '["tests.support.user_tasks", "tests.support.failpoints"]'


def number_of_spines() -> int:
    """Return the number of Redis servers that hold questions on a stage."""
    return int(os.environ.get(SPINES_VARIABLE, "1"))


def armed(point: str, scale: Scale, *, probability: float, deaths: int) -> Callable[[int], dict[str, str]]:
    """Return what environment has a fleet's workers die at a point, until so many have."""
    return lambda number: {
        "TEST_FAILPOINT": point,
        "TEST_FAILPOINT_PROBABILITY": str(probability),
        "TEST_FAILPOINT_SEED": f"{scale.seed}-{number}",
        "TEST_FAILPOINT_DEATHS": str(deaths),
    }


class Stage:
    """One fault's servers, workers and callers; they end with the context.

    Attributes:
        redis: The Redis of jobs and, unless there is another one, of answers; all servers, where there are several.
        money: The Redis of budgets, books and breakers.
        jobs: The Redis of jobs alone: all spines, where there are several.
        spines: Each Redis of jobs.
        answers: The Redis of answers.
        endpoint: The model.
        calls: All callers.
    """

    def __init__(
        self,
        *,
        model_seconds: float = 0.02,
        concurrency: int = 4,
        is_append_only: bool = False,
        evicting_bytes: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Name what there is to be.

        Args:
            model_seconds: How long the model takes to answer.
            concurrency: Threads of each worker.
            is_append_only: Whether Redis writes every change down.
            evicting_bytes: The memory of a Redis of answers of its own, which evicts.
            settings: Changes of the configuration.
        """
        self.model_seconds = model_seconds
        self._options = {"is_append_only": is_append_only, "evicting_bytes": evicting_bytes}
        delivery = {"visibility_timeout_seconds": LEASE_SECONDS, "max_deliveries": 1000}  # innocent jobs die often here
        defaults = {"delivery": delivery, "workers": {"concurrency": concurrency}}
        self._changes = merged(defaults, settings or {})
        self.calls: list[Call] = []
        self._seeds = itertools.count(1)
        self._by_id: dict[str, list[Call]] = defaultdict(list)
        self.asked_again: list[str] = []
        self._urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start the servers, and configure this process for them: it is used for one fault only."""
        with ExitStack() as started:
            self.folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
            self.redis = self.answers = self._servers(started)
            if room := self._options["evicting_bytes"]:
                self.answers = started.enter_context(
                    RedisServer(max_memory_bytes=room, max_memory_policy="allkeys-lru")
                )
            self.endpoint = started.enter_context(Endpoint())
            self.endpoint.script(content=REPLY, latency_seconds=self.model_seconds)
            self.settings_path = write_settings(
                self.folder / "dspyq.toml", merged(default_document(self.endpoint.url), self._changes)
            )
            os.environ.update(self.environment())
            self.stored = started.enter_context(StoredResults(self.answers))
            self._workers = started.enter_context(ExitStack())
            self._started = started.pop_all()
        return self

    def _servers(self, started: ExitStack) -> Any:
        """Start the Redis of jobs: one, or several spines and that of money."""
        number = number_of_spines()
        names = ["money", *map(str, range(number))] if number > 1 else [""]
        servers = []
        for name in names:
            directory = self.folder / name if self._options["is_append_only"] else None
            if directory is not None:
                directory.mkdir(exist_ok=True)
            servers.append(started.enter_context(RedisServer(append_only_directory=directory)))
        self.money = self.jobs = servers[0]
        self.spines = tuple(servers[1:] or servers)
        if number == 1:
            return servers[0]
        if self._options["evicting_bytes"]:
            raise RuntimeError("answers of several spines are with their jobs: this fault is left out there")
        self._urls = {
            "DSPYQ_MONEY_URL": servers[0].url,
            "DSPYQ_REDIS_URLS": json.dumps([server.url for server in servers[1:]]),
        }
        self.jobs = SeveralServers(self.spines)
        return SeveralServers(servers)

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._started.close()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a worker or a producer."""
        given = {"DSPYQ_WORKERS__IMPORTS": _IMPORTS, **self._urls}
        if self.answers is not self.redis:
            given |= {"DSPYQ_BROKER_URL": self.redis.url, "DSPYQ_RESULT_URL": self.answers.url}
        url = None if self._urls else self.redis.url
        return environment(self.settings_path, url, given | dict(extra or {}))

    def worker(
        self, env: Mapping[str, str] | None = None, *, waits: bool = True, arguments: Sequence[str] = ()
    ) -> Worker:
        """Start a worker."""
        worker = Worker(self.environment(env), arguments=["--without-gossip", *arguments])
        self._workers.callback(_end, worker)
        if waits:
            worker.ready()
        return worker

    @property
    def servers(self) -> tuple[RedisServer, ...]:
        """Each Redis but one of answers alone."""
        return self.spines if self.money in self.spines else (self.money, *self.spines)

    @contextlib.contextmanager
    def fleet(
        self, size: int, environment_of: Callable[[int], Mapping[str, str]], *, arguments: Sequence[str] = ()
    ) -> Iterator[None]:
        """Keep so many workers alive: one that dies is followed by another, whose environment its number decides."""
        is_ending = threading.Event()
        numbers = itertools.count(1)

        def start() -> Worker:
            return self.worker(environment_of(next(numbers)), waits=False, arguments=arguments)

        def keep() -> None:
            workers = [start() for _ in range(size)]
            while not is_ending.wait(0.02):
                for index, worker in enumerate(workers):
                    if not worker.is_running:
                        worker.close()
                        workers[index] = start()

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            yield
        finally:
            is_ending.set()
            keeper.join()

    def questions(self, count: int, label: str = "question") -> list[str]:
        """Return so many questions that nobody asked yet."""
        return [f"{label} {next(self._seeds)}" for _ in range(count)]

    def ask(self, questions: Sequence[str], *, callers: int = 1, **options: Any) -> list[Call]:
        """Ask questions, each by so many callers, and listen for the answers."""
        asked = [call for _ in range(callers) for call in self._asked(questions, **options)]
        for call in asked:
            self.listen(call)
        return asked

    def ask_and_get(self, questions: Sequence[str], timeout_seconds: float) -> list[Call]:
        """Ask as callers do who then block in ``get()``, each in a thread."""
        return [self._get(call, timeout_seconds) for call in self._asked(questions)]

    def _get(self, call: Call, timeout_seconds: float) -> Call:
        def get() -> None:
            try:
                try:
                    call.answer = call.handle.get(timeout=timeout_seconds).answer
                except AnswerLost:  # it says that asking again helps
                    self.asked_again.append(call.question)
                    call.handle = self._asked([call.question])[0].handle
                    self._by_id[call.handle.id].append(call)
                    call.answer = call.handle.get(timeout=timeout_seconds).answer
                call.answered_at = time.time()
            except CeleryTimeoutError:
                pass
            except Exception as error:  # noqa: BLE001 - what the caller sees
                call.error = f"{type(error).__name__}: {error}"
                call.answered_at = time.time()

        self.note(call)
        threading.Thread(target=get, daemon=True).start()
        return call

    def _asked(self, questions: Sequence[str], **options: Any) -> list[Call]:
        from dspyq import predict

        asked_at = time.time()
        if len(questions) == 1:
            handles = [predict.apply_async(kwargs={"question": questions[0]}, **options)]
        else:
            handles = predict.many([{"question": question} for question in questions], **options)
        return [Call(question, handle, asked_at) for question, handle in zip(questions, handles, strict=True)]

    @contextlib.contextmanager
    def load(self, questions_per_second: float, *, is_patient: bool = True) -> Iterator[Load]:
        """Ask questions all the while, alternately one by one and in bulk.

        Args:
            questions_per_second: How many.
            is_patient: Whether these callers ask again where Redis could not be asked; else that is a remark.
        """
        load = Load(self, questions_per_second, is_patient=is_patient)
        load.start()
        try:
            yield load
        finally:
            load.end()

    def listen(self, call: Call) -> None:
        """Note when and what this caller hears, as ``handle.get()`` would."""
        from dspyq.cache.moves import find_runs
        from dspyq.celery_app.waiting import process_waiter
        from dspyq.store.spines import on_result

        def hear(payload: bytes) -> None:
            call.answered_at = time.time()
            meta = orjson.loads(payload)
            if meta["status"] == "SUCCESS":
                call.answer = meta["result"]["outputs"]["answer"]
            else:
                call.error = f"{meta['status']}: {meta['result']}"[:300]

        self.note(call)
        if (payload := call.handle._payload) is not None:  # noqa: SLF001 - a hit
            hear(payload)
        else:
            find_runs([call.handle.id])
            with on_result(call.handle.id):
                process_waiter().add(call.handle.id, hear)

    def note(self, call: Call) -> None:
        """Count a call among those that are to be answered."""
        self.calls.append(call)
        self._by_id[call.handle.id].append(call)

    def wait(self, timeout_seconds: float, calls: Sequence[Call] | None = None) -> None:
        """Wait until these callers, or all, heard something, or the time is over, which grows with the spines."""
        wanted = self.calls if calls is None else calls
        patience_seconds = timeout_seconds * number_of_spines()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: all(call.answered_at for call in wanted), patience_seconds, "all answers")

    def deaths(self) -> list[Death]:
        """Return where processes killed themselves."""
        with self.redis.client(decode_responses=False) as client:
            return read_deaths(client)

    def death_count(self) -> int:
        """Return how many processes killed themselves."""
        with self.redis.client() as client:
            return int(client.llen(DEATHS_KEY))

    def recovery(self, deaths: Sequence[Death]) -> list[float]:
        """Return, for each job a death hit, how long it took to its answer or to its next death."""
        hits: dict[str, list[float]] = defaultdict(list)
        for death in deaths:
            for job_id in death.held:
                hits[job_id].append(death.at_seconds)
        seconds = []
        for job_id, times in hits.items():
            answered_at = self._answered_at(job_id)
            for hit_at, next_at in itertools.pairwise([*times, answered_at]):
                if hit_at is not None and next_at is not None and next_at > hit_at:
                    model_seconds = self.model_seconds if next_at == answered_at else 0.0
                    seconds.append(max(0.0, next_at - hit_at - model_seconds))
        return seconds

    def recovery_from(self, fault_at: float, calls: Sequence[Call]) -> list[float]:
        """Return how long after a fault these callers had their answers, without the model's time."""
        return [max(0.0, call.answered_at - fault_at - self.model_seconds) for call in calls if call.answered_at]

    def outcome(
        self,
        fault: str,
        recovery_seconds: Sequence[float] = (),
        *,
        explained_model_calls: int = 0,
        bound_seconds: float = LEASE_SECONDS + RECOVERY_SECONDS,
        remarks: Sequence[str] = (),
        questions: int | None = None,
        left_within_seconds: float = LEASE_SECONDS + RECOVERY_SECONDS,
    ) -> Outcome:
        """Look at everything and sum it up.

        Args:
            fault: Its name.
            recovery_seconds: Of the jobs it hit.
            explained_model_calls: What it must cost.
            bound_seconds: How long a recovery may take.
            remarks: What is wrong already.
            questions: How many the model had to answer, where that is not one for each question asked.
            left_within_seconds: How soon after the last answer no record of a job may be left.
        """
        unanswered = [call for call in self.calls if call.answer is None]
        found = list(remarks)
        errors = Counter(call.error for call in unanswered if call.error)
        found += [f"{count} callers saw {error}" for error, count in errors.most_common(3)]
        if silent := sum(call.error is None for call in unanswered):
            found.append(
                f"{silent} callers heard nothing: {whereabouts(self.redis, [call.handle.id for call in unanswered])}"
            )
        found += what_is_left(self.redis, left_within_seconds)
        needed = len({call.question for call in self.calls}) if questions is None else questions
        return Outcome(
            fault=fault,
            jobs=len({call.question for call in self.calls}),
            lost=len({call.question for call in unanswered}),
            doubled_answers=self._doubled(),
            extra_model_calls=self.endpoint.calls() - needed,
            explained_model_calls=explained_model_calls,
            recovery_seconds=tuple(round(seconds, 3) for seconds in recovery_seconds),
            recovery_bound_seconds=bound_seconds,
            remarks=tuple(found),
        )

    def all_consume(self, workers: int, concurrency: int, timeout_seconds: float = 15.0) -> list[str]:
        """Return a remark if these workers do not all take jobs: so many as they have threads must reach the model."""
        wanted = workers * concurrency
        self.endpoint.wait_until_idle(timeout_seconds)
        self.endpoint.hold()
        try:
            self.ask(self.questions(wanted, "consumed"))
            self.wait_for_in_flight(wanted, timeout_seconds)
        except TimeoutError:
            return [f"{self.endpoint.counts().in_flight} of {wanted} threads took a job in {timeout_seconds:g} s"]
        finally:
            self.endpoint.release()
        return []

    def wait_for_in_flight(self, count: int, timeout_seconds: float = 15.0) -> None:
        """Wait until so many calls are at the model at once."""
        wait_until(lambda: self.endpoint.counts().in_flight >= count, timeout_seconds, f"{count} calls at once")

    def _answered_at(self, job_id: str) -> float | None:
        times = [call.answered_at for call in self._by_id.get(job_id, ()) if call.answered_at]
        return self.stored.first_at.get(job_id) or (min(times) if times else None)

    def _doubled(self) -> int:
        doubled = sum(len(self.stored.contents.get(job_id, ())) > 1 for job_id in self._by_id)
        for call in self.calls:
            stored = self.stored.read(call.handle.id)
            if call.answer is not None and stored is not None and call.answer != stored:
                doubled += 1
        return doubled


def _end(worker: Worker) -> None:
    worker.kill()
    worker.close()
