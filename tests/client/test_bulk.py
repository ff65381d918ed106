"""Predictions by the hundred do what single ones do, in fewer round trips, and can be taken back unpaid."""

import base64
import json

import orjson
import pytest
import redis
from celery.signals import before_task_publish

from dspyq.batch.account import BatchAccount
from tests.support.processes import eventually

BATCH = "00ff00ff00ff00ff"
QUEUE = "dspy:v1:queue:qa.control"


@pytest.fixture
def bulk(configured):
    del configured
    from dspyq.client.spread_bulk import process_bulk

    return process_bulk()


@pytest.fixture
def claims(bulk):
    del bulk
    from dspyq.cache.claims import process_claims

    return process_claims()


@pytest.fixture
def client(redis_server):
    return redis_server.client()


@pytest.fixture
def ask(bulk):
    def ask(*questions, ids=None, batch=BATCH, priority=9):
        task_ids = ids or [f"{batch or 'task'}-{question}" for question in questions]
        return bulk.ask(requests(*questions), task_ids, priority=priority, batch=batch)

    return ask


@pytest.fixture
def answer(claims):
    def answer(question, task_id, serve_seconds=60):
        from dspyq.cache.claim import Run, Stored

        payload = orjson.dumps({"status": "SUCCESS", "result": question, "input_hash": request(question).input_hash})
        stored = Stored(payload, serve_seconds, 60, {"successes": 1}, cost_nano_usd=7)
        assert claims.answer(request(question), Run(task_id), stored)
        return payload

    return answer


def request(question, **options):
    from dspyq.prediction.request import build_request

    return build_request({"question": question}, **options)


def requests(*questions):
    return [request(question) for question in questions]


def verdicts(claims):
    return [(claim.verdict, claim.task_id) for claim in claims]


def message(client, task_id):
    """A job's message with what is inside of it read, and without what is random."""
    read = json.loads(client.hget(f"dspy:v1:job:{task_id}", "message"))
    read["body"] = json.loads(base64.b64decode(read["body"]))
    read["properties"].pop("delivery_tag")
    return read


def counts(client):
    """Every count of the variant, of the savings and of the books."""
    keys = [
        "dspy:v1:statistics:qa.control",
        *client.scan_iter("dspy:v1:savings:*"),
        *client.scan_iter("dspy:v1:costs:*"),
    ]
    return [{field: value for field, value in client.hgetall(key).items() if value != "0"} for key in keys]


def take():
    """Lease the first job, as a worker does; return its id, or None where there is none."""
    from dspyq.delivery.leases import process_leases

    delivery = process_leases().records.take("qa.control", 30)
    return delivery and delivery.id


# Asking


@pytest.mark.parametrize("priority", [0, 9])
@pytest.mark.parametrize(
    "question", ["plain", 'ä "quoted" \u2028 \U0001f600\n', '{"__type__": "uuid", "__value__": 1}']
)
def test_a_message_is_the_one_that_celery_publishes(question, priority, predict, ask, client):
    def watch(**_):
        """Keep messages from being made without Celery, which calls this of its own alone."""

    predict.apply_async(kwargs={"question": "warm"}, priority=priority)  # makes a template
    before_task_publish.connect(watch)
    try:
        handle = predict.apply_async(kwargs={"question": question}, priority=priority)
    finally:
        before_task_publish.disconnect(watch)
    single = message(client, handle.id)
    score = client.hget(f"dspy:v1:job:{handle.id}", "score")
    record = client.hgetall(f"dspy:v1:job:{handle.id}").keys()
    client.flushall()
    delayed = predict.apply_async(kwargs={"question": question}, priority=priority)
    made = message(client, delayed.id)
    for of_one in (made["headers"], made["properties"]):
        of_one.update({name: handle.id for name, value in of_one.items() if value == delayed.id})
    assert len(made["headers"]["dspyq"].pop("request_id")) == 32
    assert client.hget(f"dspy:v1:job:{delayed.id}", "message").startswith('{"body":"'), "kombu's have spaces"
    client.flushall()
    other, ours = ask("another", question, ids=["other", handle.id], batch="", priority=priority)
    assert client.hget(f"dspy:v1:job:{ours.task_id}", "message").startswith('{"body":"'), "kombu's have spaces"
    of_many = message(client, ours.task_id)
    assert other.task_id != ours.task_id
    for each in (single, of_many):
        assert len(each["headers"]["dspyq"].pop("request_id")) == 32
    assert made == of_many == single
    assert client.hgetall(f"dspy:v1:job:{handle.id}").keys() == record
    assert int(client.hget(f"dspy:v1:job:{handle.id}", "score")) == int(score)  # each was put second
    assert made["headers"]["kwargsrepr"] == made["headers"]["argsrepr"] == "..."


