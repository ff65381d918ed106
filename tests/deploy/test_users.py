"""The users of ``deploy/redis/users.acl``: each part of a deployment runs with its own rights, and has no others."""

import json

import pytest
import redis

from tests.support.deployment import DEPLOY

PREFIX = "shop:"


@pytest.fixture
def server(fresh_redis_server):
    """A server with those users; ``url(user)`` is theirs."""
    server = fresh_redis_server()
    for line in (DEPLOY / "redis" / "users.acl").read_text().splitlines():
        _, name, *rules = line.split()
        if name != "default":  # the test's own
            server.cli("ACL", "SETUSER", name, "reset", *rules)
    return server


def env_of(server, user):
    url = f"redis://{user}:change-me-{user}@127.0.0.1:{server.port}/0"
    return {
        "DSPYQ_REDIS_URL": url,
        "DSPYQ_KEY_PREFIX": PREFIX,
        "DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]',
    }


def refusals(server):
    return [(each["username"], each["context"], each["object"]) for each in map(_table, server.cli("ACL", "LOG"))]


def _table(entry):
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))


def test_each_part_of_a_deployment_works_with_its_own_users_rights(
    server, worker, start_producer, dspyq, endpoint, tmp_path
):
    def ask():
        from celery import chord
        from celery.exceptions import TaskRevokedError

        from dspyq import predict
        from tests.support.user_tasks import collect

        answers = [predict.delay(question="a").get(timeout=30).answer]
        answers += [each.get(timeout=30).answer for each in predict.many([{"question": "b"}])]
        answers += chord([predict.s(question="c")], collect.s()).delay().get(timeout=30)
        held = predict.delay(question="held")
        is_ended = held.cancel()
        try:
            held.get(timeout=20)
        except TaskRevokedError:
            return [answers, is_ended, "revoked"]

    endpoint.hold(containing="held")
    running = worker(env=env_of(server, "worker"))
    done = start_producer(ask, env=env_of(server, "producer")).result(60)
    assert done == [["echo:a", "echo:b", "echo:c"], True, "revoked"]
    endpoint.release()
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"question": "d"}\n')
    dspyq("batch", "run", str(rows), "--output", str(out), env=env_of(server, "batch"))
    assert json.loads(out.read_text())["outputs"] == {"answer": "echo:d"}
    commands = (
        ["variants"],
        ["costs"],
        ["budget", "show"],
        ["breaker", "show"],
        ["batch", "list"],
        ["cache", "stats"],
    )
    for command in commands:
        dspyq(*command, env=env_of(server, "watcher"))

    def watch():
        from dspyq.celery_app.application import app

        return [len(app.control.ping(timeout=3)), len(app.control.inspect(timeout=3).active_queues())]

    assert start_producer(watch, env=env_of(server, "watcher")).result(30) == [1, 1]
    dspyq("check", env=env_of(server, "worker"))
    assert running.is_running
    assert [each for each in refusals(server) if "celery-task-meta" not in each[2]] == []


def test_no_part_of_a_deployment_has_the_rights_of_another(server):
    def client(user):
        return redis.Redis(port=server.port, username=user, password=f"change-me-{user}")

    refused = [
        ("producer", "SET", f"{PREFIX}celery-task-meta-x", "forged"),
        ("batch", "SET", f"{PREFIX}celery-task-meta-x", "forged"),
        ("watcher", "SET", f"{PREFIX}dspy:v1:dead", "forged"),
        ("watcher", "DEL", f"{PREFIX}celery-task-meta-x"),
        ("worker", "GET", "blog:dspy:v1:dead"),
        *(
            (user, *command)
            for user in ("worker", "producer", "batch", "watcher")
            for command in (
                ("FLUSHALL",),
                ("KEYS", "*"),
                ("CONFIG", "GET", "*"),
                ("ACL", "LIST"),
                ("MONITOR",),
                ("SCRIPT", "FLUSH"),
            )
        ),
    ]
    for user, *command in refused:
        with client(user) as connection, pytest.raises(redis.exceptions.NoPermissionError):
            connection.execute_command(*command)
