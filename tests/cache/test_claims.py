"""One claim and one answer for each question, however many callers at once. No worker runs here."""

import time

import orjson
import pytest

from dspyq.errors import DamagedKey, InvalidInputs, InvalidOption
from tests.support.journeys import few_of


def ask_at_once(question, threads, through):
    """Ask one question from many threads at once; return the task ids and how each came to its answer."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    from dspyq import predict

    barrier = Barrier(threads)

    def ask(_):
        barrier.wait()
        if through == "delay":
            return predict.delay(question=question)
        return predict.many([{"question": question}])[0]

    with ThreadPoolExecutor(threads) as pool:
        handles = list(pool.map(ask, range(threads)))
    return [[handle.id, handle.cache_level] for handle in handles]


@pytest.fixture
def claims(configured):
    del configured
    from dspyq.cache.claims import process_claims

    return process_claims()


def request(question="q", **options):
    from dspyq.prediction.request import build_request

    return build_request({"question": question}, **options)


def run(task_id):
    from dspyq.cache.claim import Run

    return Run(task_id)


def stored(text="answer", serve_seconds=60, of="q"):
    from dspyq.cache.claim import Stored

    meta = {"status": "SUCCESS", "result": text, "task_id": "t", "traceback": None, "children": []}
    payload = orjson.dumps({**meta, "input_hash": request(of).input_hash})  # as in a prediction's metadata
    return Stored(payload, serve_seconds, 60, {"successes": 1})


def waiting(redis_server):
    return redis_server.client().zrange("dspy:v1:queue:qa.control", 0, -1)


@pytest.mark.parametrize("through", few_of(["delay", "many"], 1))
def test_three_hundred_callers_in_three_processes_claim_once(through, start_producer, redis_server, configured):
    del configured
    producers = [start_producer(ask_at_once, question="same", threads=100, through=through) for _ in range(3)]
    asked = [row for producer in producers for row in producer.result()]
    assert len(asked) == 300
    assert len({task_id for task_id, _ in asked}) == 1
    assert [level for _, level in asked].count(None) == 1
    assert len(waiting(redis_server)) == 1


def test_duplicate_rows_of_one_call_are_one_job(predict, redis_server):
    handles = predict.many([{"question": f"q{number % 10}"} for number in range(1200)])
    assert len({handle.id for handle in handles}) == 10
    assert len(waiting(redis_server)) == 10
    assert [handle.request.inputs["question"] for handle in handles[:3]] == ["q0", "q1", "q2"]


def test_a_row_that_cannot_be_served_is_named_and_nothing_is_sent(predict, redis_server):
    with pytest.raises(InvalidInputs, match="row 3: qa takes question"):
        predict.many([{"question": "a"}, {"question": "b"}, {"quest": "c"}])
    assert not waiting(redis_server)


def test_a_claim_whose_producer_died_before_sending_is_sent_by_the_caller_that_joins(predict, claims, redis_server):
    claims.claim(request(), "never-sent", priority=0)  # and its producer dies
    joined = predict.delay(question="q")
    assert (joined.id, joined.cache_level) == ("never-sent", "joined")
    assert waiting(redis_server) == ["never-sent"]


def test_a_claim_that_was_neither_sent_nor_joined_lapses(configure, settings_file):
    from dspyq import predict
    from dspyq.cache.claims import process_claims
    from dspyq.prediction.request import build_request

    configure(settings_file({"delivery": {"claim_timeout_seconds": 0.5}}))
    process_claims().claim(build_request({"question": "q"}), "never-sent", priority=0)
    time.sleep(0.7)
    handle = predict.delay(question="q")
    assert handle.id != "never-sent"
    assert handle.cache_level is None


def test_a_claim_with_a_job_record_never_lapses(run_producer, settings_file, configured):
    del configured

    def ask():
        import time

        from dspyq import predict

        first = predict.delay(question="q")
        time.sleep(0.7)
        return first.id == predict.delay(question="q").id

    assert run_producer(ask, settings_file({"delivery": {"claim_timeout_seconds": 0.5}}))


def test_an_alias_lives_no_longer_than_its_claim_or_its_answer(claims, redis_server):
    asked = request()
    claims.claim(asked, "one", priority=0)
    alias = f"dspy:v1:prediction:{asked.input_hash}"
    assert 0 < redis_server.client().ttl(alias) <= 60
    claims.answer(asked, run("one"), stored())
    assert 0 < redis_server.client().ttl(alias) <= 60


def test_an_answer_is_a_hit_for_everyone(claims):
    asked = request()
    claims.claim(asked, "one", priority=0)
    claims.answer(asked, run("one"), stored())
    hit = claims.claim(asked, "two", priority=0)
    assert (hit.verdict, hit.task_id) == ("hit", "one")
    assert orjson.loads(hit.result)["result"] == "answer"
    assert 0 < hit.milliseconds_left <= 60_000


def test_an_answer_whose_result_is_gone_is_claimed_anew(claims, redis_server):
    asked = request()
    claims.claim(asked, "one", priority=0)
    claims.answer(asked, run("one"), stored())
    redis_server.client().delete("celery-task-meta-one")
    assert claims.claim(asked, "two", priority=0).verdict == "claim"
    assert claims.claim(asked, "three", priority=0).task_id == "two"


def test_a_released_claim_is_free_and_releasing_twice_takes_no_other_claim(claims):
    asked = request()
    claims.claim(asked, "one", priority=0)
    claims.release(asked, run("one"))
    assert claims.claim(asked, "two", priority=0).verdict == "claim"
    claims.release(asked, run("one"))
    assert claims.claim(asked, "three", priority=0).task_id == "two"


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_claim_whose_job_was_sent_after_all_is_not_given_back(claims, redis_server, is_answered):
    from dspyq.cache.claim import Run

    asked = request()
    claims.claim(asked, "one", priority=0)
    if is_answered:
        claims.answer(asked, run("one"), stored())
    else:
        redis_server.client().hset("dspy:v1:job:one", "message", "{}")
    claims.release(asked, Run("one"))
    claims.release_many([(asked, "one")])
    assert claims.claim(asked, "two", priority=0).task_id == "one"


def test_a_claim_tried_again_after_a_lost_reply_is_still_ours(claims):
    asked = request()
    assert [claims.claim(asked, "one", priority=0).verdict for _ in range(2)] == ["claim", "claim"]


def test_a_refresh_leaves_the_old_answer_visible_until_its_own_is_there(claims):
    plain, refresh = request(), request(refresh=True)
    claims.claim(plain, "old", priority=0)
    claims.answer(plain, run("old"), stored("old"))
    assert claims.claim(refresh, "new", priority=0).verdict == "claim"
    assert claims.claim(plain, "x", priority=0).task_id == "old"
    joined = claims.claim(refresh, "y", priority=0)
    assert (joined.verdict, joined.task_id) == ("urge", "new")  # nobody has sent it yet
    claims.answer(plain, run("new"), stored("new"))
    assert claims.claim(plain, "z", priority=0).task_id == "new"


def test_a_refresh_that_fails_leaves_the_old_answer(claims, redis_server):
    plain, refresh = request(), request(refresh=True)
    claims.claim(plain, "old", priority=0)
    claims.answer(plain, run("old"), stored("old"))
    claims.claim(refresh, "new", priority=0)
    claims.release(plain, run("new"), {"failures": 1})
    assert claims.claim(plain, "x", priority=0).task_id == "old"
    assert redis_server.client().ttl(f"dspy:v1:prediction:{plain.input_hash}") > 0


def test_an_answer_of_zero_seconds_is_stored_but_not_served(claims, redis_server):
    asked = request()
    claims.claim(asked, "one", priority=0)
    claims.answer(asked, run("one"), stored(serve_seconds=0))
    assert redis_server.client().exists("celery-task-meta-one")
    assert claims.claim(asked, "two", priority=0).verdict == "claim"


def test_a_run_that_lost_its_job_stores_nothing(claims, redis_server):
    from dspyq.cache.claim import Run

    asked = request()
    claims.claim(asked, "one", priority=0)
    redis_server.client().hset("dspy:v1:job:one", mapping={"fence": 2})
    assert not claims.answer(asked, Run("one", "1"), stored("stale"))
    assert not redis_server.client().exists("celery-task-meta-one")
    assert not claims.release(asked, Run("one", "1"))
    assert claims.answer(asked, Run("one", "2"), stored("good"))


@pytest.mark.parametrize(
    ("is_last", "is_leased", "record", "kept"),
    [
        (True, True, {}, "ENDED"),
        (False, True, {}, "STORED"),  # a link, or a chord, is still to be told
        (True, False, {}, "STORED"),  # its lease ran out: it stands in its queue again
        (True, True, {"child": 1}, "STORED"),  # whoever published it must not publish it again
    ],
)
def test_an_answer_ends_its_job_where_that_has_nothing_else_to_do(
    claims, redis_server, is_last, is_leased, record, kept
):
    from dspyq.cache.claim import Run

    asked, client = request(), redis_server.client()
    claims.claim(asked, "one", priority=0)
    client.hset("dspy:v1:job:one", mapping={"fence": 1, **record})
    client.hset("dspy:v1:calls:one", "call", "reply")
    if is_leased:
        client.zadd("dspy:v1:leases", {"one": 1})
    assert claims.answer(asked, Run("one", "1"), stored()._replace(is_last=is_last)).name == kept
    left = client.exists("dspy:v1:job:one"), client.exists("dspy:v1:calls:one"), client.zcard("dspy:v1:leases")
    assert left == ((0, 0, 0) if kept == "ENDED" else (1, 1, int(is_leased)))


def test_a_run_that_is_repeated_finds_its_own_answer_even_where_a_later_one_has_replaced_it(claims, redis_server):
    from dspyq.cache.claim import Run

    refresh = request(refresh=True)
    for task_id in ("old", "new"):
        claims.claim(refresh, task_id, priority=0)
        claims.answer(refresh, run(task_id), stored(task_id))
    redis_server.client().hset("dspy:v1:job:old", "fence", 7)
    again = claims.look_up(refresh, Run("old", "7", is_repeated=True), is_first_look=False)
    assert (again.verdict, again.task_id, orjson.loads(again.result)["result"]) == ("hit", "old", "old")


def test_what_is_invalidated_while_it_runs_does_not_come_back(claims):
    asked = request()
    claims.claim(asked, "one", priority=0)
    claims.invalidate([asked.input_hash])
    claims.answer(asked, run("one"), stored("outdated"))
    assert claims.claim(asked, "two", priority=0).verdict == "claim"


def test_a_more_urgent_caller_improves_the_turn_of_the_run_it_joins(predict, redis_server):
    late = predict.apply_async(kwargs={"question": "a"}, priority=9)
    soon = predict.apply_async(kwargs={"question": "b"}, priority=5)
    assert waiting(redis_server) == [soon.id, late.id]
    urgent = predict.apply_async(kwargs={"question": "a"}, priority=0)
    assert (urgent.id, urgent.cache_level) == (late.id, "joined")
    assert waiting(redis_server) == [late.id, soon.id]
    predict.apply_async(kwargs={"question": "b"}, priority=9)
    assert len(waiting(redis_server)) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"task_id": "mine"},
        {"countdown": 100},
        {"expires": 100},
        {"link": "signature"},
        {"link_error": "signature"},
        {"retries": 1},
    ],
)
def test_a_call_with_a_fate_of_its_own_shares_no_id(options, predict, redis_server):
    if "signature" in options.values():
        options = dict.fromkeys(options, predict.si(question="next"))
    first = predict.delay(question="q")
    own = predict.apply_async(kwargs={"question": "q"}, **options)
    assert own.id != first.id
    assert own.id == options.get("task_id", own.id)
    assert redis_server.client().exists(f"dspy:v1:job:{own.id}")


def test_members_of_a_group_have_ids_of_their_own(predict, redis_server):
    from celery import group

    first = predict.delay(question="q")
    result = group(predict.s(question="q"), predict.s(question="q"))()
    assert len({first.id, *(member.id for member in result)}) == 3
    assert len(waiting(redis_server)) == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ignore_result": True}, "a prediction is its result"),
        ({"queue": "other"}, "choose it with variant="),
        ({"progam": "qa"}, r"no option 'progam'; did you mean program\?"),
        ({"priority": 10}, "from 0"),
        ({"priority": "high"}, "from 0"),
    ],
)
def test_options_that_a_prediction_cannot_honour_are_refused(options, reason, predict, redis_server):
    with pytest.raises(InvalidOption, match=reason):
        predict.apply_async(kwargs={"question": "q"}, **options)
    assert not waiting(redis_server)


def test_inputs_are_passed_by_name(predict):
    with pytest.raises(InvalidInputs, match="by name"):
        predict.delay("a question")


def sent(commands):
    """The commands of producers: neither what scripts did nor the memory cache's own pings."""
    return [command.name for command in commands if not command.is_in_script and command.name != "PING"]