def scripts(commands):
    sent = [command for command in commands if not command.is_in_script and command.name != "PING"]
    assert len({command.client for command in sent}) == 1
    return [command.name for command in sent]


def test_a_chunk_takes_one_round_trip_where_most_is_new_and_so_does_a_look(ask, bulk, answer, redis_server):
    questions = [f"q{number}" for number in range(8)]
    ask("warm the connections")
    with redis_server.monitored() as commands:
        ask(*questions)
    assert scripts(commands) == ["EVALSHA"]
    for question in questions:
        answer(question, f"{BATCH}-{question}")
    bulk.peek(requests("none"))
    with redis_server.counted() as usage:
        assert all(bulk.peek(requests(*questions)))
    assert usage.round_trips == 1


def test_messages_are_not_made_in_vain_where_the_last_rows_were_mostly_known(ask, redis_server):
    questions = [f"q{number}" for number in range(8)]  # so few that Redis reads each pipeline at once
    ask(*questions)
    assert {claim.verdict for claim in ask(*questions, batch="another")} == {"join"}
    with redis_server.monitored() as commands:
        assert {claim.verdict for claim in ask(*(f"new {question}" for question in questions))} == {"claim"}
    assert scripts(commands) == ["EVALSHA"] * 16  # to claim, then to send
    with redis_server.monitored() as commands:
        ask(*(f"newer {question}" for question in questions))
    assert scripts(commands) == ["EVALSHA"]


def test_of_a_question_that_a_chunk_asks_twice_the_second_joins_the_first(bulk, client):
    found = bulk.ask(requests("a", "b", "a"), ["first", "other", "second"], priority=0)
    assert verdicts(found) == [("claim", "first"), ("claim", "other"), ("join", "first")]
    assert client.zrange(QUEUE, 0, -1) == ["first", "other"]
    assert counts(client) == [{"misses": "2", "joined": "1"}]


def test_rows_beyond_one_script_keep_their_order_and_each_has_a_bell(bulk, client):
    asked = requests(*(f"q{number}" for number in range(230)))
    ids = [f"id-{number}" for number in range(230)]
    assert verdicts(bulk.ask(asked, ids, priority=3)) == [("claim", task_id) for task_id in ids]
    assert client.zrange(QUEUE, 0, -1) == ids
    assert client.llen("qa.control") == 230


def test_processes_that_ask_overlapping_chunks_claim_each_question_once(bulk, client, start_producer):
    del bulk

    def ask(first):
        from celery.utils import uuid

        from dspyq.client.spread_bulk import process_bulk
        from dspyq.prediction.request import build_request

        asked = [build_request({"question": f"q{number}"}) for number in range(first, first + 1200)]
        found = process_bulk().ask(asked, [uuid() for _ in asked], priority=9, batch=f"batch {first}")
        return [[request.input_hash, claim.verdict, claim.task_id] for request, claim in zip(asked, found, strict=True)]

    producers = [start_producer(ask, first=first) for first in (0, 400, 800)]
    rows = [row for producer in producers for row in producer.result()]
    assert len({input_hash for input_hash, _, _ in rows}) == len({task_id for _, _, task_id in rows}) == 2000
    assert sum(verdict == "claim" for _, verdict, _ in rows) == client.zcard(QUEUE) == 2000
    assert counts(client) == [{"misses": "2000", "joined": "1600"}]
    for task_id in client.zrange(QUEUE, 0, -1, desc=True)[:300]:  # whoever put it, its claimer pays
        alias = f"dspy:v1:prediction:{message(client, task_id)['headers']['dspyq']['input_hash']}"
        assert message(client, task_id)["headers"]["dspyq"]["batch"] == client.hget(alias, "batch")


def test_a_chunk_counts_what_single_calls_count(predict, bulk, answer, client):
    asked = ["cached", "cached", "new", "new", "joined"]

    def prepare():
        client.flushall()
        for question in ("cached", "joined"):
            task_id = predict.delay(question=question).id
            if question == "cached":
                answer(question, task_id)

    prepare()
    for question in asked:
        predict.delay(question=question)
    single = counts(client)
    prepare()
    bulk.ask(requests(*asked), [f"t{number}" for number in range(5)], priority=0)
    assert counts(client) == single
    prepare()
    found = bulk.peek(requests(*asked))
    assert [claim is not None for claim in found] == [True, True, False, False, False]
    missed = [question for question, claim in zip(asked, found, strict=True) if claim is None]
    bulk.ask(requests(*missed), [f"t{number}" for number in range(3)], priority=0)
    assert counts(client) == single
    assert single == [
        {"misses": "3", "joined": "2", "hits_redis": "2", "successes": "1"},
        {"qa.control avoided_nano_usd": "14"},
    ]


