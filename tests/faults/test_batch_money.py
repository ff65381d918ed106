"""The money of a batch with real workers: its limit holds, no other caller pays or fails for it, and books agree."""

import json

import pytest

from dspyq.batch.account import BatchAccount
from dspyq.core.money import to_nano_usd
from tests.faults.test_guards import ask_one, questions
from tests.support.processes import eventually

pytestmark = pytest.mark.journey

BATCH = "00ff00ff00ff00ff"
#: What a reply of the endpoint costs at most: its tokens are few, and prices a dollar and two for a million.
CENT = 0.01
PREFIX = "dspy:v1:budget"


def ask_batch(questions, batch):
    """Ask for a batch, as its run does; return the task ids of what it claimed."""
    from dspyq.client.spread_bulk import process_bulk
    from dspyq.prediction.request import build_request

    requests = [build_request({"question": question}) for question in questions]
    task_ids = [f"{batch}-{question}" for question in questions]
    claims = process_bulk().ask(requests, task_ids, priority=9, batch=batch)
    return [claim.task_id for claim in claims if claim.verdict == "claim"]


@pytest.fixture
def account(client):
    return BatchAccount(client, BATCH)


@pytest.fixture
def ask(configured):
    """Ask for the batch in this process, whose programs are those of the tests' default configuration."""
    del configured
    return lambda questions: ask_batch(questions, BATCH)


@pytest.fixture
def metas(client):
    """Wait for tasks to end, and return what Celery stored of them."""

    def metas(task_ids, timeout_seconds=30):
        keys = [f"celery-task-meta-{task_id}" for task_id in task_ids]
        eventually(lambda: all(client.mget(keys)), timeout_seconds)
        return [json.loads(meta) for meta in client.mget(keys)]

    return metas


def collect(account, metas):
    """Write rows as a batch's run does: what each cost, in nano-dollars, by task id."""
    task_ids = [meta["task_id"] for meta in metas]
    costs = account.costs(task_ids)
    account.collected({task_id: cost.receipt for task_id, cost in zip(task_ids, costs, strict=True)})
    return {task_id: cost.nano_usd for task_id, cost in zip(task_ids, costs, strict=True)}


def tokens_counted(endpoint):
    counts = endpoint.counts()
    return counts.prompt_tokens, counts.completion_tokens


def errors(metas):
    return [meta["result"]["exc_type"] for meta in metas if meta["status"] == "FAILURE"]


def test_two_workers_spend_a_batch_s_limit_and_no_nano_dollar_more(worker, ask, predict, endpoint, account, metas):
    both = [worker(waits=False) for _ in range(2)]
    for each in both:
        each.ready()
    account.open(max_usd=CENT)
    stored = metas(ask(questions(300)))
    rows = collect(account, stored)
    books, calls = account.statement()
    assert set(errors(stored)) == {"BatchLimitReached"}
    assert to_nano_usd(CENT) / 2 < books.settled_nano_usd <= to_nano_usd(CENT)
    assert (sum(rows.values()), books.held_nano_usd, calls) == (books.settled_nano_usd, 0, [])
    assert (books.prompt_tokens, books.completion_tokens) == tokens_counted(endpoint)
    assert books.calls == endpoint.calls() == sum(meta["status"] == "SUCCESS" for meta in stored)
    for meta in stored:
        cost_usd = meta["result"]["metadata"]["cost_usd"] if meta["status"] == "SUCCESS" else meta["spent"]["cost_usd"]
        assert to_nano_usd(cost_usd) == rows[meta["task_id"]]
    assert "is paused here" not in both[0].logs() + both[1].logs()
    assert predict.delay(question="of no batch").get(timeout=20).answer == "echo:of no batch"


