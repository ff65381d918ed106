"""Deployments that share one Redis: each has a prefix of its own, and Redis lets each use nothing else."""

import pytest

PREFIXES = ("shop:", "blog-")
PASSWORD = "for-tests"
IMPORTS = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'}


@pytest.fixture
def deployments(fresh_redis_server):
    """The server and each deployment's environment; its user may use what begins with its prefix."""
    server = fresh_redis_server()
    environments = {}
    for prefix in PREFIXES:
        user = prefix[:-1]
        # A subscription to a pattern, as kombu's are, is allowed where that very pattern is named.
        broadcasts = [f"&{prefix}/0.{topic}" for topic in ("celery.pidbox", "celeryev/worker.*")]
        server.cli("ACL", "SETUSER", user, "on", f">{PASSWORD}", f"~{prefix}*", f"&{prefix}*", *broadcasts, "+@all")
        url = f"redis://{user}:{PASSWORD}@127.0.0.1:{server.port}/0"
        environments[prefix] = IMPORTS | {"DSPYQ_REDIS_URL": url, "DSPYQ_KEY_PREFIX": prefix}
    return server, environments


def test_two_deployments_share_a_redis_without_a_key_or_a_message_in_common(deployments, worker, start_producer):
    server, environments = deployments
    workers = [worker(env=env, waits=False) for env in environments.values()]

    def use():
        from celery import chord, group

        from dspyq import predict
        from dspyq.celery_app.application import app
        from tests.support.user_tasks import collect, make_question

        answers = [predict.delay(question="the same").get(timeout=30).metadata.cached]
        answers.append(predict.delay(question="the same").get(timeout=30).metadata.cached)
        answers += [each.get(timeout=30).answer for each in predict.many([{"question": "a"}, {"question": "b"}])]
        answers += chord([predict.s(question="c"), predict.s(question="d")], collect.s()).delay().get(timeout=30)
        answers.append((make_question.s("e") | predict.s()).delay().get(timeout=30).answer)
        answers += [each.answer for each in group(predict.s(question=text) for text in "fg").delay().get(timeout=30)]
        predict.delay(question="the same").forget()
        return [answers, len(app.control.ping(timeout=2)), len(app.control.inspect(timeout=2).active_queues())]

    for each in workers:
        each.ready()
    producers = [start_producer(use, env=env) for env in environments.values()]
    expected = [False, True, "echo:a", "echo:b", "echo:c", "echo:d", "echo:What of e?", "echo:f", "echo:g"]
    for producer in producers:
        # Neither answers the other's question, and a broadcast reaches one's own worker alone.
        assert producer.result(60) == [expected, 1, 1]
    assert server.cli("ACL", "LOG") == []
    for prefix in PREFIXES:
        assert server.keys(f"{prefix}dspy:v1:prediction:*")
        assert server.keys(f"{prefix}celery-task-meta-*")
        assert server.keys(f"{prefix}_kombu.binding.*")
    assert [key for key in server.keys("*") if not key.startswith(PREFIXES)] == []
    assert [each for each in server.cli("PUBSUB", "CHANNELS") if not each.startswith(PREFIXES)] == []


def test_an_outgoing_key_prefix_is_nothing_but_plain_characters(dspyq):
    for prefix in ("shop", "sh*p:", "sh op:", "{shop}:", "shop'"):
        done = dspyq("check", env={"DSPYQ_KEY_PREFIX": prefix}, ok=False)
        assert "key_prefix" in done.stdout + done.stderr
