"""Whole programs through the batch interfaces of Anthropic and Gemini, exact to the nano-dollar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.lane.conftest import LANES, LaneRun
from tests.lane.provider_support import client as provider_client
from tests.lane.provider_support import ended, submit
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

_LATE_SECONDS = 60
#: Each protocol's program, of two calls that follow each other.
PROGRAMS = {"anthropic": "claude", "gemini": "flash"}


def document_of(endpoint_url: str) -> dict[str, Any]:
    """Return the configuration: a model and a program of each protocol."""
    base = merged(default_document(endpoint_url), LANES)
    models, programs = {}, {}
    for protocol, name in PROGRAMS.items():
        root = endpoint_url + ("beta" if protocol == "gemini" else "")
        changes = {"model": f"{protocol}/m", "api_base": root, "batch": protocol}
        models[name] = base["models"]["control"] | changes
        programs[name] = base["programs"]["twice"] | {"variants": {"control": {"model": name}}}
    return merged(base, {"models": models, "programs": programs})


@pytest.fixture(scope="module")
def settings(session_endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_settings(tmp_path_factory.mktemp("protocols") / "lanes.toml", document_of(session_endpoint.url))


@pytest.fixture(scope="module", autouse=True)
def worker_of_both(
    settings: Path, session_redis_server: RedisServer, session_shared_workers: list[Worker], nursery: Path
) -> Iterator[Worker]:
    """A worker of both models, for all tests here."""
    del nursery
    while session_shared_workers:
        session_shared_workers.pop().close()
    worker = Worker(environment(settings, session_redis_server.url))
    worker.ready()
    yield worker
    worker.close()


@pytest.fixture(params=list(PROGRAMS))
def program(request: pytest.FixtureRequest) -> str:
    return PROGRAMS[request.param]


@pytest.fixture(autouse=True)
def _empty_lane(client: redis.Redis) -> Iterator[None]:
    yield
    wait_until(lambda: left_in(client) == [], _LATE_SECONDS, lambda: f"{left_in(client)} to go")


def left_in(client: redis.Redis) -> list[bytes]:
    """Return the keys of lanes but their history."""
    return [key for key in client.keys("dspy:v1:lane*") if not key.endswith(b":past")]


def is_exact(done: LaneRun, endpoint: Endpoint) -> bool:
    """Return True if the batch's account is the endpoint's bill, and nothing is held."""
    return (done.settled_nano_usd, done.held_nano_usd) == (endpoint.batches.bill().nano_usd, 0)


def test_a_program_of_two_calls_costs_half_in_two_rounds(
    run_lane: Callable[..., LaneRun], settings: Path, endpoint: Endpoint, program: str, client: redis.Redis
) -> None:
    done = run_lane(program, 10, settings=settings)
    assert len(done.answers) == 10
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.billed_twice, endpoint.calls()) == (20, [], 0)
    assert is_exact(done, endpoint)
    wait_until(lambda: left_in(client) == [], _LATE_SECONDS, "the end of the lane")
    assert endpoint.batches.files() == []


def test_a_creation_whose_reply_was_lost_is_not_repeated(
    run_lane: Callable[..., LaneRun], settings: Path, endpoint: Endpoint, program: str
) -> None:
    endpoint.batches.script(times=1, loses_reply=True)
    done = run_lane(program, 5, settings=settings)
    assert len(done.answers) == 5
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.billed_twice) == (10, [])
    assert is_exact(done, endpoint)


@pytest.mark.long  # the clients' own tests have each such line
def test_lines_that_expire_or_fail_for_a_while_are_asked_again(
    run_lane: Callable[..., LaneRun], settings: Path, endpoint: Endpoint, program: str
) -> None:
    endpoint.batches.script(times=2, expired_share=0.2, failed_share=0.2, failed_status=503, cut_results=1)
    done = run_lane(program, 12, settings=settings)
    assert len(done.answers) == 12
    assert endpoint.batches.counts().billed_twice == []
    assert is_exact(done, endpoint)


@pytest.mark.journey
def test_a_strangers_batch_of_as_many_lines_is_not_taken_for_one_without_a_name(
    begin_lane: Callable[..., Future[LaneRun]], settings: Path, endpoint: Endpoint
) -> None:
    stranger = provider_client(endpoint, "anthropic")
    ended(stranger, submit(stranger, "anthropic", "", 5, "before").id)
    cost = endpoint.batches.bill().nano_usd
    endpoint.batches.script(times=1, loses_reply=True, list_lag_seconds=1.5)
    running = begin_lane("claude", 5, settings=settings)
    endpoint.batches.wait_for_batches(2)
    ended(stranger, submit(stranger, "anthropic", "", 5, "within").id)
    done = running.result(2 * _LATE_SECONDS)
    counts = endpoint.batches.counts()
    assert len(done.answers) == 5
    assert (counts.lines_billed, counts.billed_twice, endpoint.calls()) == (10 + 10, [], 0)
    strangers = endpoint.batches.bill().nano_usd - done.settled_nano_usd
    assert (strangers > cost, done.held_nano_usd) == (True, 0)


def test_a_request_that_is_refused_for_good_fails_its_row(
    run_lane: Callable[..., LaneRun], settings: Path, endpoint: Endpoint, program: str
) -> None:
    endpoint.batches.script(failed_share=1.0, failed_status=400)
    done = run_lane(program, 2, settings=settings, ok=False)
    assert {row["error"]["type"] for row in done.rows} == {"PredictionFailed"}
    assert endpoint.calls() == 0
    assert is_exact(done, endpoint)
