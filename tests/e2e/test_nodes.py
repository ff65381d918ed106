"""The whole way of a prediction over pytest-celery's nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from tests.support import plain_app
from tests.support.endpoint import Endpoint
from tests.support.nodes import redis_urls
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker


def ask(question: str) -> dict[str, Any]:
    from dspyq import predict

    prediction = predict.delay(question=question).get(timeout=30)
    return {"answer": prediction.answer, "cached": prediction.metadata.cached}


def test_a_prediction_goes_from_a_producer_over_broker_worker_and_backend_and_back(
    celery_setup: CeleryTestSetup, run_producer: Callable[..., Any], endpoint: Endpoint
) -> None:
    urls = redis_urls(celery_setup.broker, celery_setup.backend)

    first = run_producer(ask, env=urls, question="What is a task queue? 日本 😀")
    second = run_producer(ask, env=urls, question="What is a task queue? 日本 😀")

    assert first == {"answer": "echo:What is a task queue? 日本 😀", "cached": False}
    assert second == {"answer": "echo:What is a task queue? 日本 😀", "cached": True}
    assert endpoint.calls() == 1
    (request,) = endpoint.requests()
    assert request.model == "control"


def test_nodes_over_local_processes_run_a_plain_celery_app(
    redis_server: RedisServer, worker: Callable[..., Worker]
) -> None:
    urls = {"PLAIN_REDIS_URL": redis_server.url}
    container = worker(env=urls, application="tests.support.plain_app", arguments=["-c", "4"])
    app = Celery("caller", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    node = CeleryTestWorker(container, app)

    def echo(question: str) -> Any:
        return app.send_task(plain_app.echo.name, [question]).get(timeout=60)

    assert node.ready()
    assert app.control.inspect(destination=[node.hostname()]).ping() == {node.hostname(): {"ok": "pong"}}
    assert echo("first") == "echo:first"
    node.assert_log_exists("plain.echo")

    node.kill()
    assert container.status == "exited"
    node.restart()
    assert echo("again") == "echo:again"
