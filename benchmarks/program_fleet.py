"""A worker of so many programs, with a Redis and a model of its own."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import DSPYQ
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer

_CONCURRENCY = 8
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Fleet:
    """A worker, its Redis, and the environment of producers that ask it.

    Attributes:
        worker: The worker, ready.
        redis: Its Redis.
        env: The environment of a producer.
    """

    worker: LocalProcess
    redis: RedisServer
    env: dict[str, str]

    def ask(self, count: int) -> None:
        """Have a producer ask one program so many new questions, and wait for their answers."""
        self.run(
            "from dspyq import predict\n"
            "rows = [{'question': f'{stem} {number}'} for number in range(count)]\n"
            "return len([job.get(timeout=120) for job in predict.many(rows, program='qa')])",
            count=count,
            stem=f"{time.monotonic_ns()}",
        )

    def run(self, code: str, **arguments: Any) -> Any:
        """Run a producer and return its result."""
        producer = Producer(code, arguments, self.env)
        try:
            return producer.result(_START_SECONDS)
        finally:
            producer.close()

    def scrape(self) -> tuple[float, str]:
        """Read the worker's metrics; return how long it took, and their text."""
        (url,) = re.findall(r"metrics are served at (http\S+)", self.worker.logs())
        began_at = time.perf_counter()
        with urllib.request.urlopen(url, timeout=30) as page:  # noqa: S310 - the worker's own
            text: str = page.read().decode()
        return time.perf_counter() - began_at, text


@contextmanager
def start_fleet(programs: int, *, variants: int = 1) -> Iterator[Fleet]:
    """Start a worker of so many programs, ``qa`` and others, each with so many variants."""
    with ExitStack() as started:
        folder = Path(started.enter_context(TemporaryDirectory(prefix="benchmark-")))
        redis = started.enter_context(RedisServer())
        endpoint = started.enter_context(Endpoint())
        names = ["control", *(f"variant{number}" for number in range(1, variants))]
        shares = {name: {"model": "control", "weight": 1 / variants} for name in names}
        one = {"signature": "question -> answer", "variants": shares}
        changes = {
            "delivery": None,
            "metrics": {"port": 0},
            "workers": {"concurrency": _CONCURRENCY},
            "programs": {"qa": one} | {f"p{number:03}": one for number in range(programs - 1)},
        }
        path = write_settings(folder / "dspyq.toml", merged(default_document(endpoint.url), changes))
        env = environment(path, redis.url, {"LITELLM_LOCAL_MODEL_COST_MAP": "true"})
        worker = started.enter_context(
            LocalProcess("worker", list(DSPYQ.worker_command), ready_line=" ready.", env=env)
        )
        worker.ready(_START_SECONDS)
        yield Fleet(worker, redis, env)