def test_a_new_question_costs_one_round_trip(predict, redis_server):
    predict.delay(question="warm the connections")
    with redis_server.monitored() as commands:
        job = predict.delay(question="new")
    assert sent(commands) == ["EVALSHA"]
    assert waiting(redis_server)[-1] == job.id


def test_a_hit_sends_no_message_after_a_hit_and_a_new_question_costs_one_round_trip_again(
    predict, claims, redis_server
):
    for question in ("q", "r"):
        claims.claim(request(question), question, priority=0)
        claims.answer(request(question), run(question), stored(of=question))
    predict.delay(question="q")
    with redis_server.monitored() as commands:
        assert predict.delay(question="r").cache_level == "redis"
        predict.delay(question="new")
        predict.delay(question="newer")
    assert sent(commands) == ["EVALSHA"] * 4
    carry_message = [len(command.text) > 1000 for command in commands if command.name == "EVALSHA"]
    assert carry_message == [False, False, True, True]


def test_a_job_that_cannot_be_put_claims_nothing(predict, redis_server):
    predict.delay(question="warm")
    redis_server.client().delete("dspy:v1:queue:qa.control")
    redis_server.client().set("dspy:v1:queue:qa.control", "no queue")
    with pytest.raises(DamagedKey, match="WRONGTYPE"):
        predict.delay(question="new")
    assert not redis_server.client().exists(f"dspy:v1:prediction:{request('new').input_hash}")


