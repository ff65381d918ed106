"""A run of every feature leaves no content that a reader of Redis or of a batch's files could read."""

from __future__ import annotations

import json

import pytest

from tests.sealing.canary import CANARY, ask_in_every_way, legible_commands, legible_keys, run_batch
from tests.support.configuration import environment
from tests.support.door import Door
from tests.support.experiments import with_experiment
from tests.support.processes import eventually

ENV = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]', "DSPYQ_CACHE__MEMORY_ENTRIES": "0"}
TOLD = {
    "answered": f"echo:{CANARY} one",
    "again": f"echo:{CANARY} one",
    "many": [f"echo:{CANARY} {number}" for number in (1, 2, 3)],
    "many again": [f"echo:{CANARY} {number}" for number in (1, 2, 3)],
    "of a unit": f"echo:{CANARY} unit",
    "streamed": f"echo:{CANARY} stream",
    "failed": "PredictionFailed",
    "chained": f"echo:{CANARY} chain".upper(),
    "chord": [f"echo:{CANARY} a", f"echo:{CANARY} b"],
    "dead": "NotRegistered",
}


@pytest.fixture
def failing(endpoint):
    endpoint.script(containing="refused", status=400, body=json.dumps({"error": {"message": f"{CANARY} failed"}}))
    return endpoint


def test_predictions_of_every_fate_leave_no_canary(worker, failing, redis_server, run_producer, sealed, client):
    del failing  # scripted
    path = sealed()
    worker(path, env=ENV)
    with redis_server.monitored() as commands:
        assert run_producer(ask_in_every_way, path, env=ENV, canary=CANARY, timeout_seconds=90) == TOLD
        eventually(lambda: redis_server.keys("dspy:v1:dead"))
    assert legible_commands(commands) == set()
    assert legible_keys(client) == set()


@pytest.mark.long
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "control"])
def test_every_feature_leaves_no_canary_and_without_encryption_a_look_finds_them(
    is_sealed, worker, failing, redis_server, run_producer, dspyq, sealed, settings_file, tmp_path, client
):
    changes = with_experiment(keep_rows=True, feedback={"thumbs": {"low": 0, "high": 1}})
    changes |= {"serve": {"authentication": "none"}}
    indexed = {"encryption": {"index_units": True}}
    path = sealed(True, changes | indexed, challenger=0.5) if is_sealed else settings_file(changes, challenger=0.5)
    dspyq("experiment", "start", "qa", settings=path)
    worker(path, env=ENV)
    door = Door(environment(path, redis_server.url, ENV))
    try:
        door.ready()
        with redis_server.monitored() as commands:
            assert run_producer(ask_in_every_way, path, env=ENV, canary=CANARY, timeout_seconds=90) == TOLD
            once = {"Idempotency-Key": "order-1"}
            ids = {door.ask(f"{CANARY} door", headers=once).json()["id"] for _ in range(2)}
            assert len(ids) == 1
            kept = run_batch(dspyq, tmp_path, failing, path, ENV)
            eventually(lambda: redis_server.keys("dspy:v1:dead"))
        found, shown = legible_keys(client), legible_commands(commands)
        assert CANARY not in door.logs()
    finally:
        door.close()
    if is_sealed:
        assert (found, shown, set(kept.values())) == (set(), set(), {False})
        return
    assert {"celery-task-meta-ID", "dspy:v1:job:ID", "dspy:v1:stream:ID"} <= found
    assert {"PUBLISH", "EVALSHA"} <= shown
    assert kept["out.jsonl.input"]
    assert kept["out.jsonl.journal"] or kept["out.jsonl.journal-wal"]
