"""Calls of a killed arm in one process: with a Redis that is gone, for a batch, and in a repetition of the script."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from dspyq.batch.account import BatchAccount
from dspyq.config.settings import load_settings
from dspyq.guards.billing import BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import ArmKilled, Refusal
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.runner import build_programs
from dspyq.store.keys import killed_arms_key
from dspyq.store.scripts import run_together
from tests.support.configuration import default_document, merged, with_challenger, write_settings
from tests.support.experiments import with_experiment

BATCH = "00ff00ff00ff00ff"


@pytest.fixture
def settings(endpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MODEL_API_KEY", "x")
    document = merged(with_challenger(default_document(endpoint.url)), with_experiment())
    return load_settings(write_settings(tmp_path / "dspyq.toml", document))


@pytest.fixture
def run(settings: Any, client: redis.Redis) -> Any:
    """Run a variant once: ``run("challenger")``."""
    runners = build_programs(settings, None, Guards(settings, client))
    with ExitStack() as opened:
        for runner in runners.values():
            opened.callback(runner.close)
        yield lambda variant, batch="": runners["qa", variant].run(
            {"question": "x"}, Ledger(JobRun("t", "", "qa", variant, 1, batch))
        )


def test_a_batchs_call_of_a_killed_arm_is_refused_and_the_controls_is_not(
    run: Any, client: redis.Redis, endpoint: Any
) -> None:
    BatchAccount(client, BATCH).open()
    client.sadd(killed_arms_key(), "qa.challenger")
    for batch in ("", BATCH):
        with pytest.raises(ArmKilled, match="the arm challenger of the experiment of qa was killed"):
            run("challenger", batch)
        assert run("control", batch).outputs
    assert endpoint.counts().calls_by_model == {"control": 2}


def test_a_call_that_was_held_before_its_arm_was_killed_is_refused_when_it_is_held_again(
    settings: Any, client: redis.Redis
) -> None:
    budget = Budget(client, settings)
    call = BilledCall("t:1", "qa", "challenger", "challenger")
    assert run_together(client, [budget.hold(call, 10)])[0].is_held
    client.sadd(killed_arms_key(), "qa.challenger")
    assert run_together(client, [budget.hold(call, 10)])[0].verdict == "killed"


def test_while_redis_is_gone_a_challengers_call_waits_and_the_controls_does_not(
    settings: Any, fresh_redis_server: Any, endpoint: Any
) -> None:
    server = fresh_redis_server()
    with server.client(decode_responses=False) as client, ExitStack() as opened:
        runners = build_programs(settings, None, Guards(settings, client))
        for runner in runners.values():
            opened.callback(runner.close)
        server.close()
        ledgers = {variant: Ledger(JobRun("t", "", "qa", variant, 1)) for variant in ("challenger", "control")}
        with pytest.raises(Refusal, match="whether its arm of the experiment is killed"):
            runners["qa", "challenger"].run({"question": "x"}, ledgers["challenger"])
        assert runners["qa", "control"].run({"question": "x"}, ledgers["control"]).outputs
    assert endpoint.counts().calls_by_model == {"control": 1}
