"""The users of ``deploy/redis/users.acl``: each part of a deployment runs with its own rights, and has no others."""

import json
import re
import runpy

import pytest
import redis

from dspyq.sealing.keyring import new_key_line
from tests.support.configuration import merged
from tests.support.deployment import DEPLOY
from tests.support.experiments import with_experiment
from tests.support.redis_users import PREFIX, env_of, load_file, load_users, refusals

FORGE = "redis.call('SET', ARGV[1], 'forged')"
RAISE = "redis.call('HSET', ARGV[1], 'all:day', '999')"
OPEN = "redis.call('HSET', KEYS[1], 'state', 'open')"
LOOK = "return redis.call('HGETALL', KEYS[1])"


@pytest.fixture
def server(fresh_redis_server):
    server = fresh_redis_server()
    load_users(server)
    return server


def test_the_file_is_what_its_program_writes_and_a_server_loads_it(fresh_redis_server):
    found = (DEPLOY / "redis" / "users.acl").read_text()
    assert found == runpy.run_path(str(DEPLOY / "redis" / "users.py"))["text"](), "run: python deploy/redis/users.py"
    load_file(fresh_redis_server(), found)


def test_a_command_prints_the_file_of_a_configuration(dspyq, fresh_redis_server, settings_file):
    env = {"DSPYQ_KEY_PREFIX": PREFIX, "DSPYQ_WORKERS__REMOTE_CONTROL": "false"}
    printed = dspyq("users", env=env).stdout
    assert printed.startswith("user default off\n")
    assert f" ~{PREFIX}qa.* " in printed
    assert "pidbox" not in printed
    load_file(fresh_redis_server(), printed)
    told = json.loads(dspyq("users", "--json", settings=settings_file()).stdout)
    assert "&/0.celery.pidbox" in told["worker"]


@pytest.mark.journey
def test_each_part_of_a_deployment_works_with_its_own_users_rights(
    server, worker, start_producer, dspyq, endpoint, tmp_path
):
    def ask():
        from celery import chord, group
        from celery.exceptions import TaskRevokedError

        from dspyq import predict
        from tests.support.user_tasks import collect

        answers = [predict.delay(question="a").get(timeout=30).answer, predict.delay(question="a").get().answer]
        answers += [each.get(timeout=30).answer for each in predict.many([{"question": "b"}])]
        answers += [each.answer for each in group(predict.s(question="b2")).apply_async().get(timeout=30)]
        answers += chord([predict.s(question="c")], collect.s()).delay().get(timeout=30)
        held = predict.delay(question="held")
        waiting = predict.delay(question="held")
        ended = [held.cancel(), waiting.cancel()]
        try:
            held.get(timeout=20)
        except TaskRevokedError:
            return [answers, ended, "revoked", waiting.id]

    endpoint.hold(containing="held")
    running = worker(env=env_of(server, "worker"))
    *done, cancelled_id = start_producer(ask, env=env_of(server, "producer")).result(60)
    assert done == [["echo:a", "echo:a", "echo:b", "echo:b2", "echo:c"], [False, True], "revoked"]

    def wait(task_id):
        from dspyq.celery_app.application import app

        return app.AsyncResult(task_id).get(timeout=30, propagate=False).__class__.__name__

    stored = start_producer(wait, env=env_of(server, "producer"), task_id=cancelled_id)
    assert stored.result(60) == "TaskRevokedError"  # by a worker
    endpoint.release()
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"question": "d"}\n')
    assert "echo:a" in dspyq("predict", "question=a", env=env_of(server, "producer")).stdout
    dspyq("batch", "run", str(rows), "--output", str(out), env=env_of(server, "batch"))
    assert json.loads(out.read_text())["outputs"] == {"answer": "echo:d"}
    for command in WATCHED:
        dspyq(*command, env=env_of(server, "watcher"))
    assert running.is_running
    assert refusals(server) == []
    for user in ("worker", "producer", "batch", "door", "watcher", "operator"):
        dspyq("check", env=env_of(server, user))  # it names what this user may not look at


