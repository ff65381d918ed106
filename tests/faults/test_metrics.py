"""The metrics that Prometheus reads of a worker."""

from tests.faults.test_guards import ask_one
from tests.support.monitor import Monitor


def test_a_worker_shows_its_tokens_costs_refusals_and_breakers(worker, settings_file, run_producer, endpoint):
    path = settings_file(
        {
            "metrics": {"port": 0},
            "programs": {"qa": {"when_unavailable": "fail"}},
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 60},
        }
    )
    running = worker(path)
    told = run_producer(ask_one, path, question="answered")
    endpoint.script(status=500)
    assert run_producer(ask_one, path, question="refused")["error"] == "BreakerOpen"
    shown = Monitor.of(running).metrics()
    assert shown['dspy_tokens_used_total{model="control",type="prompt"}'] == told["usage"]["prompt_tokens"]
    assert shown['dspy_cost_usd_total{model="control"}'] == told["cost_usd"]
    assert shown['dspy_circuit_breaker_open{model="control"}'] == 1
    assert shown['dspy_circuit_breaker_rejections_total{model="control"}'] == 1
    assert shown['dspy_guard_refusals_total{error_type="BreakerOpen",model="control"}'] == 1


def test_a_limit_that_is_nearly_used_up_is_a_warning_of_the_log_and_of_the_metrics(
    worker, settings_file, run_producer, endpoint
):
    endpoint.script(usage={"prompt_tokens": 100, "completion_tokens": 1000})
    path = settings_file({"metrics": {"port": 0}, "budget": {"daily_usd": 0.004}})
    running = worker(path)
    run_producer(ask_one, path, question="q")  # 0.0021 dollars
    line = running.wait_for_line('"budget_threshold"', 10)
    assert '"scope":"all calls","period":"daily","percentage":50' in line
    assert Monitor.of(running).metrics()['dspy_budget_warnings_total{percentage="50",period="daily",scope="all"}'] == 1


def test_a_call_that_no_budget_can_hold_counts_as_refused(worker, settings_file, run_producer):
    path = settings_file({"metrics": {"port": 0}, "budget": {"daily_usd": 0.004}})
    running = worker(path)
    assert run_producer(ask_one, path, question="long " * 20_000)["error"] == "BudgetExceeded"
    shown = Monitor.of(running).metrics()
    assert shown['dspy_guard_refusals_total{error_type="BudgetExceeded",model="control"}'] == 1


def test_a_port_that_is_taken_is_one_line_and_no_start(worker, settings_file, redis_server):
    path = settings_file({"metrics": {"port": redis_server.port}})
    refused = worker(path, waits=False)
    assert refused.wait(30) == 1
    assert f"dspyq: metrics.port: cannot listen at 127.0.0.1:{redis_server.port}" in refused.logs()
