"""Real traffic, and what Prometheus reads of it."""

import re

import pytest

from dspyq.core.tolerated import KINDS
from tests.support.monitor import Monitor
from tests.support.processes import eventually, wait_until

HOOKS = "tests.support.user_scorers"
#: Every label that our metrics have, and all that its values can be.
BOUNDED = {
    "model": {"control", "challenger"},
    "variant": {"qa.control", "qa.challenger"},
    "queue": {"qa.control", "qa.challenger", "dspyq", "other"},
    "status": {"success", "fallback", "error"},
    "cached": {"true", "false"},
    "level": {"memory", "redis", "joined"},
    "type": {"prompt", "completion"},
    "program": {"qa"},
    "state": {"waiting", "delayed", "leased", "finished", "limited", "stopped", "cancelled"},
    "redelivered": {"true", "false"},
    "period": {"daily", "monthly"},
    "scope": {"all", "program:qa", "variant:qa.control", "variant:qa.challenger"},
    "category": {"short", "medium", "long"},
    "error_type": {"PredictionFailed"},
    "outcome": {"ok", "invalid_request", "success", "failure"},
    "scorer": {f"{HOOKS}:is_brief", f"{HOOKS}:fails"},
    "kind": {
        "beat", "guard_upkeep", "breaker_outcome", "consumer_restart", "fleet_read", "experiment_read", "cache_size",
        "scorer", "score_dropped", "http_turned_away", *KINDS,
    },
}  # fmt: skip


def ask_in_all_ways():
    """Seven questions computed, of which one fails; one hit in Redis, one in memory; and what they cost."""
    import contextlib
    import time

    from dspyq import predict
    from dspyq.cache.memory import process_cache
    from dspyq.client import metrics
    from dspyq.errors import PredictionFailed
    from tests.support.processes import eventually

    server = metrics.serve()
    eventually(lambda: process_cache().is_trusted)
    questions = ["a", "b", "c" * 500, "d" * 5000]
    asked = [predict.apply_async(kwargs={"question": each}, variant="control").get(timeout=20) for each in questions]
    asked += [predict.apply_async(kwargs={"question": each}, variant="challenger").get(timeout=20) for each in "ab"]
    with contextlib.suppress(PredictionFailed):
        predict.apply_async(kwargs={"question": "fails"}, variant="control").get(timeout=20)
    process_cache().memory.clear()
    time.sleep(0.01)  # what is asked for from now on is kept again
    for _ in range(2):
        predict.apply_async(kwargs={"question": "a"}, variant="control").get(timeout=20)
    process_cache().close()  # counts its hits
    from tests.support.monitor import Monitor

    page = Monitor(server.url).get("/metrics")[1]
    return [[one.metadata.variant, one.metadata.cost_usd, one.metadata.usage.total_tokens] for one in asked], page


def total(shown, name, **labels):
    """The sum of a metric's samples, of all workers, that have these labels."""
    parts = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for each in shown
        for sample, value in each.items()
        if re.split(r"[{ ]", sample)[0] == name and all(part in sample for part in parts)
    )


def test_what_is_read_is_what_happened(worker, settings_file, run_producer, endpoint, redis_server):
    path = settings_file(
        {
            "metrics": {"port": 0},
            "budget": {"daily_usd": 5},
            "programs": {"qa": {"scorers": [f"{HOOKS}:is_brief", f"{HOOKS}:fails"]}},
        },
        challenger=0.5,
    )
    fleet = [worker(path, waits=False) for _ in range(2)]
    for each in fleet:
        each.ready()
    endpoint.script(status=400, containing="fails")
    told, page = run_producer(ask_in_all_ways, path)
    monitors = [Monitor.of(each) for each in fleet]
    redis_server.client().delete("dspy:v1:cache-size-fresh")  # have it measured now
    eventually(lambda: monitors[0].metrics().get("dspy_cache_entries") == 6)
    eventually(lambda: total([each.metrics() for each in monitors], "dspy_answer_quality_count") == 6)
    shown = [each.metrics() for each in monitors]

    spent_usd = sum(cost for _, cost, _ in told)
    of_control = [(cost, tokens) for variant, cost, tokens in told if variant == "control"]
    predictions = {"status": "success", "model": "control", "variant": "qa.control"}
    assert total(shown, "dspy_predictions_total", **predictions) == 4
    assert total(shown, "dspy_predictions_total", variant="qa.challenger", status="success") == 2
    assert total(shown, "dspy_predictions_total", status="error") == 1
    assert total(shown, "dspy_errors_total", model="control", error_type="PredictionFailed") == 1
    assert total(shown, "dspy_prediction_duration_seconds_count", model="control", cached="false") == 5
    assert total(shown, "dspy_overhead_seconds_count") == 6
    assert 0 < total(shown, "dspy_overhead_seconds_sum") < 6 * 1
    assert total(shown, "dspy_active_requests") == 0
    assert total(shown, "dspy_model_calls_total", outcome="ok") == 6
    assert total(shown, "dspy_model_calls_total", outcome="invalid_request") == 1
    assert total(shown, "dspy_tokens_used_total", model="control") == sum(tokens for _, tokens in of_control)
    assert total(shown, "dspy_cost_usd_total", model="control") == pytest.approx(sum(cost for cost, _ in of_control))
    assert [total(shown, "dspy_question_complexity", category=each) for each in ("short", "medium", "long")] == [
        4,
        1,
        1,
    ]
    assert total(shown, "dspy_answer_quality_sum", scorer=f"{HOOKS}:is_brief") == 4
    assert total(shown, "dspy_tolerated_failures_total", kind="scorer") == 6
    assert total(shown, "dspy_deliveries_total", redelivered="false") == 7
    assert all("RuntimeError" not in each.logs() or "dddd" not in each.logs() for each in fleet)

    for each in shown:  # the fleet's are the same on every worker
        assert each['dspy_cache_hits_total{level="redis"}'] == 1
        assert each['dspy_cache_hits_total{level="memory"}'] == 1
        assert each['dspy_cache_misses_total{model="control"}'] == 5
        assert each['dspy_cost_avoided_usd_total{variant="qa.control"}'] == pytest.approx(2 * told[0][1])
        assert each['dspy_budget_limit_usd{period="daily",scope="all"}'] == 5
        assert each['dspy_budget_spent_usd{period="daily",scope="all"}'] == pytest.approx(spent_usd)
        assert each['dspy_budget_held_usd{period="daily",scope="all"}'] == 0
        assert each["dspy_cache_size_bytes"] > 5000
        assert each['dspy_variant_answers_total{outcome="success",variant="qa.control"}'] == 4 + 2
        assert each['dspy_variant_answers_total{outcome="failure",variant="qa.control"}'] == 1
        of_challenger = sum(cost for variant, cost, _ in told if variant == "challenger")
        assert each['dspy_variant_cost_usd_total{variant="qa.challenger"}'] == pytest.approx(of_challenger)
        assert each["dspy_dead_jobs"] == 0
        assert each['dspy_circuit_breaker_open{model="control"}'] == 0

    samples = re.findall(r"^dspy_producer_(\S+) (\S+)$", page, re.MULTILINE)
    assert dict(samples) == {
        'cache_hits_total{level="memory"}': "1.0",
        'cache_hits_total{level="redis"}': "1.0",
        'cache_hits_total{level="joined"}': "0.0",
        'cache_misses_total{model="control"}': "5.0",
        'cache_misses_total{model="challenger"}': "2.0",
        'published_total{variant="qa.control"}': "5.0",
        'published_total{variant="qa.challenger"}': "2.0",
    }
    assert "dspy_memory_cache_entries 1.0" in page

    for sample in {name for each in shown for name in each if name.startswith("dspy_")}:
        for label, value in re.findall(r'(\w+)="([^"]*)"', sample):
            assert label in {"le", "priority"} or value in BOUNDED[label], sample


