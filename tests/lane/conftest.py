"""A worker that serves lanes, and batches through them at the endpoint, which bills and misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

#: Programs of one call, of two that follow each other, of two with the time in the second, and of three at once and one
#: more.
LANES: dict[str, Any] = {
    "models": {
        "control": {"batch": "openai", "batch_linger_seconds": 0.5, "batch_discount": 0.5, "timeout_seconds": 10}
    },
    "lane": {"first_poll_seconds": 0.2, "settle_seconds": 2},
    "programs": {
        "qa": {"lanes": ["provider"]},
        "twice": {
            "signature": "question -> answer",
            "class": "tests.support.dspy_programs:TwoSteps",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        },
        "clock": {
            "signature": "question -> answer",
            "class": "tests.support.dspy_programs:AsksTheTime",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        },
        "parallel": {
            "signature": "question -> answer",
            "class": "tests.support.dspy_programs:ThreeAndOne",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        },
    },
}


@dataclass(frozen=True)
class LaneRun:
    """A batch that ran.

    Attributes:
        rows: Lines of OUT.
        text: What it printed.
        settled_nano_usd: What its account settled.
        held_nano_usd: And holds.
    """

    rows: list[dict[str, Any]]
    text: str
    settled_nano_usd: int
    held_nano_usd: int

    @property
    def answers(self) -> list[str]:
        """The answers, of rows that have one."""
        return sorted(row["outputs"]["answer"] for row in self.rows if row["outputs"])


@pytest.fixture
def lane_settings(tmp_path: Path, endpoint: Endpoint) -> Callable[..., Path]:
    """Write the configuration of lanes, with changes."""

    def write(changes: dict[str, Any] | None = None, name: str = "lanes") -> Path:
        document = merged(merged(default_document(endpoint.url), LANES), changes or {})
        return write_settings(tmp_path / f"{name}.toml", document)

    return write


@pytest.fixture(scope="module")
def lane_worker(
    session_endpoint: Endpoint,
    session_redis_server: RedisServer,
    session_shared_workers: list[Worker],
    tmp_path_factory: pytest.TempPathFactory,
    nursery: Path,
) -> Iterator[Worker]:
    """A worker of the configuration of lanes, for all tests of a module."""
    del nursery
    while session_shared_workers:
        session_shared_workers.pop().close()
    settings = write_settings(
        tmp_path_factory.mktemp("lanes") / "lanes.toml", merged(default_document(session_endpoint.url), LANES)
    )
    worker = Worker(environment(settings, session_redis_server.url))
    worker.ready()
    yield worker
    worker.close()


@pytest.fixture
def run_lane(
    dspyq: Callable[..., Any], lane_settings: Callable[..., Path], client: Any, tmp_path: Path
) -> Callable[..., LaneRun]:
    """Run a batch of questions in the provider's lane: ``run_lane("twice", 20)``."""

    def run(
        program: str,
        rows: int,
        *arguments: str,
        settings: Path | None = None,
        ok: bool | None = True,
        lane: str = "provider",
        name: str = "rows",
        question: str = "question",
        timeout_seconds: float = 60.0,
    ) -> LaneRun:
        source, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out.jsonl"
        source.write_text("".join(json.dumps({"question": f"{question} {number}"}) + "\n" for number in range(rows)))
        command = ["batch", "run", str(source), "--program", program, "--output", str(out)]
        command += ["--lane", lane] if lane else []
        done = dspyq(*command, *arguments, settings=settings or lane_settings(), ok=ok, timeout_seconds=timeout_seconds)
        accounts = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4]
        settled = sum(int(client.hget(key, "settled") or 0) for key in accounts)
        held = sum(int(client.hget(key, "held") or 0) for key in accounts)
        lines = out.read_text().splitlines() if out.exists() else []
        return LaneRun([json.loads(line) for line in lines], done.stdout + done.stderr, settled, held)

    return run


@pytest.fixture
def begin_lane(run_lane: Callable[..., LaneRun]) -> Iterator[Callable[..., Any]]:
    """Begin a batch in the provider's lane; the returned future has its outcome."""
    with ThreadPoolExecutor() as pool:
        yield lambda *arguments, **options: pool.submit(run_lane, *arguments, **options)


def asleep(client: Any) -> int:
    """The number of jobs that sleep."""
    return sum(client.hexists(key, "asleep") for key in client.keys("dspy:v1:job:*"))