def test_rows_that_a_limit_cuts_short_fail_for_the_batch_alone(
    worker, settings_file, run_producer, start_producer, endpoint, account, metas, client
):
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:TwoSteps"}}})
    account.open(max_usd=1)
    endpoint.hold(containing="first")
    worker(path)
    task_ids = run_producer(ask_batch, path, questions=["alone", "shared"], batch=BATCH)
    endpoint.wait_for_calls(2)
    account.open(max_usd=0.000001)  # the calls under way are held already
    other = start_producer(ask_one, path, question="shared")
    aliases = "dspy:v1:prediction:*"
    eventually(lambda: any(client.hget(key, "joined") == b"1" for key in client.scan_iter(aliases)))
    endpoint.release()
    told = other.result(30)
    assert (told["answer"], told["cache_level"]) == ("echo:shared first echo:shared second", "joined")
    alone, shared = stored = metas(task_ids)
    rows = collect(account, stored)
    books, calls = account.statement()
    assert (errors(stored), shared["status"]) == (["BatchLimitReached"], "SUCCESS")
    assert (endpoint.calls(), books.calls, calls) == (3, 2, [])
    assert sum(rows.values()) == books.settled_nano_usd
    assert to_nano_usd(alone["spent"]["cost_usd"]) == rows[alone["task_id"]] > 0
    assert alone["spent"]["prompt_tokens"] > 0
    assert alone["spent"]["duration_seconds"] > 0
    # The second step of what others waited for is paid outside of the batch.
    cost = to_nano_usd(shared["result"]["metadata"]["cost_usd"])
    assert cost > rows[shared["task_id"]] > 0
    (day,) = client.scan_iter(f"{PREFIX}:all:daily:*")
    assert int(client.hget(day, "settled")) == rows[alone["task_id"]] + cost


def test_a_call_lost_in_a_kill_is_listed_and_the_books_agree(worker, ask, endpoint, account, metas, client, dspyq):
    account.open(max_usd=1)
    doomed = worker()
    endpoint.hold(containing="slow")
    task_ids = ask(["slow", "quick"])
    endpoint.wait_for_answers(1)
    metas(task_ids[1:])
    endpoint.wait_for_calls(2)
    doomed.kill()
    books, calls = account.statement()
    assert [(call.task_id, call.state) for call in calls] == [(task_ids[1], "billed"), (task_ids[0], "held")]
    (lost,) = [call.call_id for call in calls if call.state == "held"]
    endpoint.reset()
    worker()
    rows = collect(account, metas(task_ids))
    client.zadd(f"{PREFIX}:leases", {lost: 1})
    eventually(lambda: account.read().held_nano_usd == 0)
    books, calls = account.statement()
    assert [(call.call_id, call.state) for call in calls] == [(lost, "lost")]
    assert books.settled_nano_usd == sum(rows.values()) + calls[0].charged_nano_usd
    assert (books.calls, books.unknown_calls) == (3, 1)
    shown = dspyq("costs", "--batch", BATCH, "--json").stdout
    assert [call["call_id"] for call in json.loads(shown)["calls_on_no_row"]] == [lost]
    assert BATCH in dspyq("costs", "--batch", BATCH).stdout
    assert "there is no batch" in dspyq("costs", "--batch", "0", ok=False).stderr


def test_a_timeout_of_unknown_cost_is_on_its_row_at_its_bound(worker, settings_file, ask, endpoint, account, metas):
    path = settings_file({"models": {"control": {"timeout_seconds": 0.7}}, "retry": {"base_delay_seconds": 0.05}})
    account.open(max_usd=1)
    worker(path)
    endpoint.script(fault="hang", times=1)
    (meta,) = metas(ask(["q"]))
    rows = collect(account, [meta])
    books, calls = account.statement()
    assert (books.calls, books.unknown_calls, calls) == (2, 1, [])
    assert sum(rows.values()) == books.settled_nano_usd == to_nano_usd(meta["result"]["metadata"]["cost_usd"])


def test_a_batch_keeps_within_its_share_of_the_rate_and_others_go_first(
    worker, settings_file, ask, predict, endpoint, account, metas
):
    path = settings_file({"models": {"control": {"requests_per_second": 20}}})
    account.open(rate_share=0.25)
    for each in [worker(path, waits=False) for _ in range(2)]:
        each.ready()
    task_ids = ask(questions(25))
    endpoint.wait_for_calls(2)
    assert predict.delay(question="of no batch").get(timeout=20)
    assert endpoint.calls() < 26  # rows wait still
    assert {meta["status"] for meta in metas(task_ids)} == {"SUCCESS"}
    sent = [one.received_at_seconds for one in endpoint.requests() if "q" in one.inputs["question"][:1]]
    assert len(sent) == 25
    assert max(sum(1 for other in sent if start <= other < start + 3) for start in sent) <= 3 * 5 + 5
    assert sent[-1] - sent[0] > 24 / 5 - 1


def test_a_batch_stops_at_its_share_of_the_day_and_fails_without_being_parked(
    worker, settings_file, ask, predict, account, metas
):
    path = settings_file({"budget": {"daily_usd": CENT}})
    account.open(budget_share=0.5)
    worker(path)
    stored = metas(ask(questions(200)))
    assert set(errors(stored)) == {"BatchShareUsed"}
    assert account.read().settled_nano_usd <= to_nano_usd(CENT) // 2
    assert predict.delay(question="of no batch").get(timeout=20).answer == "echo:of no batch"