def test_the_backlog_is_true_wherever_a_job_stands(worker, settings_file, run_producer, endpoint):
    path = settings_file({"metrics": {"port": 0}, "workers": {"concurrency": 1}}, challenger=0.5)
    monitor = Monitor.of(worker(path, arguments=["-Q", "qa.control"]))
    endpoint.hold()

    def ask():
        from dspyq import predict
        from dspyq.celery_app.application import app

        predict.many([{"question": "urgent"}], variant="challenger")
        predict.many([{"question": str(number)} for number in range(2)], variant="challenger", priority=5)
        predict.many([{"question": str(number)} for number in range(3)], variant="control")
        predict.apply_async(kwargs={"question": "later"}, variant="control", countdown=60)
        app.send_task("somebody.elses", queue="of-another-configuration")

    run_producer(ask, path)
    endpoint.wait_for_calls(1)
    shown = wait_until(lambda: settled(monitor), 60, "a worker that has counted all jobs that it took")
    jobs = {
        (queue, state): shown[f'dspy_queue_jobs{{queue="{queue}",state="{state}"}}']
        for queue in ("qa.control", "qa.challenger", "other")
        for state in ("waiting", "leased", "delayed")
    }
    assert jobs["qa.control", "leased"] >= 1
    assert jobs["qa.control", "leased"] + jobs["qa.control", "waiting"] == 3
    assert jobs["qa.control", "delayed"] == 1
    assert [jobs["qa.challenger", state] for state in ("waiting", "leased", "delayed")] == [3, 0, 0]
    assert jobs["other", "waiting"] == 1
    assert shown['dspy_queue_waiting_jobs{priority="0",queue="qa.challenger"}'] == 1
    assert shown['dspy_queue_waiting_jobs{priority="5",queue="qa.challenger"}'] == 2
    age_seconds = shown['dspy_queue_oldest_job_age_seconds{queue="qa.challenger"}']
    assert 0 < age_seconds < monitor.metrics()['dspy_queue_oldest_job_age_seconds{queue="qa.challenger"}'] < 30
    assert shown["dspy_active_requests"] == 1


def settled(monitor):
    """Return the metrics once the worker has counted the jobs that Redis has it hold; None before."""
    shown = monitor.metrics()
    return shown if shown["dspy_held_jobs"] == shown['dspy_queue_jobs{queue="qa.control",state="leased"}'] else None


def test_names_that_users_make_up_do_not_become_labels_without_end(worker, settings_file, run_producer):
    path = settings_file({"metrics": {"port": 0}, "programs": {"qa": {"categorize": f"{HOOKS}:first_word"}}})
    monitor = Monitor.of(worker(path))

    def ask():
        from dspyq import predict

        questions = [*(f"word{number} more" for number in range(20)), "no/name more", "Größe more"]
        for job in predict.many([{"question": question} for question in questions]):
            job.get(timeout=20)

    run_producer(ask, path)

    def categories():
        shown = monitor.metrics()
        return {name: value for name, value in shown.items() if name.startswith("dspy_question_complexity")}

    eventually(lambda: sum(categories().values()) == 20)
    assert len(categories()) == 16 + 1
    assert categories()['dspy_question_complexity{category="other"}'] == 4
    assert monitor.metrics()['dspy_tolerated_failures_total{kind="scorer"}'] == 2
