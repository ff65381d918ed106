"""A password of Redis that is changed under a worker: it is logged, and work continues when it is valid again."""

from tests.support.processes import eventually, wait_until

PASSWORD = "the-first"


def cut(admin):
    """Close every other connection; this one has said its password already."""
    for kind in ("normal", "pubsub"):
        admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def test_a_worker_logs_that_its_password_fails_and_continues_when_it_works_again(
    fresh_redis_server, worker, start_producer
):
    server = fresh_redis_server(password=PASSWORD)
    admin = server.client()

    def ask():
        from dspyq import predict

        return predict.delay(question="after").get(timeout=40).answer

    running = worker(redis_url=server.url)
    admin.config_set("requirepass", "another")
    cut(admin)
    eventually(lambda: "Cannot connect" in running.logs() and "invalid username-password pair" in running.logs(), 20)
    admin.config_set("requirepass", PASSWORD)
    assert start_producer(ask, redis_url=server.url).result(60) == "echo:after"
    assert running.is_running
    assert PASSWORD not in running.logs()


def test_a_worker_never_gives_its_redis_up(configured):
    del configured
    from dspyq.celery_app.application import app

    assert app.conf.broker_connection_max_retries is None


def test_a_password_is_replaced_worker_by_worker_and_no_question_is_lost_or_paid_twice(
    fresh_redis_server, worker, start_producer, endpoint
):
    server = fresh_redis_server()
    server.cli("ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")

    def url(password):
        return server.url.replace("redis://", f"redis://app:{password}@")

    def ask(first):
        from dspyq import predict

        handles = [predict.delay(question=f"q{number}") for number in range(first, first + 10)]
        return [handle.get(timeout=60).answer for handle in handles]

    endpoint.hold(containing="q")
    old = worker(redis_url=url("old"))
    asking = start_producer(ask, redis_url=url("old"), first=0)
    wait_until(lambda: endpoint.calls() >= 1, 30, "a first call")
    server.cli("ACL", "SETUSER", "app", ">new")  # both hold until all parts have the new one
    worker(redis_url=url("new"))
    endpoint.release()
    old.terminate()
    assert asking.result(90) == [f"echo:q{number}" for number in range(10)]
    server.cli("ACL", "SETUSER", "app", "<old")
    cut(server.client())
    assert start_producer(ask, redis_url=url("new"), first=10).result(90) == [f"echo:q{n}" for n in range(10, 20)]
    assert endpoint.calls() == 20