def test_a_look_passes_over_no_answer_but_to_a_refresh_and_goes_on_after_large_results(ask, bulk, claims, redis_server):
    from dspyq.cache.claim import Run, Stored

    def own(question):  # two of them are all that one look returns
        return b'"input_hash":"%s"' % request(question).input_hash.encode() + b"x" * 5 * 2**20

    questions = [f"q{number}" for number in range(4)]
    for question, claim in zip(questions, ask(*questions), strict=True):
        claims.answer(request(question), Run(claim.task_id), Stored(own(question), 60, 60, {}))
    asked = [*requests(*questions[:3]), request("q3", refresh=True), *requests("unknown", "q3")]
    with redis_server.monitored() as commands:
        found = bulk.peek(asked)
    assert [command.name for command in commands].count("EVALSHA") == 2
    assert [claim and (claim.verdict, claim.task_id, len(claim.result)) for claim in found] == [
        *(("hit", f"{BATCH}-q{number}", len(own("q0"))) for number in range(3)),
        None,
        None,
        ("hit", f"{BATCH}-q3", len(own("q0"))),
    ]
    assert all(0 < claim.milliseconds_left <= 60_000 for claim in found if claim)


def test_asking_again_by_the_same_ids_counts_and_queues_nothing_twice(ask, client):
    first = ask("a", "b")
    joined = ask("a", batch="another")
    assert verdicts(joined) == [("join", f"{BATCH}-a")]
    before = counts(client)
    assert ask("a", "b") == first
    assert verdicts(ask("a", ids=[f"{BATCH}-a"], batch="another")) == [("join", f"{BATCH}-a")]
    assert counts(client) == before == [{"misses": "2", "joined": "1"}]
    assert client.hget(f"dspy:v1:prediction:{request('a').input_hash}", "joined") == "1"
    assert client.zcard(QUEUE) == 2
    client.zrem(QUEUE, f"{BATCH}-b")  # a job that was lost
    client.delete(f"dspy:v1:job:{BATCH}-b")
    assert ask("a", "b") == first
    assert client.zrange(QUEUE, 0, -1) == [f"{BATCH}-a", f"{BATCH}-b"]


def test_what_an_urged_question_costs_its_claimer_pays(ask, claims, client):
    claims.claim_many(requests("never sent"), ["one"], priority=9, batch=BATCH)  # and its process dies
    (urged,) = ask("never sent", batch="another")
    assert (urged.verdict, urged.task_id, urged.batch) == ("urge", "one", BATCH)
    assert message(client, "one")["headers"]["dspyq"]["batch"] == BATCH


def test_what_was_asked_in_bulk_is_answered_once_also_when_it_is_asked_again(bulk, client, shared_worker, endpoint):
    del shared_worker
    BatchAccount(client, BATCH).open()
    asked = requests(*(f"q{number}" for number in range(20)))
    ids = [f"id-{number}" for number in range(20)]
    for _ in range(3):
        bulk.ask(asked, ids, priority=9, batch=BATCH)
    eventually(lambda: all(bulk.collect(ids)), timeout_seconds=20)
    assert endpoint.calls() == 20
    again = bulk.ask(asked, ids, priority=9, batch=BATCH)
    assert verdicts(again) == [("hit", task_id) for task_id in ids]
    stored = bulk.collect(ids)
    assert [claim.result for claim in bulk.peek(asked)] == stored
    assert [orjson.loads(meta)["result"]["metadata"]["cost_usd"] > 0 for meta in stored] == [True] * 20
    assert bulk.collect(["unknown"]) == [None]


def test_claims_that_cannot_be_sent_are_released(ask, client):
    client.set(QUEUE, "no sorted set")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        ask("a", "b")
    client.delete(QUEUE)
    assert {verdict for verdict, _ in verdicts(ask("a", "b", batch="another"))} == {"claim"}


def test_receivers_of_publishing_signals_get_each_message(ask, client):
    from celery import signals

    heard = []

    def listen(headers, **_):
        heard.append(headers["id"])

    signals.before_task_publish.connect(listen)
    try:
        asked = ask("a", "b")
    finally:
        signals.before_task_publish.disconnect(listen)
    assert heard == [claim.task_id for claim in asked] == client.zrange(QUEUE, 0, -1)