WATCHED = (
    *(["variants"], ["costs"], ["budget", "show"], ["breaker", "show"], ["batch", "list"], ["cache", "stats"]),
    ["tenants", "list"],
)
OPERATED = (
    *(["keys", "create", "--tenant", "t", "--name", "n", "--json"], ["budget", "set", "--daily", "10"]),
    *(["tenants", "limit", "t", "--daily", "5"], ["tenants", "forget", "t", "--yes"]),
    *(["breaker", "open", "control"], ["breaker", "reset", "control"], ["queues", "forget"]),
    *(["cache", "clear", "--program", "qa"], ["guards", "forget"]),
)


@pytest.mark.journey
def test_an_operator_changes_keys_limits_breakers_and_queues(server, dspyq):
    """All commands of all users are in test_users_commands.py."""
    for command in OPERATED:
        dspyq(*command, env=env_of(server, "operator"))
    assert refusals(server) == []


EXPERIMENTED = (
    *(["experiment", "start", "qa"], ["experiment", "status", "qa"], ["experiment", "ramp", "qa", "0.5"]),
    *(["experiment", "pause", "qa"], ["experiment", "resume", "qa"], ["experiment", "log", "qa"]),
    *(["encryption", "status", "--json"], ["encryption", "rotate", "--json"]),
)


@pytest.fixture
def judged_and_sealed(settings_file, tmp_path):
    """A configuration with an experiment that takes feedback, and content sealed."""
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    changes = with_experiment(feedback={"thumbs": {"low": 0, "high": 1}})
    stated = {"encryption": {"keys_file": str(keys)}, "programs": {"qa": {"encrypt": True}}}
    return settings_file(merged(changes, stated), challenger=0.5)


@pytest.mark.journey
def test_an_operator_runs_experiments_and_forgets_a_tenant_whose_content_is_sealed(
    server, worker, dspyq, start_producer, judged_and_sealed
):
    def ask():
        from dspyq import predict

        jobs = [
            predict.apply_async(kwargs={"question": f"question {unit}"}, unit=f"unit {unit}", tenant="acme")
            for unit in range(4)
        ]
        return [job.get(timeout=40).metadata.exposure for job in jobs]

    operator = {"env": env_of(server, "operator"), "settings": judged_and_sealed}
    for command in EXPERIMENTED:
        dspyq(*command, **operator)
    worker(judged_and_sealed, env=env_of(server, "worker"))
    tokens = start_producer(ask, judged_and_sealed, env=env_of(server, "producer")).result(60)
    token = next(filter(None, tokens))
    dspyq("feedback", token, "thumbs=1", **operator)
    dspyq("feedback", token, "thumbs=1", env=env_of(server, "producer"), settings=judged_and_sealed)
    dspyq("experiment", "status", "qa", **operator)
    told = json.loads(dspyq("forget", "--tenant", "acme", "--yes", "--json", **operator).stdout)
    assert (told["answers"], bool(told["key_id"])) == (4, True)
    dspyq("forget", "--before", "2026-01-01", "--yes", **operator)
    dspyq("experiment", "stop", "qa", **operator)
    assert refusals(server) == []


