"""The kill switch over a real fleet: no model call of a killed arm begins, and the control answers its jobs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.exceptions import TimeoutError as NotInTime

from dspyq.experiments import administration
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.guards.waits import reason
from dspyq.store.keys import key
from tests.support.configuration import merged
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until


@pytest.fixture
def fleet(settings_file, configure, worker):
    """Start an experiment, workers of it, and return how to ask its challenger: ``fleet(changes, workers=2)``."""

    def start(changes: Any = (), *, workers: int = 1, arguments: Any = ("-c", "4")) -> Any:
        path = settings_file(merged(with_experiment(), dict(changes)), challenger=0.5)
        program = configure(path).programs["qa"]
        administration.start(program)
        started = [worker(path, waits=False, arguments=[*arguments]) for _ in range(workers)]
        for each in started:
            each.ready()
        return ask

    return start


def ask(question, **options):
    from dspyq import predict

    return predict.apply_async(kwargs={"question": question}, **({"variant": "challenger"} | options))


def calls_of(endpoint, variant="challenger"):
    return endpoint.counts().calls_by_model.get(variant, 0)


def assert_control_answered(answer):
    assert (answer.metadata.variant, answer.metadata.fallback) == ("challenger", "control")


def test_no_call_begins_once_the_arm_is_killed_in_any_of_several_workers(fleet, endpoint):
    rate, burst = 2, 4
    fleet({"models": {"challenger": {"requests_per_second": rate, "burst_requests": burst}}}, workers=2)
    asked_at = time.monotonic()
    handles = [ask(f"question {number}") for number in range(60)]
    wait_until(lambda: calls_of(endpoint) >= burst, 60, "some calls of the challenger")
    administration.kill("qa", "challenger")
    killed_after_seconds = time.monotonic() - asked_at
    answers = [handle.get(timeout=60) for handle in handles]
    by_control = [answer for answer in answers if answer.metadata.fallback == "control"]
    assert len(by_control) + calls_of(endpoint) == len(answers)
    assert calls_of(endpoint) <= burst + rate * killed_after_seconds + 1  # those whose turn came before, on any machine


def test_a_call_that_waits_for_its_turn_when_the_arm_is_killed_does_not_begin(fleet, endpoint, client):
    slow = {"requests_per_second": 0.2, "burst_requests": 1}
    fleet({"models": {"challenger": slow}, "rate_limit": {"longest_wait_seconds": 60}})
    assert ask("first").get(timeout=20).metadata.fallback is None
    seconds, _ = client.time()
    client.hset(key("rate:challenger"), "requests_at", (seconds + 5) * 1_000_000)  # however long the first took
    waiting = ask("second")
    wait_until(lambda: client.zcard(key("budget:leases")) == 1, 60, "the second call to be held")
    administration.kill("qa", "challenger")
    assert_control_answered(waiting.get(timeout=20))
    assert calls_of(endpoint) == 1
    assert client.zcard(key("budget:leases")) == 0


def test_a_call_that_is_tried_again_when_the_arm_is_killed_does_not_begin(fleet, endpoint):
    fleet()
    endpoint.script(model="challenger", status=500)
    endpoint.hold()
    handle = ask("tried again")
    endpoint.wait_for_calls(1)
    administration.kill("qa", "challenger")
    endpoint.release()
    assert_control_answered(handle.get(timeout=20))
    assert calls_of(endpoint) == 1


def test_jobs_that_wait_for_the_challengers_broken_model_are_answered_once_it_is_killed(fleet, endpoint):
    fleet({"breaker": {"reset_timeout_seconds": 300}, "retry": {"base_delay_seconds": 0.05}})
    endpoint.script(model="challenger", status=500)
    handles = [ask(f"broken {number}") for number in range(12)]
    with pytest.raises(NotInTime):
        handles[-1].get(timeout=3)
    calls = calls_of(endpoint)
    administration.kill("qa", "challenger")
    assert_control_answered(handles[-1].get(timeout=60))
    assert calls_of(endpoint) == calls


def test_calls_that_the_control_answered_count_as_fallbacks_of_their_arm(fleet, endpoint):
    fleet()
    state = administration.read_state("qa")
    unit = next(f"user {n}" for n in range(99) if ask_of(state, f"user {n}") == "challenger")
    endpoint.script(model="challenger", status=500)
    endpoint.hold()
    handles = [ask("counted", unit=unit, variant=None) for _ in range(3)]
    endpoint.wait_for_calls(1)
    waiting = ask("counted too", unit=unit, variant=None)
    endpoint.wait_for_calls(2)
    administration.kill("qa", "challenger")
    endpoint.release()
    for handle in (*handles, waiting):
        handle.get(timeout=20)
    process_tally().flush()
    table = administration.read_plan("qa").table
    sums = read_sums(administration.read_state("qa"), table, today=20_000)["challenger"].metrics["call.fallback"]
    assert sum(sums.by_unit.denominators) == 4
    assert sum(sums.by_unit.numerators) == 4


def ask_of(state, unit):
    from dspyq.experiments.placement import place

    return place(state.placing, unit).variant


def test_a_batchs_rows_of_a_killed_arm_fail_at_no_cost_and_say_so(fleet, dspyq, endpoint, tmp_path, settings_file):
    fleet()
    administration.kill("qa", "challenger", reason="it lies")
    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(json.dumps({"question": f"row {number}"}) + "\n" for number in range(3)))
    out = tmp_path / "out.jsonl"
    path = settings_file(with_experiment(), challenger=0.5)
    arguments = ("batch", "run", rows, "--program", "qa", "--variant", "challenger", "--output", out)
    dspyq(*map(str, arguments), settings=path, ok=False)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["error"]["type"] for line in lines] == ["VariantKilled"] * 3, lines
    assert endpoint.calls() == 0


def test_a_worker_of_the_killed_arm_alone_has_its_control_too(fleet):
    fleet(arguments=("-c", "2", "-Q", "qa.challenger"))
    administration.kill("qa", "challenger")
    assert_control_answered(ask("alone").get(timeout=20))


def test_a_worker_without_the_experiment_hands_the_job_to_one_that_does(fleet, settings_file, worker):
    unaware = worker(settings_file(challenger=0.5), arguments=["-c", "2", "-Q", "qa.challenger"])
    fleet(workers=0)
    administration.kill("qa", "challenger")
    handle = ask("handed back")
    wait_until(lambda: "was killed" in reason(handle.id), 60, "the job to be handed back")
    fleet_worker = worker(settings_file(with_experiment(), challenger=0.5))
    assert_control_answered(handle.get(timeout=20))
    assert unaware.is_running
    assert fleet_worker.is_running


def test_an_arm_can_be_asked_again_once_another_experiment_with_it_starts(fleet, settings_file, configure):
    fleet()
    administration.kill("qa", "challenger")
    assert_control_answered(ask("killed").get(timeout=20))
    administration.stop("qa")
    program = configure(settings_file(with_experiment(name="second"), challenger=0.5)).programs["qa"]
    administration.start(program)
    assert ask("alive").get(timeout=20).metadata.fallback is None


def test_where_others_wait_for_a_row_of_a_killed_arm_all_get_the_controls_answer(
    fleet, dspyq, endpoint, tmp_path, settings_file
):
    fleet()
    endpoint.script(model="challenger", status=500)
    endpoint.hold()
    (tmp_path / "in.jsonl").write_text('{"question": "shared"}\n')
    out, path = tmp_path / "out.jsonl", settings_file(with_experiment(), challenger=0.5)
    arguments = ("batch", "run", tmp_path / "in.jsonl", "--program", "qa", "--variant", "challenger", "--output", out)
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(dspyq, *map(str, arguments), settings=path)
        endpoint.wait_for_calls(1)
        joined = ask("shared")
        administration.kill("qa", "challenger")
        endpoint.release()
        assert_control_answered(joined.get(timeout=20))
        batch.result()
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert calls_of(endpoint) == 1
    assert (line["metadata"]["fallback"], line["metadata"]["cost_usd"]) == ("control", 0)
