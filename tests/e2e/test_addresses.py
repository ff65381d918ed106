"""An accepted URL of Redis works for every client: commands, producers, workers, kombu and the result backend."""

import pytest

PASSWORD = "p@ss#w/rd"


@pytest.mark.journey
def test_a_socket_with_a_password_a_database_and_options_works_for_every_process(
    fresh_redis_server, worker, dspyq, run_producer, tmp_path
):
    path = tmp_path / "redis.sock"
    server = fresh_redis_server(password=PASSWORD, socket_path=path)
    url = f"unix://:p%40ss%23w%2Frd@{path}?db=2&socket_timeout=5"

    def ask():
        from celery import chord

        from dspyq import predict
        from dspyq.celery_app.application import app
        from tests.support.user_tasks import collect

        answers = chord([predict.s(question="a")], collect.s()).delay().get(timeout=30)
        return [answers, len(app.control.ping(timeout=2)), app.connection().as_uri(), app.backend.as_uri()]

    env = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'}
    started = worker(redis_url=url, env=env)
    shown = f"unix://{path}?db=2"
    assert run_producer(ask, redis_url=url) == [["echo:a"], 1, shown, shown]
    dspyq("check", redis_url=url)
    assert "echo:b" in dspyq("predict", "question=b", redis_url=url).stdout
    databases = {name for name in server.client().info("keyspace") if server.client().info("keyspace")[name]["keys"]}
    assert databases == {"db2"}
    assert PASSWORD not in started.logs()
    assert "p%40ss" not in started.logs()


def test_a_url_that_cannot_be_used_is_one_line_without_its_password_for_every_command(dspyq):
    for command in ("check", "predict"):
        for url in ("redis://:canary#secret@127.0.0.1:6379/0", "redis://:canary@127.0.0.1:6379/jobs"):
            done = dspyq(command, *(["question=x"] if command == "predict" else []), redis_url=url, ok=False)
            (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "redis_url" in line]
            assert "canary" not in done.stdout + done.stderr, line
