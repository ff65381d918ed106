"""The parts of every benchmark: servers of its own, and processes to measure in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.contenders import DSPYQ, Contender
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer

#: Predictions that run at once, in every worker and in bare threads.
CONCURRENCY = 200
MICROSECONDS = 1e6
MEBIBYTE = 2**20

#: In the name of a process's clock, of the time that the scheduler counts.
_SCHEDULED = 2

_START_TIMEOUT_SECONDS = 60.0
_PROCESS_TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.05


class Servers:
    """A Redis and a model endpoint, each a process, for one benchmark; they end with the context.

    Args:
        settings: Settings of every process, as ``DSPYQ_…`` variables.

    Attributes:
        redis: The Redis that dspyq and everybody else works on.
        endpoint: The model. It answers at once until it is given a latency.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})

    def __enter__(self) -> Self:
        """Start both."""
        with ExitStack() as started:
            folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            self.redis = started.enter_context(RedisServer())
            self.endpoint = started.enter_context(Endpoint())
            # Everything as it is by default, but the number of threads.
            changes = {"delivery": None, "workers": {"concurrency": CONCURRENCY}}
            document = merged(default_document(self.endpoint.url), changes)
            self._settings_path = write_settings(folder / "dspyq.toml", document)
            self._started = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End both."""
        self._started.close()

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a process, ours or another's.

        Args:
            settings: Further settings of dspyq, as ``DSPYQ_…`` variables.
        """
        others = {
            "PLAIN_REDIS_URL": self.redis.url,
            "BENCHMARK_MODEL_URL": self.endpoint.url,
            "BENCHMARK_CONCURRENCY": str(CONCURRENCY),
            # Or the first priced call of a process would wait for a download.
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        }
        return environment(self._settings_path, self.redis.url, others | self._settings | dict(settings or {}))

    @contextmanager
    def worker(self, contender: Contender) -> Iterator[LocalProcess]:
        """Run a contender's worker, ready and warm: all of its threads live and have their connections."""
        command = list(contender.worker_command)
        with LocalProcess(contender.name, command, ready_line="", env=self.environment()) as process:
            self._warm(contender, CONCURRENCY, [process])
            yield process

    @contextmanager
    def fleet(self, size: int, threads: int) -> Iterator[list[LocalProcess]]:
        """Run so many of our workers, each with so many threads, on one queue, ready and warm."""
        env = self.environment({"DSPYQ_WORKERS__CONCURRENCY": str(threads)})
        with ExitStack() as started:
            processes = [
                started.enter_context(
                    LocalProcess(f"worker {number}", list(DSPYQ.worker_command), ready_line="", env=env)
                )
                for number in range(1, size + 1)
            ]
            self._warm(DSPYQ, size * threads, processes)
            yield processes

    def run_bare(self, count: int, *, model_seconds: float = 0.0) -> dict[str, Any]:
        """Answer new questions in bare DSPy threads, warm as workers are; returns what ``subjects.bare`` does."""
        self.endpoint.reset()
        if model_seconds:
            self.endpoint.script(latency_seconds=model_seconds)
        self.endpoint.hold()
        producer = self.start("bare:run", count=count, warm_up_count=CONCURRENCY)
        try:
            self._release_when_all_wait()
            outcome: dict[str, Any] = producer.result(_PROCESS_TIMEOUT_SECONDS)
        finally:
            producer.close()
        return outcome

    def start(self, function: str, settings: Mapping[str, str] | None = None, **arguments: Any) -> Producer:
        """Start a function of ``benchmarks.subjects`` in a process of its own.

        Args:
            function: Its module below ``benchmarks.subjects`` and its name, as in ``hits:measure``.
            settings: As of ``environment``.
            **arguments: What to call it with, as JSON values.
        """
        module, _, name = function.partition(":")
        passed = ", ".join(f"{argument}={argument}" for argument in arguments)
        code = f"from benchmarks.subjects.{module} import {name} as _subject\nreturn _subject({passed})"
        return Producer(code, arguments, self.environment(settings))

    def run(self, function: str, settings: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        """Run a function as ``start`` does, and return what it returned."""
        producer = self.start(function, settings, **arguments)
        try:
            return producer.result(_PROCESS_TIMEOUT_SECONDS)
        finally:
            producer.close()

    def ask(self, contender: Contender, count: int, label: str) -> list[str]:
        """Have a contender send this many new questions; return the keys under which Redis will hold their results."""
        keys: list[str] = self.run(contender.ask, count=count, label=label)
        return keys

    def wait_for_results(self, keys: Sequence[str], timeout_seconds: float = _PROCESS_TIMEOUT_SECONDS) -> None:
        """Wait until every result is in Redis: what each of the contenders calls done.

        Raises:
            TimeoutError: If they are not.
        """
        client = self.redis.client()
        end = time.monotonic() + timeout_seconds
        while (found := client.exists(*keys)) < len(keys):
            if time.monotonic() > end:
                raise TimeoutError(f"{found} of {len(keys)} results within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _warm(self, contender: Contender, threads: int, processes: Sequence[LocalProcess]) -> None:
        """Have every thread of these workers answer once."""
        try:
            self.endpoint.hold()
            keys = self.ask(contender, threads, "warm-up")
            self._release_when_all_wait(threads)
            self.wait_for_results(keys, _START_TIMEOUT_SECONDS)
            self.endpoint.reset()
        except TimeoutError as error:
            logs = "\n".join(process.logs() for process in processes)
            raise RuntimeError(f"the worker of {contender.name} does not answer: {error}\n{logs}") from error

    def _release_when_all_wait(self, threads: int = CONCURRENCY) -> None:
        """Let the model answer only once every thread waits for it: each of them lives then, with its connections."""
        self.endpoint.wait_for_calls(threads, _START_TIMEOUT_SECONDS)
        self.endpoint.release()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its children took up to now."""
    process = psutil.Process(pid)
    times = [member.cpu_times() for member in [process, *process.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def scheduled_seconds(pid: int) -> float:
    """Return a process's processor time by the scheduler's clock, of threads that have ended too.

    The times in /proc move in hundredths of a second, or leave those threads out.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULED)  # as clock_getcpuclockid names it, which Python lacks


def resident_mebibytes(pid: int) -> float:
    """Return a process's memory now."""
    resident_bytes: int = psutil.Process(pid).memory_info().rss
    return resident_bytes / MEBIBYTE
