"""The real side: the scripts over a real server, what Redis holds, and a clock that is moved by editing scores."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import redis

from dspyq.cache.claims import Claims
from dspyq.client.bulk import Bulk
from dspyq.config.periods import Calendar
from dspyq.config.settings import Settings
from dspyq.delivery.dead import DeadJobs
from dspyq.delivery.records import Records
from dspyq.store.keys import alias_key, result_key, statistics_key
from tests.properties.delivery_model import SEQUENCES_PER_PRIORITY
from tests.support.redis_server import RedisServer

PREFIX = "dspy:v1:"
#: Nothing runs out by itself within a test.
FOREVER_SECONDS = 10_000
LONG_AGO = 1


@dataclass(frozen=True)
class Held:
    """The content of Redis at one moment."""

    records: dict[str, dict[str, str]]
    places: dict[str, list[str]]
    waiting: list[tuple[str, float]]
    untold: set[str]
    bells: int
    aliases: dict[str, dict[str, str]]
    results: dict[str, str]
    statistics: dict[str, int]


class World:
    """One Redis for everything, or one for jobs and one for answers.

    Args:
        server: The server; the answers' own Redis is another database of it.
        queue: The only queue.
        is_one_redis: Whether answers live with the jobs.
    """

    def __init__(self, server: RedisServer, queue: str, *, is_one_redis: bool) -> None:
        self.queue = queue
        self._jobs = server.client()
        jobs = server.client(decode_responses=False)
        answers_url = server.url if is_one_redis else server.url.removesuffix("/0") + "/1"
        answers: redis.Redis = redis.Redis.from_url(answers_url)
        self._answers: redis.Redis = redis.Redis.from_url(answers_url, decode_responses=True)
        delivery = SimpleNamespace(claim_timeout_seconds=FOREVER_SECONDS)
        settings = cast("Settings", SimpleNamespace(is_one_redis=is_one_redis, delivery=delivery))
        self.records = Records(jobs)
        self.dead = DeadJobs(jobs)
        self.claims = Claims(settings, jobs, answers)
        self.bulk = Bulk(settings, self.claims, jobs, answers, Calendar("UTC"))

    def empty(self) -> None:
        """Delete every key; loaded scripts stay."""
        self._jobs.flushall()

    def held(self) -> Held:
        """Read everything."""
        keys = self._jobs.keys(PREFIX + "*")
        jobs = [key for key in keys if key.startswith(PREFIX + "job:")]
        aliases = [key for key in keys if key.startswith(alias_key(""))]
        queues = [key for key in keys if key.startswith(PREFIX + "queue:")]
        results = self._answers.keys(result_key("*"))
        places = [PREFIX + "delayed", PREFIX + "leases", PREFIX + "dead", *queues]
        pipeline = self._jobs.pipeline(transaction=False)
        for key in (*jobs, *aliases, statistics_key(self.queue)):
            pipeline.hgetall(key)
        for key in places:
            pipeline.zrange(key, 0, -1, withscores=True)
        pipeline.smembers(PREFIX + "untold")
        bells = [self.queue, *(key.removeprefix(PREFIX + "queue:") for key in queues if "@" in key)]
        for name in bells:
            pipeline.llen(name)
        replies = iter(pipeline.execute())
        records = {key.removeprefix(PREFIX + "job:"): next(replies) for key in jobs}
        questions = {key.removeprefix(alias_key("")): next(replies) for key in aliases}
        statistics = {name: int(count) for name, count in next(replies).items()}
        standing: dict[str, list[str]] = defaultdict(list)
        waiting: list[tuple[str, float]] = []
        for key in places:
            place = key.removeprefix(PREFIX).partition(":")[0]
            for job_id, score in next(replies):
                standing[job_id].append(place)
                waiting += [(job_id, score)] if place == "queue" else []
        stored = cast("list[str]", self._answers.mget(results)) if results else []
        return Held(
            records=records,
            places=dict(standing),
            waiting=sorted(waiting, key=lambda turn: turn[1]),  # of all versions, in one order
            untold=next(replies),
            bells=sum(next(replies) for _ in bells),
            aliases=questions,
            results=dict(zip((key.removeprefix(result_key("")) for key in results), stored, strict=True)),
            statistics=statistics,
        )

    def store(self, task_id: str, payload: bytes) -> None:
        """Store a result as Celery itself does."""
        self._answers.set(result_key(task_id), payload)

    def forget(self, task_id: str) -> None:
        """Evict a result."""
        self._answers.delete(result_key(task_id))

    def time_out(self, job_id: str, place: str) -> None:
        """Let a job's delay or lease run out."""
        self._jobs.zadd(PREFIX + place, {job_id: LONG_AGO}, xx=True)

    def age_claim(self, input_hash: str) -> None:
        """Let a claim be older than its timeout."""
        self._jobs.hset(alias_key(input_hash), "since", LONG_AGO)

    def expire_answer(self, input_hash: str) -> None:
        """Let an answer's time be up; Redis deletes an alias that has one to live."""
        alias = alias_key(input_hash)
        if self._jobs.ttl(alias) > 0 and not self._jobs.hexists(alias, "pending"):
            self._jobs.delete(alias)
        else:
            self._jobs.hset(alias, "until", LONG_AGO)

    def sequence_of(self, job_id: str) -> int:
        """Return the turn that a job got when it was put."""
        return int(self._jobs.hget(f"{PREFIX}job:{job_id}", "score") or 0) % SEQUENCES_PER_PRIORITY

    def ring(self) -> None:
        """Ring once too often."""
        self._jobs.lpush(self.queue, "1")

    def answer_bell(self) -> bool:
        """Take a bell off, of the queue or of its version, as a worker does; whether there was one."""
        queues = [self.queue, *self._jobs.scan_iter(f"{self.queue}@*")]
        return self._jobs.brpop(queues, timeout=0.001) is not None

    def close(self) -> None:
        for client in (self._jobs, self._answers):
            client.close()
