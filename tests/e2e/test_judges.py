"""Score functions that call a model: guarded, paid by the judge's account, and on a share of the questions."""

from __future__ import annotations

import pytest

from dspyq.config.periods import process_calendar
from dspyq.config.settings import get_settings
from dspyq.core.money import to_nano_usd
from dspyq.experiments import administration
from dspyq.experiments.placement import place
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.costs import read_costs
from dspyq.guards.limits import Limits
from dspyq.store.keys import key
from tests.support.configuration import default_document
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until

HOOKS = "tests.support.user_scorers"
WAITING = "experiment-unscored:qa"
TODAY = 20_000


@pytest.fixture
def start(settings_file, configure, endpoint):
    """Start an experiment whose scorers call a model of their own: ``start(daily_usd=1)``; its file comes back."""

    def begin(daily_usd=1.0, share=1.0, scorers=("judged",)):
        scores = {name: {"scorer": f"{HOOKS}:{name}", "low": 0, "high": 1, "share": share} for name in scorers}
        changes = with_experiment(scores=scores, judge={"model": "judge", "daily_usd": daily_usd})
        changes["programs"]["qa"]["scorers"] = [f"{HOOKS}:{name}" for name in scorers]
        model = default_document(endpoint.url)["models"]["control"] | {"model": "openai/judge"}
        path = settings_file(changes | {"models": {"judge": model}}, challenger=0.5)
        endpoint.script(model="judge", outputs={"grounded": 0.25})
        administration.start(configure(path).programs["qa"])
        return path

    return begin


def ask(question, arm="challenger", **options):
    from dspyq import predict

    state = administration.read_state("qa")
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == arm)
    return predict.apply_async(kwargs={"question": question}, unit=unit, **options).get(timeout=20)


def reading(arm="challenger"):
    process_tally().flush()
    return read_sums(administration.read_state("qa"), administration.read_plan("qa").table, today=TODAY)[arm]


def scored(arm="challenger", score="judged"):
    sums = reading(arm).metrics[f"answer.{score}"].by_unit
    return sum(sums.denominators), sum(sums.numerators)


def missed(arm="challenger"):
    return {each: count for each, count in reading(arm).unscored.items() if count}


def spent(client):
    accounts = Limits(client, get_settings(), process_calendar()).accounts()
    return {account.scope: account.settled_nano_usd for account in accounts if account.period == "daily"}


def test_a_judges_calls_are_paid_by_its_account_and_not_by_the_arm(start, worker, endpoint, client):
    worker(start())
    for question in ("a", "b", "a"):
        ask(question)
    wait_until(lambda: scored() == (2, 0.5), 20, "two scores")
    assert endpoint.counts().calls_by_model == {"challenger": 2, "judge": 2}
    accounts = spent(client)
    assert accounts["judge:qa"] > 0
    assert accounts["program:qa"] == accounts["judge:qa"] + accounts["variant:qa.challenger"]
    books = {(line.program, line.variant, line.model): line for line in read_costs(client, get_settings(), days=1)}
    assert books["judge:qa", "challenger", "judge"].billed_nano_usd == accounts["judge:qa"]
    answers = reading().metrics["answer.cost"].by_unit
    assert to_nano_usd(sum(answers.numerators)) == accounts["variant:qa.challenger"]


def test_a_judge_whose_account_is_empty_is_not_called_and_its_scores_are_counted_as_refused(start, worker, endpoint):
    worker(start(daily_usd=0))
    for question in ("a", "b"):
        assert ask(question).metadata.fallback is None
    wait_until(lambda: missed() == {("judged", "refused"): 2}, 20, "both to be refused")
    assert "judge" not in endpoint.counts().calls_by_model


def test_only_a_share_of_the_questions_is_scored_and_no_other_is_missed(start, worker, endpoint, client):
    worker(start(share=0.4))
    for number in range(25):
        for arm in ("control", "challenger"):
            ask(f"question {number}", arm)
    wait_until(lambda: client.zcard(key(WAITING)) == 0, 20, "all answers to be looked at")
    rows, _ = scored()
    assert 2 <= rows <= 20
    assert scored("control") == scored("challenger")  # of the same questions
    assert endpoint.counts().calls_by_model["judge"] == 2 * rows
    assert missed() == {}


def test_further_answers_to_a_question_are_of_the_same_share(start, worker, client, endpoint):
    """As is an answer that is scored again after its worker ended: the question decides."""
    worker(start(share=0.5))
    for is_again in (False, True):
        for number in range(12):
            ask(f"question {number}", refresh=is_again)
        wait_until(lambda: client.zcard(key(WAITING)) == 0, 20, "all answers to be looked at")
        if not is_again:
            first = scored()[0], endpoint.counts().calls_by_model["judge"]
    assert 0 < first[0] < 12
    assert (scored()[0], endpoint.counts().calls_by_model["judge"]) == (2 * first[0], 2 * first[1])


def test_while_the_judges_breaker_is_open_its_score_waits_and_the_others_do_not(start, worker, client):
    path = start(scorers=("judged", "is_brief"))
    breaker = FleetBreaker(client, "judge", BreakerPolicy.of(get_settings(), get_settings().models["judge"]))
    breaker.command("open")
    worker(path)
    ask("a")
    wait_until(lambda: scored(score="is_brief") == (1, 1), 20, "the score without a judge")
    assert scored() == (0, 0)
    assert client.zcard(key(WAITING)) == 1
    breaker.command("close")
    client.zadd(key(WAITING), dict.fromkeys(client.zrange(key(WAITING), 0, -1), 0))  # its minute is over
    wait_until(lambda: scored() == (1, 0.25), 20, "the judge's score")
    assert scored(score="is_brief") == (1, 1)
    assert client.zcard(key(WAITING)) == 0
    assert missed() == {}


def test_a_scorer_that_calls_a_model_of_its_own_past_the_judge_fails_before_a_byte_is_sent(start, worker):
    worker(start(scorers=("judged_elsewhere",)))
    ask("a")
    wait_until(lambda: missed() == {("judged_elsewhere", "failed"): 1}, 20, "the failure")
