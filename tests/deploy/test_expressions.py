"""Every expression of dashboard, alerts and scaling, asked of a real Prometheus that scrapes a worker and a door.

The worker has a parent, whose page shows what both count. It has answered questions of every fate twice before:
computed, cached, joined, failed, refused by a breaker and by a budget, and held back by a rate limit. One waits in a
queue that nobody serves, and one is sealed with a key that the worker lacks. Two batches went through the provider's
lane, where some lines expired. An experiment runs, and its cache has answered enough users for an interval.
"""

import math
import re
import sys

import httpx
import pytest

from dspyq.sealing.keyring import new_key_line
from tests.support.configuration import default_document, environment, merged, with_challenger, write_settings
from tests.support.deployment import DEPLOY, Prometheus, alerts, documents, panels, run
from tests.support.experiments import TABLE
from tests.support.processes import LocalProcess, free_port
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.worker import START_TIMEOUT_SECONDS

pytestmark = pytest.mark.journey

SCRAPE_SECONDS = 0.5
SERVED = "qa.control,qa.challenger,fragile.control,poor.control,laned.control,dspyq"
#: What Grafana puts in place of its variables: everything, and a window that holds the whole traffic.
VARIABLES = {"$model": ".*", "$variant": ".*", "$metric": ".*", "$__rate_interval": "1m"}
LANE = {"batch": "openai", "batch_linger_seconds": 0.5, "batch_discount": 0.5}
#: So many users of each arm, each with questions of its own: enough for an interval.
USERS_OF_ARM = 200