def test_a_message_carries_the_trace_of_its_own_call(predict, redis_server):
    from dspyq.tracing.propagation import request_context

    traces = [f"00-{digit * 32}-{digit * 16}-01" for digit in "12"]
    for trace in traces:
        with request_context(traceparent=trace):
            predict.delay(question=trace)
    predict.delay(question="untraced")
    client = redis_server.client()
    messages = [orjson.loads(client.hget(f"dspy:v1:job:{job}", "message")) for job in waiting(redis_server)]
    assert [message["headers"].get("traceparent") for message in messages] == [*traces, None]


def test_a_hit_in_redis_costs_one_round_trip(predict, claims, redis_server):
    asked = request()
    predict.delay(question="warm the connections")
    claims.claim(asked, "one", priority=0)
    claims.answer(asked, run("one"), stored())
    with redis_server.monitored() as commands:
        assert predict.delay(question="q").cache_level == "redis"
    assert sent(commands) == ["EVALSHA"]


def test_statistics_count_each_call_once(predict, claims):
    from dspyq.cache.statistics import variant_statistics

    asked = request()
    first = predict.delay(question="q")
    predict.delay(question="q")
    claims.answer(asked, run(first.id), stored())
    predict.delay(question="q")
    (row,) = variant_statistics()
    assert (row.calls, row.misses, row.joined, row.hits_redis) == (3, 1, 1, 1)
    assert (row.successes, row.failures, row.success_rate) == (3, 0, 1.0)
    assert row.hit_rate == pytest.approx(2 / 3)


