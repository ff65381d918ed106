"""An answer belongs to its question: every reader compares, also where a task id was used for several questions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from celery import signature

from dspyq.batch import dispatcher, run
from dspyq.batch.options import BatchOptions
from dspyq.batch.quotes.cache_probe import peek
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import FreshAnswer, process_cache
from dspyq.client.spread_bulk import process_bulk
from dspyq.delivery.leases import process_leases
from dspyq.errors import AnswerLost, InvalidOption
from dspyq.prediction.prediction import Metadata, to_json
from dspyq.prediction.request import build_request
from dspyq.store.clients import jobs_client
from dspyq.store.keys import result_key
from tests.support.processes import eventually

ID = "order-17"


@pytest.fixture(autouse=True)
def _configured(configured):
    del configured


def request(question, **options):
    return build_request({"question": question}, **options)


def payload(asked, answer=None):
    metadata = Metadata("qa", "control", "m", asked.input_hash, "r", 1.0)
    result = to_json({"answer": answer or asked.inputs["question"]}, metadata)
    return orjson.dumps({"status": "SUCCESS", "result": result, "traceback": None, "children": []})


def answer(question, task_id=ID):
    """Answer a question under an id, as a worker does."""
    asked = request(question)
    claims = process_claims()
    claims.claim(asked, task_id, priority=0)
    claims.answer(asked, Run(task_id), Stored(payload(asked), 60, 60, {}))
    return asked


def hits(redis_server):
    return int(redis_server.client().hget("dspy:v1:statistics:qa.control", "hits_redis") or 0)


READERS = {
    "delay": lambda predict, question: predict.delay(question=question).cache_level,
    "many": lambda predict, question: predict.many([{"question": question}])[0].cache_level,
    "peek": lambda _, question: process_bulk().peek([request(question)])[0],
    "ask": lambda _, question: process_bulk().ask([request(question)], ["new"], priority=0)[0].verdict == "hit",
    "worker": lambda _, question: (
        process_claims().look_up(request(question), Run("w"), is_first_look=True).verdict == "hit"
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_takes_the_answer_of_another_question(reader, predict, redis_server):
    answer("a")
    answer("b")  # under the same id: its result replaces the one of a
    before = hits(redis_server)
    assert not READERS[reader](predict, "a")
    assert hits(redis_server) == before
    assert READERS[reader](predict, "b")


@pytest.mark.parametrize("stored", [b'{"status":"SUCCESS","result":5,"children":[]}', b"garbage", b""])
def test_what_no_prediction_is_answers_nothing(stored, predict, redis_server):
    answer("a")
    redis_server.client().set(f"celery-task-meta-{ID}", stored)
    assert predict.delay(question="a").cache_level is None


def test_a_repeated_run_does_not_take_the_answer_that_is_under_its_id_for_its_own(redis_server):
    del redis_server
    answer("b")
    claim = process_claims().look_up(request("a"), Run(ID, is_repeated=True), is_first_look=False)
    assert claim.verdict == "claim"


def test_a_handle_whose_id_has_another_questions_answer_raises(predict, redis_server):
    handle = predict.delay(question="a")
    redis_server.client().set(f"celery-task-meta-{handle.id}", payload(request("b")))
    with pytest.raises(AnswerLost, match="another question's"):
        handle.get(timeout=30)
    assert process_cache().get(request("a").input_hash, "qa.control") is None


def test_memory_keeps_no_answer_of_another_question(redis_server):
    del redis_server
    asked, cache = request("a"), process_cache()
    cache.put(asked.input_hash, FreshAnswer(ID, payload(request("b")), seconds_left=9, read_at=1e12))
    assert cache.get(asked.input_hash, "qa.control") is None


@pytest.mark.parametrize("state", ["waiting", "answered", "failed"])
def test_a_task_id_of_another_question_is_refused(state, predict, redis_server):
    if state == "waiting":
        predict.apply_async(kwargs={"question": "a"}, task_id=ID)
    elif state == "answered":
        answer("a")
    else:
        failed = {"status": "FAILURE", "result": {}, "input_hash": request("a").input_hash}
        redis_server.client().set(f"celery-task-meta-{ID}", orjson.dumps(failed))
    jobs = redis_server.keys("dspy:v1:job:*")
    with pytest.raises(InvalidOption, match="task_id is another question's"):
        predict.apply_async(kwargs={"question": "b"}, task_id=ID)
    assert redis_server.keys("dspy:v1:job:*") == jobs
    assert predict.apply_async(kwargs={"question": "a"}, task_id=ID).id == ID  # the same question may


def test_a_task_id_of_another_question_is_refused_among_calls_that_are_sent_together(predict, redis_server):
    predict.apply_async(kwargs={"question": "a"}, task_id=ID)

    def ask_together():
        with predict.app.producer_or_acquire() as producer, producer.batch(10):
            predict.apply_async(kwargs={"question": "b"}, task_id=ID, producer=producer)
            predict.apply_async(kwargs={"question": "c"}, task_id="order-18", producer=producer)

    with pytest.raises(InvalidOption, match="task_id is another question's"):
        ask_together()
    assert sorted(redis_server.keys("dspy:v1:job:*")) == [f"dspy:v1:job:{ID}", "dspy:v1:job:order-18"]


def test_a_batch_that_collects_another_questions_answer_sends_its_own_again(monkeypatch, tmp_path):
    monkeypatch.setattr(dispatcher, "LOOK_FOR_JOB_SECONDS", 0.0)
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"question": "a"}\n')
    records = process_leases().records

    def take():
        deliveries = []
        eventually(lambda: deliveries.append(records.take("qa.control", 30)) or deliveries[-1])
        return deliveries[-1]

    def work():
        """Store the answer of another question under the first job's id, end that job, and answer the next one."""
        first = take()
        jobs_client().set(result_key(first.id), payload(request("b")))
        assert records.finish(first.tag)
        second = take()
        assert process_claims().answer(request("a"), Run(second.id), Stored(payload(request("a")), 60, 60, {}))

    with ThreadPoolExecutor(1) as worker:
        working = worker.submit(work)
        options = BatchOptions(input=rows, output=out, program="qa")
        outcome = run.run_batch(options, report=lambda _: None, stop=threading.Event())
        working.result(60)
    assert (outcome.ok, outcome.rows) == (1, 1)
    assert orjson.loads(out.read_text())["outputs"] == {"answer": "a"}