@pytest.mark.parametrize("setting", ["task_compression", "task_serializer", "task_send_sent_event", "content"])
def test_what_is_configured_otherwise_is_left_to_celery(setting, run_producer, configured):
    del configured

    def ask(setting):
        import json

        from kombu.serialization import register

        from dspyq import predict
        from dspyq.celery_app.application import app
        from dspyq.client.spread_bulk import process_bulk
        from dspyq.prediction.request import build_request
        from dspyq.store.clients import jobs_client

        # JSON as well, but in another order than the template's.
        register("other", lambda body: json.dumps([*body[1:], body[0]]), json.loads, "application/x-other")
        values = {"task_compression": "gzip", "task_serializer": "other", "task_send_sent_event": True}
        app.conf.update({name: value for name, value in values.items() if name == setting})
        single = predict.delay(question="a").id
        process_bulk().ask([build_request({"question": "b"})], ["one"], priority=0)
        texts = [jobs_client().hget(f"dspy:v1:job:{task_id}", "message").decode() for task_id in (single, "one")]
        marks = {
            "by celery": ', "',
            "task_compression": "/x-gzip",
            "task_serializer": "/x-other",
            "content": "{'question': ",
        }
        return [[name for name, mark in marks.items() if mark in text] for text in texts]

    env = {"DSPYQ_LOGGING__INCLUDE_CONTENT": "true"} if setting == "content" else {}
    single, made = run_producer(ask, env=env, setting=setting)
    assert single == made == ["by celery", *({setting} - {"task_send_sent_event"})]


def test_answers_of_another_redis_are_read_there_and_those_it_has_evicted_are_misses(
    configure, redis_server, settings_file
):
    from dspyq.cache.claim import Run, Stored
    from dspyq.cache.claims import process_claims
    from dspyq.client.spread_bulk import process_bulk
    from dspyq.prediction.request import build_request
    from dspyq.store.clients import answers_client, jobs_client
    from dspyq.store.keys import savings_key, statistics_key

    answers_url = redis_server.url.removesuffix("/0") + "/1"
    configure(settings_file({"result_url": answers_url}, challenger=0.5))
    bulk, client = process_bulk(), jobs_client()
    asked = [build_request({"question": f"q{n}"}, variant=("control", "challenger")[n % 2]) for n in range(6)]
    for request, claim in zip(asked, bulk.ask(asked, list("012345"), priority=0), strict=True):
        answer = {"result": claim.task_id, "input_hash": request.input_hash}
        stored = Stored(orjson.dumps(answer), 60, 60, {}, cost_nano_usd=5)
        process_claims().answer(request, Run(claim.task_id), stored)
    answers_client().delete("celery-task-meta-0", "celery-task-meta-1", "celery-task-meta-2")
    looked = [claim and orjson.loads(claim.result)["result"] for claim in bulk.peek(asked)]
    (savings,) = client.keys(savings_key("*"))

    def counted(queue):
        hits, misses = client.hmget(statistics_key(queue), "hits_redis", "misses")
        return [int(hits), int(misses), int(client.hget(savings, f"{queue} avoided_nano_usd"))]

    after_look = [counted("qa.control"), counted("qa.challenger")]
    verdicts = [claim.verdict for claim in bulk.ask(asked, list("abcdef"), priority=0)]
    after_ask = [counted("qa.control"), counted("qa.challenger")]
    assert looked == [None, None, None, "3", "4", "5"]
    assert after_look == [[1, 3, 5], [2, 3, 10]]
    assert verdicts == ["claim"] * 3 + ["hit"] * 3
    assert after_ask == [[2, 5, 10], [4, 4, 20]]


# Withdrawing


def test_a_question_without_a_run_is_recalled_without_a_trace(ask, bulk, client):
    asked = ask("a", "b")
    rows = [(question, claim.task_id) for question, claim in zip(requests("a", "b"), asked, strict=True)]
    assert bulk.recall(rows, batch=BATCH) == [True, True]
    assert not list(client.scan_iter("dspy:v1:job:*"))
    assert not client.exists(QUEUE)
    assert counts(client) == [{}]
    assert bulk.recall(rows, batch=BATCH) == [False, False]
    assert verdicts(ask("a", "b", batch="another")) == [("claim", "another-a"), ("claim", "another-b")]


