"""A call that is cut short because its run has lost its job: charged once at its bound, and blamed on none."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from dspyq.config.settings import load_settings
from dspyq.core.money import to_nano_usd
from dspyq.guards.breaker import FleetBreaker
from dspyq.guards.breaker_state import BreakerPolicy
from dspyq.guards.call_records import JobRun
from dspyq.guards.costs import read_costs
from dspyq.guards.interruptions import JobLost
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.runner import build_programs
from dspyq.programs.tap import Tap
from dspyq.store.scripts import run_together
from dspyq.streaming.run_log import RunLog
from tests.support.configuration import default_document, write_settings

pytestmark = pytest.mark.usefixtures("own_secrets")

QUESTION = {"question": "x"}


@pytest.fixture
def guarded(endpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> Any:
    """A runner behind the guards, and its settings."""
    monkeypatch.setenv("MODEL_API_KEY", "x")
    document = default_document(endpoint.url) | {"breaker": {"failure_threshold": 1}}
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    (runner,) = build_programs(settings, None, Guards(settings, client)).values()
    with closing(runner):
        yield runner, settings


def start(runner: Any, ledger: Ledger, log: RunLog) -> tuple[threading.Thread, list[BaseException]]:
    ledger.tap = Tap(log)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            runner.run(QUESTION, ledger)
        except BaseException as error:  # noqa: BLE001 - what ends it is the point
            raised.append(error)

    running = threading.Thread(target=run)
    running.start()
    return running, raised


@pytest.mark.parametrize("state", ["before the reply", "in mid-stream"])
def test_a_cut_call_is_charged_once_at_its_bound_and_ledger_and_books_agree(
    guarded: Any, endpoint: Any, client: redis.Redis, state: str
) -> None:
    runner, settings = guarded
    spoken = threading.Event()
    log, ledger = RunLog("t", "", spoken.set), Ledger(JobRun("t", "", "qa", "control", 1))
    if state == "before the reply":
        endpoint.hold()
    else:
        endpoint.script(outputs={"answer": "a long answer"}, piece_characters=4, piece_interval_seconds=0.5)
    running, raised = start(runner, ledger, log)
    endpoint.wait_for_calls(1)
    if state == "in mid-stream":
        assert spoken.wait(60)
    log.lose()
    running.join(60)
    assert [type(error) for error in raised] == [JobLost]
    endpoint.wait_until_idle()
    assert (endpoint.calls(), endpoint.counts().abandoned) == (1, 1)
    (call,) = ledger.calls
    assert (call.outcome, call.is_estimated) == ("cut", True)
    (line,) = read_costs(client, settings, days=1)
    assert line.billed_nano_usd == 0
    assert line.unknown_nano_usd == to_nano_usd(call.cost_usd) > 0
    assert not client.exists("dspy:v1:budget:leases")
    model = settings.models["control"]
    (breaker,) = run_together(client, [FleetBreaker(client, "control", BreakerPolicy.of(settings, model)).read()])
    assert breaker.name == "closed"


def test_a_run_that_was_lost_before_its_call_sends_and_pays_nothing(
    guarded: Any, endpoint: Any, client: redis.Redis
) -> None:
    runner, settings = guarded
    log, ledger = RunLog("t", "", lambda: None), Ledger(JobRun("t", "", "qa", "control", 1))
    log.lose()
    running, raised = start(runner, ledger, log)
    running.join(60)
    assert [type(error) for error in raised] == [JobLost]
    assert endpoint.calls() == 0
    assert sum(call.cost_usd or 0 for call in ledger.calls) == 0
    assert not read_costs(client, settings, days=1)
    assert not client.exists("dspy:v1:budget:leases")


def test_a_stream_ends_with_the_wall_clock_of_its_model(guarded: Any, endpoint: Any) -> None:
    runner, _ = guarded
    endpoint.script(outputs={"answer": "a long answer " * 20}, piece_characters=1, piece_interval_seconds=0.2)
    ledger = Ledger(JobRun("t", "", "qa", "control", 1), deadline_seconds=1.0)
    running, raised = start(runner, ledger, RunLog("t", "", lambda: None))
    running.join(20)
    assert len(raised) == 1
    assert [call.outcome for call in ledger.calls] == ["timeout"]
    endpoint.wait_until_idle()