def lifetimes(redis_server):
    """The seconds that each question's alias has left; -1 for no end."""
    client = redis_server.client()
    return [client.ttl(alias) for alias in client.scan_iter("dspy:v1:prediction:*", count=1000)]


def test_claims_whose_producer_died_before_it_sent_their_jobs_have_an_end(claims, redis_server):
    requests = [request(f"q{number}") for number in range(300)]
    claims.claim_many(requests, [f"t{number}" for number in range(300)], priority=0)
    left = lifetimes(redis_server)
    assert len(left) == 300
    assert all(0 < seconds <= 60 for seconds in left)


@pytest.mark.parametrize("through", ["delay", "many"])
def test_a_claim_lives_as_long_as_its_job(through, predict, redis_server):
    if through == "delay":
        predict.delay(question="q")
    else:
        predict.many([{"question": "q"}])
    assert lifetimes(redis_server) == [-1]


def test_a_refresh_that_is_never_sent_takes_no_answer_s_time(claims, redis_server):
    claims.claim(request(), "first", priority=0)
    claims.answer(request(), run("first"), stored(serve_seconds=1000))
    claims.claim(request(refresh=True), "second", priority=0)
    (left,) = lifetimes(redis_server)
    assert 60 < left <= 1000


def test_purging_a_queue_frees_the_questions_of_its_jobs(predict, redis_server):
    from dspyq.delivery.leases import process_leases

    first = predict.delay(question="q")
    assert process_leases().records.purge("qa.control") == 1
    assert lifetimes(redis_server) == []
    assert predict.delay(question="q").id != first.id