def test_what_a_run_holds_or_has_paid_for_or_answered_is_not_recalled(ask, bulk, answer, client, claims):
    questions = ["leased", "paid", "lost", "answered", "failed", "forgotten", "never sent"]
    rows = [(request(question), f"{BATCH}-{question}") for question in questions]
    ask("leased")
    assert take() == f"{BATCH}-leased"
    ask(*questions[1:6])
    client.hset(f"dspy:v1:calls:{BATCH}-paid", "a model call", "its reply")
    client.hset(f"dspy:v1:job:{BATCH}-lost", "lost", 1)  # its lease ran out: its worker may have called the model
    answer("answered", f"{BATCH}-answered")
    from dspyq.cache.claim import Run

    claims.release(request("failed"), Run(f"{BATCH}-failed"), {"failures": 1})
    claims.invalidate([request("forgotten").input_hash])
    claims.claim_many(requests("never sent"), [f"{BATCH}-never sent"], priority=9, batch=BATCH)
    before = client.zcard(QUEUE)
    assert bulk.recall(rows, batch=BATCH) == [False] * 6 + [True]
    assert client.zcard(QUEUE) == before
    assert client.exists(f"dspy:v1:job:{BATCH}-leased")


def test_a_batch_that_leaves_a_question_to_others_pays_nothing_for_it(predict, ask, bulk, worker):
    from dspyq.batch.account import BatchAccount
    from dspyq.store.clients import jobs_client

    account = BatchAccount(jobs_client(), BATCH)
    account.open()
    left, _ = ask("left", "kept")
    waiting = predict.delay(question="left")
    assert bulk.recall([(request("left"), left.task_id)], batch=BATCH) == [True]
    worker()
    assert waiting.get(timeout=20).answer
    predict.AsyncResult(f"{BATCH}-kept").get(timeout=20)
    assert account.read().calls == 1


@pytest.mark.parametrize("way", ["recall", "withdraw"])
def test_what_others_wait_for_stays_and_the_batch_that_leaves_it_does_not_pay(way, predict, ask, bulk, client):
    ask("theirs", batch="another")
    rows = [(request(question), claim.task_id) for question, claim in zip("ab", ask("a", "b"), strict=True)]
    rows.append((request("theirs"), ask("theirs")[0].task_id))
    waiting = predict.delay(question="a")
    found = getattr(bulk, way)(rows, batch=BATCH)
    assert found == ([True, True, True] if way == "recall" else 1)
    assert client.zrange(QUEUE, 0, -1) == [waiting.id, "another-theirs"]
    disowned = client.hget(f"dspy:v1:job:{waiting.id}", "disowned_by")
    assert disowned == message(client, waiting.id)["headers"]["dspyq"]["batch"] == BATCH
    assert not client.hexists("dspy:v1:job:another-theirs", "disowned_by")
    alias = client.hgetall(f"dspy:v1:prediction:{request('a').input_hash}")
    assert (alias["pending"], alias["joined"], alias.get("batch")) == (waiting.id, "0", None)
    assert waiting.cancel(), "its caller is the last"


def test_the_last_to_withdraw_ends_a_job_also_one_that_runs(ask, bulk, client):
    from dspyq.celery_app.cancellations import store_cancelled

    rows = [(request(question), claim.task_id) for question, claim in zip("ab", ask("a", "b"), strict=True)]
    assert take() == f"{BATCH}-a"
    assert bulk.withdraw(rows, batch=BATCH) == 2
    assert not list(client.scan_iter("dspy:v1:job:*"))
    task_ids = [task_id for _, task_id in rows]
    store_cancelled(task_ids)  # a worker's part
    assert [orjson.loads(meta)["status"] for meta in bulk.collect(task_ids)] == ["REVOKED"] * 2
    assert not client.exists("dspy:v1:cancelled", "dspy:v1:cancelled-jobs")
    assert bulk.withdraw(rows, batch=BATCH) == 0


def test_a_recall_and_a_worker_never_both_have_a_job(ask, bulk, client):
    from threading import Thread

    asked = ask(*(f"q{number}" for number in range(600)))
    rows = [(request(f"q{number}"), claim.task_id) for number, claim in enumerate(asked)]
    taken = []

    def work():
        while (task_id := take()) is not None:
            taken.append(task_id)

    worker = Thread(target=work)
    worker.start()
    recalled = [row for chunk in range(0, 600, 20) for row in bulk.recall(rows[chunk : chunk + 20], batch=BATCH)]
    worker.join()
    assert sorted(taken) == sorted(task_id for (_, task_id), is_ours in zip(rows, recalled, strict=True) if not is_ours)
    assert not client.zcard(QUEUE)
