"""Shadow runs over a real fleet: asked, paid from their own account, scored as pairs once, and never waited for."""

from __future__ import annotations

import json

import pytest

from dspyq.config.periods import process_calendar
from dspyq.config.settings import get_settings
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.experiments import administration
from dspyq.experiments.placement import place
from dspyq.experiments.scores import ExperimentScores
from dspyq.experiments.shadows import ShadowLog, read_shadows, shadow_id
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.guards.costs import read_costs
from dspyq.guards.limits import Limits
from dspyq.store.keys import key, result_key
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until

SCORER = "tests.support.user_scorers:is_brief"
TODAY = 20_000
LONG = "an answer of more than twenty characters"


@pytest.fixture
def start(settings_file, configure):
    """Start an experiment with shadow runs: ``start(share=1)``; its file comes back."""

    def begin(share=1.0, daily_usd=10.0, delivery=None, pair_scorers=()):
        shadow = {"variants": ["challenger"], "share": share, "daily_usd": daily_usd}
        shadow["pair_scorers"] = {name: f"tests.support.user_scorers:{name}" for name in pair_scorers}
        changes = with_experiment(scores={"brief": {"scorer": SCORER, "low": 0, "high": 2}}, shadow=shadow)
        changes["programs"]["qa"]["scorers"] = [SCORER]
        path = settings_file(changes | (delivery or {}), challenger=0.5)
        administration.start(configure(path).programs["qa"])
        return path

    return begin


def ask(question, arm="control"):
    from dspyq import predict

    state = administration.read_state("qa")
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == arm)
    return predict.apply_async(kwargs={"question": question}, unit=unit)


def shadows():
    state, plan = administration.read_state("qa"), administration.read_plan("qa")
    return read_shadows(state, plan.table)["challenger"]


def ended():
    return {what: count for what, count in shadows().outcomes.items() if count}


def spent(client):
    accounts = Limits(client, get_settings(), process_calendar()).accounts()
    return {account.scope: account.settled_nano_usd for account in accounts if account.period == "daily"}


def test_a_challenger_answers_the_controls_questions_and_each_pair_is_scored(start, worker, endpoint):
    worker(start())
    endpoint.script(model="challenger", outputs={"answer": LONG})
    for question in ("a", "b", "c", "c"):
        assert ask(question).get(timeout=20).metadata.variant == "control"
    wait_until(lambda: ended() == {"paired": 3}, 20, "three pairs")
    assert endpoint.counts().calls_by_model == {"control": 3, "challenger": 3}
    found = shadows()
    assert found.asked == 3
    assert found.scores["brief"] == (3, -1.0, None, None)


def test_the_status_shows_the_differences_and_what_came_of_the_rest(start, client, dspyq):
    path = start()
    state, log = administration.read_state("qa"), ShadowLog(client)
    for number in range(60):
        control_id = f"control {number}"
        client.hset(key(f"experiment-answer:{control_id}"), "exposure", f"{state.epoch} control 5 {number} 77 {TODAY}")
        log.note("qa", control_id, "challenger", {"brief": 0.5}, is_refused=number >= 55)
        ExperimentScores(client).add("qa", shadow_id(control_id, "challenger"), {"brief": 0.75 + number % 2 / 4})
    shown = " ".join(dspyq("experiment", "status", "qa", settings=path).stdout.split())
    assert "challenger in the shadow: 55 asked, 55 paired, 5 refused; brief +0.745 over 55 pairs (+" in shown
    (found,) = json.loads(dspyq("experiment", "status", "qa", "--json", settings=path).stdout)
    score = found["shadows"]["challenger"]["scores"]["brief"]
    assert score["pairs"] == 55
    assert 0.5 < score["low"] < score["difference"] < score["high"] < 1