def test_one_id_for_many_questions_at_once_gets_no_answer_of_another(redis_server):
    """Eight threads answer questions under two ids, and eight others read: what they read is what they asked."""
    del redis_server
    questions = [f"q{number}" for number in range(6)]
    barrier, wrong = threading.Barrier(8), []

    def write(number):
        barrier.wait()
        for turn in range(40):
            answer(questions[(number + turn) % 6], f"id{turn % 2}")

    def read(number):
        barrier.wait()
        for turn in range(60):
            asked = request(questions[(number + turn) % 6])
            single = process_claims().claim(asked, f"{number}.{turn}", priority=0)
            for claim in [single, *process_bulk().peek([asked])]:
                if claim is not None and claim.verdict == "hit":
                    outputs = orjson.loads(claim.result)["result"]["outputs"]
                    wrong.extend([asked.inputs] if outputs["answer"] != asked.inputs["question"] else [])

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(job, number) for number in range(4) for job in (write, read)]
        for each in running:
            each.result()
    assert not wrong


def test_answers_of_another_redis_are_compared_too(redis_server, fresh_redis_server, settings_file, configure):
    from dspyq import predict
    from dspyq.cache.claim import Run, Stored
    from dspyq.cache.claims import process_claims
    from dspyq.client.spread_bulk import process_bulk
    from dspyq.errors import InvalidOption
    from dspyq.prediction.prediction import Metadata, to_json
    from dspyq.prediction.request import build_request
    from dspyq.store.clients import answers_client

    document = {"redis_url": None, "broker_url": redis_server.url, "result_url": fresh_redis_server().url}
    configure(settings_file(document))
    for question in "ab":
        asked = build_request({"question": question})
        metadata = Metadata("qa", "control", "m", asked.input_hash, "r", 1.0)
        meta = {"status": "SUCCESS", "result": to_json({"answer": question}, metadata), "children": []}
        process_claims().claim(asked, "one-id", priority=0)
        process_claims().answer(asked, Run("one-id"), Stored(orjson.dumps(meta), 60, 60, {}))
    looked = process_bulk().peek([build_request({"question": question}) for question in "ab"])
    levels = [predict.delay(question=question).cache_level for question in "ab"]
    with pytest.raises(InvalidOption, match=r"^task_id"):
        predict.apply_async(kwargs={"question": "c"}, task_id="one-id")
    assert [claim is not None for claim in looked] == [False, True]
    assert levels == [None, "redis"]
    assert answers_client().dbsize() == 1


def test_a_signature_reads_the_names_that_its_methods_have(predict):
    assert predict.s(self="a", args="b", task="c").kwargs == {"self": "a", "args": "b", "task": "c"}
    assert signature(predict.si(self="a")).immutable


@pytest.mark.parametrize("task_id", ["x" * 257, "", "a\nb", 7])
def test_a_task_id_that_is_no_short_text_is_refused(task_id, predict, redis_server):
    with pytest.raises(InvalidOption, match="task_id is a text"):
        predict.apply_async(kwargs={"question": "a"}, task_id=task_id)
    assert not redis_server.keys("dspy:v1:job:*")


def test_a_quote_counts_no_answer_of_another_question_as_cached(predict, redis_server):
    del predict, redis_server
    answer("a")
    assert [seen.state for seen in peek([request("a")])] == ["answered"]
    answer("b")  # under the same id
    assert [seen.state for seen in peek([request("a"), request("b")])] == ["new", "answered"]
