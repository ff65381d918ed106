"""The users of ``deploy/redis/users.acl``: each part of a deployment runs with its own rights, and has no others."""

import importlib.util
import json
import re

import pytest
import redis

from dspyq.sealing.keyring import new_key_line
from tests.support.configuration import environment, merged
from tests.support.deployment import DEPLOY
from tests.support.door import Door
from tests.support.experiments import with_experiment

PREFIX = "shop:"
QUEUES = ("qa.*", "dspyq", "dspyq.batches")
FORGE = "redis.call('SET', ARGV[1], 'forged')"
RAISE = "redis.call('HSET', ARGV[1], 'all:day', '999')"


def written():
    """``deploy/redis/users.py``, which writes the file."""
    specification = importlib.util.spec_from_file_location("users", DEPLOY / "redis" / "users.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def server(fresh_redis_server):
    """A server that has loaded such a file, for another prefix; its default user is the test's own."""
    server = fresh_redis_server()
    for name, rules in written().users(PREFIX, QUEUES).items():
        server.cli("ACL", "SETUSER", name, "reset", "on", f">change-me-{name}", *split(rules))
    return server


def split(rules):
    return re.findall(r"\([^)]*\)|\S+", rules)


def env_of(server, user):
    url = f"redis://{user}:change-me-{user}@127.0.0.1:{server.port}/0"
    return {
        "DSPYQ_REDIS_URL": url,
        "DSPYQ_KEY_PREFIX": PREFIX,
        "DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]',
        "DSPYQ_WORKERS__REMOTE_CONTROL": "false",
    }


def refusals(server):
    log = [_table(entry) for entry in server.cli("ACL", "LOG", 100)]
    return [(each["username"], each["context"], each["reason"], each["object"]) for each in log]


def _table(entry):
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))


def test_the_file_is_what_its_program_writes_and_a_server_loads_it(fresh_redis_server):
    module = written()
    found = (DEPLOY / "redis" / "users.acl").read_text()
    queues = dict.fromkeys(
        queue
        for name in ("dspyq.toml", "demo.toml")
        for queue in module.queues_of(module.load_settings(DEPLOY.parent / "config" / name))
    )
    assert found == module.file_of(module.users("", queues)), "run: python deploy/redis/users.py"
    server = fresh_redis_server()
    for line in found.splitlines()[1:]:
        _, name, *rules = line.split(maxsplit=2)
        assert server.cli("ACL", "SETUSER", name, "reset", *split(rules[0])) in {"OK", True}


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
    *(["keys", "create", "--tenant", "t", "--name", "n", "--json"], ["keys", "list"], ["keys", "log"]),
    *(["budget", "set", "--daily", "10"], ["budget", "show"], ["budget", "set", "--daily", "none"]),
    *(["tenants", "limit", "t", "--daily", "5"], ["tenants", "show", "t"], ["tenants", "forget", "t", "--yes"]),
    *(["breaker", "open", "control"], ["breaker", "close", "control"], ["breaker", "reset", "control"]),
    *(["queues", "list"], ["queues", "forget"], ["dead", "list"]),
    *(["cache", "stats"], ["cache", "clear", "--program", "qa"], ["forget"], ["check"], ["batch", "list"]),
)


def test_an_operator_runs_every_command_of_operation(server, dspyq):
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


@pytest.fixture
def guarded_door(server, session_settings_file, endpoint, nursery, dspyq):
    """The door with its user's rights, and a key that the operator made."""
    del endpoint, nursery
    made = dspyq("keys", "create", "--tenant", "t", "--name", "n", "--json", env=env_of(server, "operator"))
    with Door(environment(session_settings_file, None, env_of(server, "door"))) as door:
        door.ready()
        yield door, json.loads(made.stdout)["key"]


def test_the_door_answers_streams_cancels_and_deletes_with_its_own_users_rights(server, guarded_door, worker, endpoint):
    door, key = guarded_door
    worker(env=env_of(server, "worker"))
    door.api.headers["Authorization"] = f"Bearer {key}"
    answered = door.ask("a", prefer="wait=20", headers={"Idempotency-Key": '"one"'})
    assert answered.json()["outputs"] == {"answer": "echo:a"}
    with door.api.stream("GET", answered.json()["urls"]["events"]) as events:
        assert "completed" in events.read().decode()
    assert door.api.delete(answered.json()["urls"]["self"]).status_code in {200, 204}
    endpoint.hold(containing="held")
    held = door.ask("held", prefer="respond-async").json()
    assert door.api.post(held["urls"]["cancel"]).json()["status"] == "cancelled"
    endpoint.release()
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
    *((user, "HSET", f"{PREFIX}dspy:v1:breaker:m", "state", "open") for user in ("watcher", "producer", "batch")),
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
        if name == "EVALSHA":
            command[1] = server.cli("SCRIPT", "LOAD", first)
        with pytest.raises(redis.exceptions.ResponseError) as refused:
            clients[user].execute_command(*command)
        assert re.search("no permission|can't access|ACL failure", str(refused.value), re.IGNORECASE), (user, command)
    for client in clients.values():
        client.close()
    assert server.cli("GET", f"{PREFIX}celery-task-meta-x") == "an answer"
    assert not server.keys(f"{PREFIX}dspy:v1:budget*")


def test_the_door_may_delete_an_answer_but_not_write_one(server):
    server.cli("SET", f"{PREFIX}celery-task-meta-x", "an answer")
    with redis.Redis(port=server.port, username="door", password="change-me-door") as door:
        assert door.delete(f"{PREFIX}celery-task-meta-x") == 1
