"""Liveness, readiness and health of a worker for orchestrators, while its dependencies fail."""

import json
import signal

import pytest

from tests.support.endpoint import Endpoint
from tests.support.monitor import Monitor
from tests.support.processes import eventually, free_port


@pytest.fixture
def start(worker, settings_file):
    """Start a worker that serves its health, and return it with what reads it."""

    def start(changes=None, **options):
        path = settings_file({"metrics": {"port": 0}, **(changes or {})})
        running = worker(path, **options)
        return running, Monitor.of(running)

    return start


def test_a_healthy_worker_reports_it_and_serves_nothing_else(start, dspyq):
    _, monitor = start()
    eventually(lambda: monitor.health()["status"] == "healthy")
    report = monitor.health()
    checks = report["checks"]
    assert checks["redis"]["status"] == checks["dspy"]["status"] == "healthy"
    assert checks["redis"]["latency_ms"] >= 0
    eventually(lambda: monitor.health()["checks"]["dspy"]["latency_ms"] is not None)
    assert checks["consumption"]["queues"] == ["dspyq", "qa.control"]
    assert checks["breakers"]["models"] == {"control": "closed"}
    assert checks["budget"] == {"status": "healthy", "used_up": []}
    assert [monitor.get(path)[0] for path in ("/health", "/livez", "/readyz", "/metrics")] == [200] * 4
    assert monitor.get("/health", method="HEAD") == (200, "")
    assert monitor.get("/")[0] == monitor.get("/metrics/more")[0] == 404
    assert "dspy_question_complexity" in monitor.get("/metrics", accept="application/openmetrics-text")[1]
    assert dspyq("health", "--url", monitor.url).stdout == "healthy\n"


def test_a_redis_that_begins_to_evict_or_to_follow_another_is_seen(start, fresh_redis_server):
    server, other = fresh_redis_server(), fresh_redis_server()
    running, monitor = start(redis_url=server.url)
    eventually(lambda: monitor.get("/readyz") == (200, "ready\n"))
    server.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    eventually(lambda: monitor.health()["checks"]["redis"].get("faults") == ["eviction"], 20)
    assert monitor.health()["checks"]["redis"]["status"] == "degraded"
    eventually(lambda: "set its maxmemory-policy to noeviction" in running.logs())
    server.cli("CONFIG", "SET", "maxmemory", "0")
    server.cli("REPLICAOF", "127.0.0.1", other.port)
    eventually(lambda: monitor.health()["checks"]["redis"].get("faults") == ["role"], 20)
    assert monitor.get("/readyz") == (503, "not ready: redis\n")


def test_without_redis_a_worker_lives_and_is_not_ready_until_it_is_back(start, fresh_redis_server, dspyq):
    server = fresh_redis_server()
    _, monitor = start(redis_url=server.url)
    eventually(lambda: monitor.get("/readyz") == (200, "ready\n"))
    server.process.stop()
    eventually(lambda: monitor.get("/readyz") == (503, "not ready: redis\n"))
    assert monitor.get("/livez")[0] == 200
    assert monitor.get("/health")[0] == 503
    shown = monitor.metrics()  # in time, whatever Redis does
    assert shown["dspy_redis_up"] == 0
    assert shown['dspy_tolerated_failures_total{kind="fleet_read"}'] >= 1
    assert not [name for name in shown if name.startswith("dspy_queue_jobs")]
    assert dspyq("health", "--url", monitor.url, ok=False).stdout == "unhealthy: redis\n"
    server.process.cont()
    eventually(lambda: monitor.get("/readyz")[0] == 200)
    assert monitor.metrics()["dspy_redis_up"] == 1


def test_a_worker_is_degraded_and_stays_in_service_while_its_model_cannot_be_called(start, dspyq):
    port = free_port()
    with Endpoint() as own:
        model = {"api_base": own.url}
        _, monitor = start({"models": {"control": model}, "metrics": {"port": port}, "budget": {"daily_usd": 0}})
        eventually(lambda: monitor.health()["checks"]["dspy"]["models"] == {"control": "reachable"})
    dspyq("breaker", "open", "--all")  # by another process

    def troubled():
        return {name for name, check in monitor.health()["checks"].items() if check["status"] == "degraded"}

    eventually(lambda: troubled() == {"dspy", "breakers", "budget"})
    checks = monitor.health()["checks"]
    assert checks["dspy"]["models"] == {"control": "unreachable"}
    assert checks["breakers"]["models"] == {"control": "open"}
    assert checks["budget"]["used_up"] == ["all daily"]
    assert monitor.metrics()['dspy_circuit_breaker_open{model="control"}'] == 1
    assert monitor.get("/health")[0] == monitor.get("/readyz")[0] == 200
    said = dspyq("health", env={"DSPYQ_METRICS__PORT": str(port)}).stdout
    assert said == "degraded: dspy, breakers, budget\n"
    assert json.loads(dspyq("health", "--port", str(port), "--json").stdout)["status"] == "degraded"


def test_a_worker_that_takes_no_jobs_is_unhealthy_and_at_last_to_be_started_anew(start, predict):
    changes = {"delivery": {"visibility_timeout_seconds": 1}}
    _, monitor = start(changes, env={"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'})
    from tests.support.user_tasks import deafen

    eventually(lambda: monitor.health()["status"] == "healthy")
    deafen.delay().get(timeout=20)
    for number in range(3):  # it may have asked for some already
        predict.delay(question=f"q{number}")
    eventually(lambda: monitor.get("/readyz") == (503, "not ready: consumption\n"), 30)
    assert monitor.health()["status"] == "unhealthy"
    eventually(lambda: monitor.get("/livez") == (503, "the consumer is stuck\n"), 30)
    shown = monitor.metrics()
    assert shown["dspy_consumer_stalled_seconds"] >= 4
    assert shown['dspy_tolerated_failures_total{kind="consumer_restart"}'] >= 2


def test_a_worker_that_consumes_no_queue_or_is_ending_is_not_ready(start, predict, endpoint):
    running, monitor = start()
    eventually(lambda: monitor.get("/readyz")[0] == 200)
    for queue in ("dspyq", "qa.control"):
        predict.app.control.cancel_consumer(queue)
    eventually(lambda: monitor.get("/readyz") == (503, "not ready: consumption\n"))
    predict.app.control.add_consumer("qa.control")
    eventually(lambda: monitor.get("/readyz")[0] == 200)
    endpoint.hold()
    predict.delay(question="still running")
    endpoint.wait_for_calls(1)
    running.send(signal.SIGTERM)
    eventually(lambda: monitor.health()["checks"]["consumption"]["phase"] == "ending")
    assert (monitor.get("/readyz")[0], monitor.get("/livez")[0]) == (503, 200)


def test_a_health_check_that_finds_no_worker_is_one_line(dspyq):
    said = dspyq("health", "--port", str(free_port()), ok=False).stderr
    assert said.startswith("dspyq: no worker answers at http://127.0.0.1:")
    assert "metrics.port" in dspyq("health", ok=False).stderr
