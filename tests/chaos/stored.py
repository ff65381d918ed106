"""The answers and jobs in Redis while a fault plays, and after it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Self

import orjson
import redis

from dspyq.store.keys import REPLY_START_LENGTH
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.several_servers import SeveralServers

_RESULT_PREFIX = "celery-task-meta-"


class StoredResults:
    """Listens to every result that is stored, as long as Redis lets it."""

    def __init__(self, server: RedisServer | SeveralServers) -> None:
        self._servers = getattr(server, "servers", (server,))
        self._reader = server.client(decode_responses=False)
        self._is_ending = threading.Event()
        self.contents: dict[str, set[str]] = defaultdict(set)
        self.first_at: dict[str, float] = {}
        self._threads = [threading.Thread(target=self._run, args=(each,), daemon=True) for each in self._servers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        for thread in self._threads:
            thread.join()
        self._reader.close()

    def read(self, task_id: str) -> str | None:
        """Return the answer stored for a task now."""
        payload = self._reader.get(f"{_RESULT_PREFIX}{task_id}")
        meta = orjson.loads(payload) if payload else {}
        return meta["result"]["outputs"]["answer"] if meta.get("status") == "SUCCESS" else None

    def _run(self, server: RedisServer) -> None:
        while not self._is_ending.is_set():
            with contextlib.suppress(redis.RedisError, OSError):
                self._listen(server)
            self._is_ending.wait(0.05)

    def _listen(self, server: RedisServer) -> None:
        with server.client(decode_responses=False) as client, client.pubsub() as channel:
            channel.psubscribe(f"{_RESULT_PREFIX}*")
            while not self._is_ending.is_set():
                message = channel.get_message(ignore_subscribe_messages=True, timeout=0.1)
                if message and message["type"] == "pmessage":
                    task_id = message["channel"].decode().removeprefix(_RESULT_PREFIX)
                    if len(task_id) == REPLY_START_LENGTH:  # the channel of a process, which repeats the task's own
                        continue
                    meta = json.loads(message["data"])
                    result = meta["result"]
                    content = result.get("outputs", result) if isinstance(result, dict) else result
                    self.contents[task_id].add(json.dumps([meta["status"], content], sort_keys=True))
                    self.first_at.setdefault(task_id, time.time())


def what_is_left(server: RedisServer | SeveralServers, within_seconds: float) -> list[str]:
    """Return a remark if anything of a job is left, other than what is set aside."""
    patterns = ("dspy:v1:job:*", "dspy:v1:queue:*", "dspy:v1:leases", "dspy:v1:delayed")
    with server.client() as client:

        def left(pattern: str) -> set[str]:
            dead = {f"dspy:v1:job:{job_id}" for job_id in client.zrange("dspy:v1:dead", 0, -1)}
            return set(server.keys(pattern)) - dead

        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(map(left, patterns)), within_seconds, "nothing to be left")
        return [f"{len(keys)} × {pattern} left, as {keys.pop()}" for pattern in patterns if (keys := left(pattern))]


def whereabouts(server: RedisServer | SeveralServers, job_ids: Iterable[str]) -> str:
    """Say where these jobs stand."""
    places = ("leases", "delayed", "dead", "queue:qa.control")
    found: Counter[str] = Counter()
    with server.client() as client:
        for job_id in job_ids:
            standing = [place for place in places if client.zscore(f"dspy:v1:{place}", job_id) is not None]
            has_record = "" if client.exists(f"dspy:v1:job:{job_id}") else "without a record"
            found[" ".join([*standing, has_record]).strip() or "nowhere"] += 1
    return ", ".join(f"{count} {where}" for where, count in found.items())
