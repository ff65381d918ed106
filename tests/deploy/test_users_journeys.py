"""Journeys of a deployment under the users of Redis: shadow runs, a batch that dies, cancellation by id, and beat."""

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.configuration import environment
from tests.support.experiments import with_experiment
from tests.support.processes import LocalProcess, wait_until
from tests.support.redis_users import PREFIX, env_of, load_users, refusals

ROWS = 5
SCORERS = "tests.support.user_scorers"


@pytest.fixture
def server(fresh_redis_server):
    server = fresh_redis_server()
    load_users(server)
    return server


@pytest.fixture
def as_user(server, dspyq):
    """Run a command as a user, by the default configuration or another."""
    return lambda user, *command, **options: dspyq(*command, env=env_of(server, user), **options).stdout


def write_rows(path, *questions):
    path.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))


@pytest.mark.journey
def test_shadow_runs_are_asked_paired_and_shown_and_feedback_counts(
    server, worker, start_producer, settings_file, as_user
):
    def ask():
        from dspyq import predict

        jobs = [predict.apply_async(kwargs={"question": f"q{unit}"}, unit=f"unit {unit}") for unit in range(8)]
        answers = [job.get(timeout=60) for job in jobs]
        tokens = [answer.metadata.exposure for answer in answers]
        predict.feedback(tokens[0], name="thumbs", value=1)
        return [tokens, sum(answer.metadata.variant == "control" for answer in answers)]

    pair_scorers = {"prefers_brief": f"{SCORERS}:prefers_brief"}
    changes = with_experiment(
        scores={"brief": {"scorer": f"{SCORERS}:is_brief", "low": 0, "high": 2}},
        feedback={"thumbs": {"low": 0, "high": 1}},
        shadow={"variants": ["challenger"], "share": 1.0, "daily_usd": 10.0, "pair_scorers": pair_scorers},
    )
    changes["programs"]["qa"]["scorers"] = [f"{SCORERS}:is_brief"]
    settings = settings_file(changes, challenger=0.5)
    as_user("operator", "experiment", "start", "qa", settings=settings)
    worker(settings, env=env_of(server, "worker"))
    tokens, controls = start_producer(ask, settings, env=env_of(server, "producer")).result(90)
    as_user("producer", "feedback", tokens[1], "thumbs=0", settings=settings)

    def shown():
        (found,) = json.loads(as_user("watcher", "experiment", "status", "qa", "--json", settings=settings))
        return found["shadows"]["challenger"]

    wait_until(lambda: shown()["outcomes"].get("paired") == controls > 0, 60, lambda: f"{controls} pairs: {shown()}")
    as_user("watcher", "experiment", "report", "qa", "--json", settings=settings)
    assert refusals(server) == []


@pytest.mark.journey
def test_a_killed_batch_goes_on_from_its_journal_and_jobs_are_ended_by_their_ids(
    server, worker, start_producer, endpoint, session_settings_file, as_user, tmp_path
):
    def begin():
        from dspyq import predict

        return predict.delay(question="held for long").id

    def end(task_id):
        from dspyq.celery_app.application import app

        app.control.revoke(task_id)
        return app.AsyncResult(task_id).get(timeout=60, propagate=False).__class__.__name__

    worker(env=env_of(server, "worker"))
    endpoint.hold(containing="held")
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    write_rows(rows, *(f"early {number}" for number in range(3)), *(f"held {number}" for number in range(2)))
    arguments = ["batch", "run", str(rows), "--program", "qa", "--output", str(out)]
    env = environment(session_settings_file, None, env_of(server, "batch"))
    command = [sys.executable, "-m", "dspyq", *arguments]
    with closing(LocalProcess("batch", command, ready_line="batch ", env=env)) as batch:
        wait_until(lambda: endpoint.calls() == ROWS, 60, "all calls to begin")
        batch.kill()
    for user in ("producer", "operator"):
        task_id = start_producer(begin, env=env_of(server, "producer")).result(60)
        ended = start_producer(end, env=env_of(server, user), task_id=task_id)
        assert ended.result(90) == "TaskRevokedError"
    calls = endpoint.calls()
    endpoint.release()
    as_user("batch", *arguments)
    assert len(out.read_text().splitlines()) == ROWS
    assert endpoint.calls() == calls
    assert refusals(server) == []


@pytest.mark.journey
def test_beat_as_a_producer_has_a_worker_run_a_scheduled_batch(server, worker, settings_file, as_user, tmp_path):
    hour = (int(server.cli("TIME")[0]) // 3600 + 12) % 24  # half a day from now: no other time comes
    write_rows(tmp_path / "rows.jsonl", *(f"question {number}" for number in range(ROWS)))
    nightly = {"program": "qa", "input": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "out-{date}.jsonl")}
    settings = settings_file({"batches": {"nightly": nightly | {"schedule": f"0 {hour} * * *"}}})
    missed = int(server.cli("TIME")[0]) - 86_400
    server.cli("SET", f"{PREFIX}dspy:v1:batch-schedule-seen:nightly", missed)
    worker(settings, env=env_of(server, "worker"))
    command = [str(Path(sys.executable).with_name("celery")), "-A", "dspyq", "beat", "--schedule"]
    env = environment(settings, None, env_of(server, "producer"))
    with closing(LocalProcess("beat", [*command, str(tmp_path / "beat")], ready_line="beat: Starting", env=env)):

        def written():
            return [line for path in tmp_path.glob("out-*.jsonl") for line in path.read_text().splitlines()]

        wait_until(lambda: len(written()) == ROWS, 60, lambda: f"the rows: {written()}")
        wait_until(lambda: '"done"' in as_user("watcher", "batch", "schedule", "--json", settings=settings), 60, "done")
    assert refusals(server) == []