def test_its_money_is_the_shadows_and_nothing_is_counted_or_cached_for_the_challenger(start, worker, endpoint, client):
    worker(start())
    ask("a").get(timeout=20)
    wait_until(lambda: ended() == {"paired": 1}, 20, "the pair")
    accounts = spent(client)
    assert accounts["shadow:qa"] > 0
    assert accounts["variant:qa.challenger"] == 0
    assert accounts["program:qa"] == accounts["shadow:qa"] + accounts["variant:qa.control"]
    books = {(line.program, line.variant): line for line in read_costs(client, get_settings(), days=1)}
    assert books["shadow:qa", "challenger"].billed_nano_usd == accounts["shadow:qa"]
    assert ("qa", "challenger") not in books
    process_tally().flush()
    table = administration.read_plan("qa").table
    arm = read_sums(administration.read_state("qa"), table, today=TODAY)["challenger"]
    assert (arm.units, arm.unscored) == (0, {})
    assert all(sum(sums.by_question.denominators) == 0 for sums in arm.metrics.values())
    calls = endpoint.calls()
    assert not ask("a", arm="challenger").get(timeout=20).metadata.cached
    assert endpoint.calls() == calls + 1


def test_pairs_compare_cost_and_time_and_both_answers(start, worker, endpoint, client):
    worker(start(pair_scorers=("prefers_brief", "exaggerates")))
    endpoint.script(model="challenger", outputs={"answer": LONG}, latency_seconds=0.2)
    answers = [ask(f"question {number}").get(timeout=20) for number in range(8)]
    wait_until(lambda: ended() == {"paired": 8}, 30, "the pairs")
    found = shadows()
    assert found.preferences["prefers_brief"][:2] == (8, -1.0)
    assert found.preferences["exaggerates"].pairs == 0
    mean_usd = sum(answer.metadata.cost_usd for answer in answers) / len(answers)
    shadow_usd = to_usd(spent(client)["shadow:qa"]) / len(answers)
    assert found.cost_usd.pairs == found.time_seconds.pairs == 8
    assert found.cost_usd.difference == pytest.approx(shadow_usd - mean_usd)
    assert found.time_seconds.difference > 0.1
    missed = read_sums(administration.read_state("qa"), administration.read_plan("qa").table, today=TODAY)
    assert missed["challenger"].unscored == {}  # it is of no arm


def test_a_pair_whose_control_is_forgotten_is_none(start, worker, client):
    path = start(pair_scorers=("prefers_brief",))
    worker(path, arguments=["-Q", "qa.control"])
    handle = ask("forgotten")
    handle.get(timeout=20)
    wait_until(lambda: shadows().asked == 1, 20, "the shadow run to be sent")
    client.delete(result_key(handle.id))
    worker(path, arguments=["-Q", "qa.challenger"])
    wait_until(lambda: ended() == {"paired": 1}, 20, "the score of the shadow run")
    assert shadows().preferences["prefers_brief"].pairs == 0
    assert shadows().scores["brief"].pairs == 1


def test_only_the_share_of_questions_is_asked(start, worker, endpoint):
    worker(start(share=0.3))
    for number in range(40):
        ask(f"question {number}").get(timeout=20)
    wait_until(lambda: ended().get("paired") == shadows().asked > 0, 20, "the pairs")
    assert 3 <= shadows().asked <= 24
    assert endpoint.counts().calls_by_model["challenger"] == shadows().asked


def test_an_empty_account_asks_nothing_and_counts_what_it_refused(start, worker, endpoint):
    worker(start(daily_usd=0))
    for question in ("a", "b"):
        ask(question).get(timeout=20)
    wait_until(lambda: ended() == {"refused": 2}, 20, "both to be refused")
    assert shadows().asked == 0
    assert endpoint.counts().calls_by_model == {"control": 2}