@pytest.mark.parametrize("way", ["take", "purge"])
def test_a_job_of_0_1_is_known_by_its_message_where_its_record_names_no_question(predict, redis_server, way):
    from dspyq.delivery.leases import process_leases

    job = predict.delay(question="of 0.1")
    assert redis_server.client().hdel(f"dspy:v1:job:{job.id}", "input_hash") == 1
    records = process_leases().records
    if way == "take":
        assert records.take("qa.control", 60).is_claimed
    else:
        assert records.purge("qa.control") == 1
        assert not redis_server.keys("dspy:v1:prediction:*")


def test_a_claim_whose_job_ended_has_an_end_where_its_process_died_before_it_released_it(predict, redis_server):
    from dspyq.delivery.leases import process_leases

    records = process_leases().records
    records.end([predict.delay(question="revoked").id])
    predict.delay(question="rejected")
    assert records.finish(records.take("qa.control", 60).tag)
    predict.delay(question="set aside")
    assert records.set_aside(records.take("qa.control", 60).tag, "a test")
    redis_server.client().delete("dspy:v1:untold")
    records.sweep(3, dead=(0, 60.0))
    left = lifetimes(redis_server)
    assert len(left) == 3
    assert all(0 < seconds <= 60 for seconds in left)
    predict.delay(question="revoked")
    assert min(lifetimes(redis_server)) == -1  # asked again, its claim lasts as long as its job


def test_a_refresh_that_is_revoked_leaves_the_old_answer_its_time(claims, predict, redis_server):
    from dspyq.delivery.leases import process_leases

    claims.claim(request(), "first", priority=0)
    claims.answer(request(), run("first"), stored(serve_seconds=1000))
    second = predict.apply_async(kwargs={"question": "q"}, refresh=True).id
    process_leases().records.end([second])
    (left,) = lifetimes(redis_server)
    assert 60 < left <= 1000