REFUSED = [
    *((user, "SET", f"{PREFIX}celery-task-meta-x", "forged") for user in ("producer", "batch", "door", "watcher")),
    *((user, "EVAL", FORGE, 0, f"{PREFIX}celery-task-meta-x") for user in ("producer", "batch", "door")),
    *((user, "EVALSHA", FORGE, 0, f"{PREFIX}celery-task-meta-x") for user in ("producer", "batch", "door", "watcher")),
    *((user, "PUBLISH", f"{PREFIX}celery-task-meta-x", "forged") for user in ("producer", "batch", "door", "watcher")),
    *((user, "PUBLISH", f"{PREFIX}/0.celery.pidbox", "shutdown") for user in ("producer", "batch", "door", "worker")),
    *((user, "HSET", f"{PREFIX}dspy:v1:budget-limits", "all:day", 9) for user in ("producer", "batch", "worker")),
    *((user, "EVALSHA", RAISE, 0, f"{PREFIX}dspy:v1:budget-limits") for user in ("producer", "batch", "worker")),
    *((user, "HSET", f"{PREFIX}dspy:v1:budget:all:day", "spent", 0) for user in ("producer", "batch", "door")),
    *((user, "HGETALL", f"{PREFIX}dspy:v1:key:abc") for user in ("producer", "batch", "worker", "watcher")),
    *((user, "HSET", f"{PREFIX}dspy:v1:key:abc", "f", 1) for user in ("producer", "batch", "worker", "watcher")),
    *((user, "GET", f"{PREFIX}dspy:v1:serve-secret") for user in ("producer", "batch", "worker", "watcher")),
    *((user, "GET", f"{PREFIX}celery-task-meta-x") for user in ("watcher",)),
    *((user, "HGETALL", f"{PREFIX}dspy:v1:job:x") for user in ("watcher",)),
    *((user, "HSET", f"{PREFIX}dspy:v1:breaker:m", "state", 1) for user in ("producer", "batch", "door", "watcher")),
    *(
        (user, name, OPEN, 1, f"{PREFIX}dspy:v1:{kind}:m")
        for user in ("producer", "batch", "door", "watcher")
        for name in ("EVALSHA", "EVALSHA_RO")
        for kind in ("breaker", "rate")
    ),
    *((user, "HSET", f"{PREFIX}dspy:v1:rate:m", "gate_until", 9) for user in ("producer", "batch", "door", "watcher")),
    *((user, "EVALSHA_RO", LOOK, 1, f"{PREFIX}dspy:v1:key:abc") for user in ("producer", "batch", "worker", "watcher")),
    *((user, "EVAL_RO", LOOK, 1, f"{PREFIX}dspy:v1:breaker:m") for user in ("producer", "batch", "door", "watcher")),
    *((user, "PSUBSCRIBE", f"{PREFIX}celery-task-meta-*") for user in ("producer", "batch", "door", "watcher")),
    *((user, "PSUBSCRIBE", f"{PREFIX}dspy:v1:stream:*") for user in ("producer", "batch", "door", "watcher")),
    *(("watcher", "SUBSCRIBE", f"{PREFIX}{channel}x") for channel in ("celery-task-meta-", "dspy:v1:stream:")),
    *((user, "PUBSUB", "CHANNELS") for user in ("worker", "producer", "batch", "door", "watcher")),
    *((user, "SUBSCRIBE", "blog:celery-task-meta-x") for user in ("worker", "producer", "batch", "door", "operator")),
    ("watcher", "PSUBSCRIBE", f"{PREFIX}dspy:v1:*"),
    *((user, "SCAN", 0) for user in ("producer", "door")),
    ("watcher", "SET", f"{PREFIX}dspy:v1:dead", "forged"),
    ("watcher", "DEL", f"{PREFIX}celery-task-meta-x"),
    *((user, "GET", "blog:dspy:v1:dead") for user in ("worker", "producer", "batch", "door", "watcher", "operator")),
    *(
        (user, *command)
        for user in ("worker", "producer", "batch", "door", "watcher", "operator")
        for command in (
            ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("MONITOR",), ("SCRIPT", "FLUSH"),
        )
    ),
]  # fmt: skip


def test_no_part_of_a_deployment_has_the_rights_of_another(server):
    server.cli("SET", f"{PREFIX}celery-task-meta-x", "an answer")
    clients = {
        user: redis.Redis(port=server.port, username=user, password=f"change-me-{user}")
        for user in dict.fromkeys(user for user, *_ in REFUSED)
    }
    for user, name, first, *rest in [(*each, "")[:3] + tuple(each[3:]) for each in REFUSED]:
        command = [name, *([first] if first != "" else []), *rest]
        if name.startswith("EVALSHA"):
            command[1] = server.cli("SCRIPT", "LOAD", first)
        with pytest.raises(redis.exceptions.ResponseError) as refused:
            clients[user].execute_command(*command)
        assert re.search("no permission|can't access|ACL failure", str(refused.value), re.IGNORECASE), (user, command)
    for client in clients.values():
        client.close()
    assert server.cli("GET", f"{PREFIX}celery-task-meta-x") == "an answer"
    assert not server.keys(f"{PREFIX}dspy:v1:*")


def test_the_door_may_delete_an_answer_but_not_write_one(server):
    server.cli("SET", f"{PREFIX}celery-task-meta-x", "an answer")
    with redis.Redis(port=server.port, username="door", password="change-me-door") as door:
        assert door.delete(f"{PREFIX}celery-task-meta-x") == 1