def of_panels():
    for panel in panels():
        for query in panel["targets"]:
            expression = query["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield pytest.param(expression, id=f"{panel['title']} {query['refId']}")


def of_alerts():
    """Alerts as they would be without a threshold, for most have nothing to say; their windows hold the traffic."""
    for rule in alerts():
        expression = re.sub(r"([<>]=?|==) (?=[\d.]+)", r"\1 bool ", rule["expr"])
        yield pytest.param(re.sub(r"\[\d+m\]", "[1m]", expression).replace("offset 10m", "offset 1s"), id=rule["alert"])


def of_scaling():
    for name in ("worker", "serve"):
        (scaling,) = documents(DEPLOY / "kubernetes" / "keda" / f"{name}-scaling.yaml")
        yield pytest.param(scaling["spec"]["triggers"][0]["metadata"]["query"], id=f"KEDA {name}")
    yield pytest.param("dspyq:backlog_jobs", id="recorded backlog")


def ask_of_every_fate(number):
    from dspyq import predict

    def ask(program, question):
        return predict.apply_async(kwargs={"question": question}, program=program)

    def wait(*jobs):
        for job in jobs:
            job.get(timeout=30, propagate=False)

    questions = [f"{number}.{each}" for each in range(12)]
    computed = [ask("qa", question) for question in questions]
    joined = [ask("qa", question) for question in questions]
    wait(*computed, *joined)
    wait(*(ask("qa", question) for question in questions))
    wait(ask("qa", f"{number} in prose"))
    for each in range(2):
        wait(ask("fragile", f"{number}.{each}"))
        wait(ask("poor", f"dear {number}.{each}"))
    ask("later", f"{number}")


def ask_over_http(port, question):
    body = {"inputs": {"question": question}}
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/programs/qa/predictions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text


def run_a_lane(number, folder, variables):
    rows, out = folder / f"{number}.jsonl", folder / f"{number}.out.jsonl"
    rows.write_text("".join(f'{{"question": "{number}.{row} in a lane"}}\n' for row in range(12)))
    command = [sys.executable, "-m", "dspyq", "batch", "run", str(rows), "--program", "laned", "--output", str(out)]
    run(*command, "--lane", "provider", env=variables)


def ask_sealed():
    """Queue a job whose content is sealed with a key that the worker does not have."""
    from dspyq import predict

    predict.apply_async(kwargs={"question": "sealed"}, program="qa")


def run_an_experiment(users):
    """Start an experiment, and count calls of its users as a process whose cache answers them."""
    import time

    from dspyq.config.settings import get_settings
    from dspyq.experiments import administration
    from dspyq.experiments.exposure import Exposure
    from dspyq.experiments.tally import process_tally
    from tests.support.experiment_traffic import bring_pairs

    state = administration.start(get_settings().programs["compared"])
    today, tally = int(time.time() // 86_400), process_tally()
    for number in range(users):
        exposure = Exposure("compared", state.epoch, state.arms[number % 2], number, number, number, today)
        tally.count(exposure, "an answer", 0.01 + number % 7 / 100, is_slow=False)
    tally.flush()
    bring_pairs(state, "challenger", "brief", 55)


def document_for(endpoint, port):
    base = with_challenger(default_document(endpoint.url))
    fragile = base["models"]["control"] | {"model": "openai/fragile"}
    scorer = "tests.support.user_scorers:is_brief"
    scores = {"brief": {"scorer": scorer, "low": 0, "high": 1}}
    shadow = {"variants": ["challenger"], "share": 1, "daily_usd": 1}
    refusing = {"signature": "question -> answer", "when_unavailable": "fail"}
    return merged(
        base,
        {
            "metrics": {"port": port},
            "models": {"control": {"requests_per_second": 20} | LANE, "fragile": fragile},
            "lane": {"first_poll_seconds": 0.2, "settle_seconds": 2},
            "programs": {
                "qa": {"scorers": [scorer]},
                "fragile": refusing | {"variants": {"control": {"model": "fragile"}}},
                "poor": refusing | {"daily_usd": 0.004, "variants": {"control": {"model": "control"}}},
                "compared": {
                    "signature": "question -> answer",
                    "variants": {arm: {"model": "control", "weight": 0.5} for arm in TABLE["arms"]},
                    "scorers": [scorer],
                    "experiment": TABLE | {"primary": "call.waited", "scores": scores, "shadow": shadow},
                },
                "laned": {"signature": "question -> answer", "variants": {"control": {"model": "control"}}},
                "later": {"signature": "question -> answer", "variants": {"control": {"model": "control"}}},
            },
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 300},
            "retry": {"max_attempts": 1},
            "budget": {"daily_usd": 10, "monthly_usd": 100},
        },
    )


def sealed_settings(folder, endpoint):
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    stated = {"encryption": {"keys_file": str(keys)}, "programs": {"qa": {"encrypt": True}}}
    return write_settings(folder / "sealed.toml", merged(document_for(endpoint, 0), stated))


def produce(function, arguments, variables):
    producer = Producer(function, arguments, variables)
    try:
        producer.result()
    finally:
        producer.close()


@pytest.fixture(scope="module")
def prometheus(session_endpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port(2)  # the parent's and its worker's
    settings = write_settings(folder / "dspyq.toml", document_for(session_endpoint, port))
    session_endpoint.reset()
    session_endpoint.script(model="fragile", status=500)
    session_endpoint.script(containing="in prose", fault="unparseable")
    session_endpoint.batches.script(expired_share=0.5)
    # $0.0021: the second does not fit into the day's $0.004.
    session_endpoint.script(containing="dear", usage={"prompt_tokens": 100, "completion_tokens": 1000})
    door_ports = free_port(2)
    targets = {"dspyq-worker": [f"127.0.0.1:{port}"], "dspyq-serve": [f"127.0.0.1:{door_ports + 1}"]}
    with RedisServer() as redis, Prometheus(folder, targets, SCRAPE_SECONDS) as running:
        variables = environment(settings, redis.url)
        command = [sys.executable, "-m", "dspyq", "worker", "--processes=1", "-Q", SERVED, "--without-mingle"]
        door_variables = variables | {"DSPYQ_SERVE__METRICS_PORT": str(door_ports + 1)}
        serve = [sys.executable, "-m", "dspyq", "serve", "--port", str(door_ports)]
        with (
            LocalProcess("parent", command, ready_line='"workers_ready"', env=variables) as worker,
            LocalProcess("door", serve, ready_line="server_ready", env=door_variables) as door,
        ):
            worker.ready(START_TIMEOUT_SECONDS)
            door.ready(START_TIMEOUT_SECONDS)
            running.wait_for('up{job="dspyq-worker"} == 1 and on () up{job="dspyq-serve"} == 1')
            produce(run_an_experiment, {"users": 2 * USERS_OF_ARM}, variables)
            for number in range(2):
                produce(ask_of_every_fate, {"number": number}, variables)
                run_a_lane(number, folder, variables)
                ask_over_http(door_ports, f"{number} over HTTP")
                # The last of a round, so all of it has been scraped.
                running.wait_for(f'dspy_guard_refusals_total{{error_type="BudgetExceeded"}} > {number}')
            produce(ask_sealed, {}, environment(sealed_settings(folder, session_endpoint), redis.url))
            running.wait_for("dspy_unknown_key")
            running.wait_for("dspy_experiment_high")  # the referee has looked
            yield running
            worker.kill()
            door.kill()
    session_endpoint.reset()


@pytest.mark.parametrize("expression", [*of_panels(), *of_alerts(), *of_scaling()])
def test_it_returns_data(prometheus, expression):
    series = prometheus.wait_for(expression, 15)
    assert not all(math.isnan(float(each["value"][1])) for each in series), series


def test_prometheus_evaluates_every_alert_and_those_fire_that_should(prometheus):
    prometheus.wait_for('ALERTS{alertname="BudgetExceeded", cause="refused", alertstate="firing"}')
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    rules = [rule for rule in rules if rule["type"] == "alerting"]
    assert len(rules) == len(alerts())
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing == {"BudgetExceeded"}
    assert "CircuitBreakerOpen" in {rule["name"] for rule in rules if rule["state"] == "pending"}
