"""Sending of the text of all runs of this process: one thread, and one round trip for all of them.

Text is collected for 50 ms; the first text of a run is sent at once. Runs without new text are looked after too: the
cancellation of a job is noticed within a tenth of a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import redis

from dspyq.config.settings import get_settings
from dspyq.core.runtime import current, per_runtime
from dspyq.core.tolerated import survived, tolerate
from dspyq.errors import ConfigurationError
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.keys import job_key
from dspyq.store.scripts import Step, command_step, load_script, run_each
from dspyq.streaming.run_log import RunLog

_FLUSH_SECONDS = 0.05
_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 0.5


class Flusher:
    """Sender of the text of runs.

    Args:
        answers: The Redis of answers, where the logs are.
        jobs: The Redis of jobs.
        is_one_redis: Whether they are one.
    """

    def __init__(self, answers: redis.Redis, jobs: redis.Redis, *, is_one_redis: bool) -> None:
        self._answers = answers
        self._jobs = jobs
        self._is_one_redis = is_one_redis
        self._push = load_script(answers, "dspyq.streaming", "push")
        self._runs: set[RunLog] = set()
        self._wake = threading.Event()
        self._sending = threading.Lock()  # over all that is sent
        self._changing = threading.Lock()  # over the runs and the thread
        self._look_at = 0.0
        self._run_in_runtime = current().bind(self._run)
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def begin(self, task_id: str, fence: str, tenant: str = "") -> RunLog:
        """Begin to send the text of a run, for a tenant or for none."""
        run = RunLog(task_id, fence, self._wake.set, tenant)
        with self._changing:
            self._runs.add(run)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_in_runtime, name="dspyq-streams", daemon=True)
                self._thread.start()
        self._wake.set()
        return run

    def end(self, run: RunLog) -> None:
        """Send the rest of a run's text, in the caller's thread, before its answer is stored."""
        with self._changing:
            self._runs.discard(run)
        try:
            self._send([run], is_last=True)
        except redis.RedisError as error:  # its listeners get the rest with the answer
            tolerate("stream", error)

    def close(self) -> None:
        """End the thread; text that was not sent comes with the answers."""
        self._is_closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            pause_seconds = _FLUSH_SECONDS
            with survived("streams_thread"):  # every stream of this process depends on it
                try:
                    self._send(self._open_runs(), is_last=False)
                except redis.RedisError as error:
                    tolerate("stream", error)
                    pause_seconds = _RETRY_SECONDS
            self._wake.wait(pause_seconds if self._runs else None)
            self._wake.clear()

    def _open_runs(self) -> list[RunLog]:
        with self._changing:
            return list(self._runs)

    def _send(self, runs: Iterable[RunLog], *, is_last: bool) -> None:
        """Send the new text of these runs, and look for losses where it is time.

        Raises:
            redis.RedisError: If Redis does not answer: then it is sent with later text.
        """
        with self._sending:
            now = time.monotonic()
            looks = not is_last and now >= self._look_at
            if looks:
                self._look_at = now + _LOOK_SECONDS
            pairs = [(run, self._step(run, is_last=is_last, looks=looks)) for run in runs]
            steps = [step for _, step in pairs if step is not None]
            for reply in run_each(self._answers, steps) if steps else ():
                if isinstance(reply, redis.RedisError):
                    tolerate("stream", reply)
            if looks and not self._is_one_redis:
                self._look_for_losses([run for run, _ in pairs])

    def _step(self, run: RunLog, *, is_last: bool, looks: bool) -> Step[Any] | None:
        fence = run.fence if self._is_one_redis else ""
        try:
            return run.step(self._push, fence, is_last=is_last, looks=looks)
        except redis.RedisError as error:  # the key of its tenant cannot be read: other runs go on
            tolerate("stream", error)
        except ConfigurationError as error:  # or not be opened here
            tolerate("stream", error)
            run.mute()
        return None

    def _look_for_losses(self, runs: list[RunLog]) -> None:
        """Look in the Redis of jobs for runs that have lost theirs."""
        steps = [command_step(_text, "HGET", job_key(run.task_id), "fence") for run in runs]
        for run, fence in zip(runs, run_each(self._jobs, steps) if steps else (), strict=True):
            if fence != run.fence:
                run.lose()


def _text(stored: bytes | None) -> str:
    return (stored or b"").decode(errors="replace")


@per_runtime(is_of_part=True, close=Flusher.close)
def process_flusher() -> Flusher:
    """Return this process's flusher."""
    return Flusher(answers_client(), jobs_client(), is_one_redis=get_settings().is_one_redis)