def test_its_limit_stops_it_and_neither_arm(start, worker, endpoint, client):
    limit_usd = 0.0095
    worker(start(daily_usd=limit_usd))
    endpoint.script(model="challenger", usage={"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})
    for number in range(12):
        ask(f"question {number}").get(timeout=20)
        wait_until(lambda number=number: sum(ended().values()) == number + 1, 20, "its shadow run to end")
    found = ended()
    assert found["paired"] >= 2
    assert found["refused"] >= 2
    assert 0 < spent(client)["shadow:qa"] <= to_nano_usd(limit_usd)
    assert endpoint.counts().calls_by_model["challenger"] == found["paired"]
    assert shadows().asked < 12  # once it refused, it was not asked
    assert ask("one more", arm="challenger").get(timeout=20).metadata.variant == "challenger"


def test_no_call_waits_for_a_challenger_that_hangs(start, worker, endpoint):
    worker(start())
    endpoint.script(model="challenger", fault="hang")
    for question in ("a", "b", "a"):
        assert ask(question).get(timeout=60).metadata.variant == "control"
    endpoint.wait_for_calls(3)
    assert ended() == {}


def test_a_challenger_that_fails_is_counted_and_harms_no_call(start, worker, endpoint):
    worker(start())
    endpoint.script(model="challenger", status=400)
    assert ask("a").get(timeout=20).metadata.fallback is None
    wait_until(lambda: ended() == {"failed": 1}, 20, "the failure")
    assert shadows().scores["brief"].pairs == 0


def test_runs_that_waited_as_the_experiment_was_stopped_cost_nothing(start, worker, endpoint, client):
    path = start()
    worker(path, arguments=["-Q", "qa.control"])
    ask("stopped").get(timeout=20)
    wait_until(lambda: shadows().asked == 1, 20, "the shadow run to be sent")
    administration.stop("qa")
    worker(path, arguments=["-Q", "qa.challenger"])
    wait_until(lambda: ended() == {"failed": 1}, 20, "its end")
    assert endpoint.counts().calls_by_model == {"control": 1}
    assert spent(client)["shadow:qa"] == 0


def test_a_killed_worker_loses_no_pair_and_doubles_none(start, worker, endpoint):
    path = start()
    first = worker(path)
    endpoint.hold("shadowed")
    handles = [ask(f"shadowed {number}") for number in range(4)]
    endpoint.wait_for_calls(4)
    endpoint.release(4)
    for handle in handles:
        handle.get(timeout=20)
    wait_until(lambda: endpoint.counts().calls_by_model.get("challenger") == 4, 20, "the challenger's calls")
    first.kill()
    endpoint.release()
    worker(path)
    wait_until(lambda: ended() == {"paired": 4}, 40, "the pairs by the other worker")
    assert shadows().asked == 4
    assert shadows().scores["brief"][:2] == (4, 0.0)


@pytest.fixture
def noted(start, client):
    """A control's counted answer, and the shadow runs."""
    start()
    state = administration.read_state("qa")
    client.hset(key("experiment-answer:of-control"), "exposure", f"{state.epoch} control 5 9 77 {TODAY}")
    return ShadowLog(client)


def test_a_pair_that_is_noted_and_scored_again_changes_nothing(noted, client):
    task_id = shadow_id("of-control", "challenger")
    for _ in range(2):
        assert noted.note("qa", "of-control", "challenger", {"brief": 0.25}, is_refused=False) == "asked"
    for _ in range(2):
        ExperimentScores(client).add("qa", task_id, {"brief": 1.0})
    assert noted.note("qa", "of-control", "challenger", {"brief": 0.25}, is_refused=False) == "known"
    noted.end("qa", task_id, "failed")
    assert (shadows().asked, ended()) == (1, {"paired": 1})
    assert shadows().scores["brief"][:2] == (1, 1.5)


def test_a_refusal_is_counted_once(noted):
    for verdict in ("refused", "known"):
        assert noted.note("qa", "of-control", "challenger", {"brief": 0.25}, is_refused=True) == verdict
    assert (shadows().asked, ended()) == (0, {"refused": 1})


def test_beyond_a_thousand_that_wait_none_is_asked_and_the_old_are_given_up(noted, client):
    state = administration.read_state("qa")
    waiting = key(f"experiment-sums:qa:{state.epoch}:shadows")
    client.zadd(waiting, {f"challenger {number}": 2e12 for number in range(1000)})
    assert noted.note("qa", "of-control", "challenger", {"brief": 0}, is_refused=False) == "full"
    client.zadd(waiting, {"challenger 1": 1, "challenger 2": 1})
    client.hset(key("experiment-answer:another"), "exposure", f"{state.epoch} control 5 9 77 {TODAY}")
    assert noted.note("qa", "another", "challenger", {"brief": 0}, is_refused=False) == "asked"
    assert ended() == {"full": 1, "lost": 2}


def test_answers_of_an_ended_experiment_are_not_asked(noted, client):
    client.hset(key("experiment-answer:of-control"), "exposure", "earlier control 5 9 77 1")
    assert noted.note("qa", "of-control", "challenger", {"brief": 0}, is_refused=False) == "gone"
    assert noted.note("qa", "forgotten", "challenger", {"brief": 0}, is_refused=False) == "gone"
