"""A key of another type, which another program wrote, costs its own question alone."""

import json

import pytest

from dspyq.errors import DamagedKey


def hash_of(question):
    from dspyq.prediction.request import build_request

    return build_request({"question": question}).input_hash


@pytest.fixture
def damaged(configured, redis_server):
    """The key of a question, in which another program keeps a text."""
    del configured
    key = f"dspy:v1:prediction:{hash_of('damaged')}"
    redis_server.client().set(key, "a stranger's text")
    return key


def test_a_call_of_a_damaged_question_names_the_key_and_no_content(predict, damaged):
    with pytest.raises(DamagedKey) as raised:
        predict.delay(question="damaged")
    text = str(raised.value)
    assert f"WRONGTYPE {damaged} is a string" in text
    assert "key_prefix" in text
    assert "stranger" not in text
    assert "\n" not in text
    assert not raised.value.retryable


@pytest.mark.usefixtures("shared_worker")
def test_one_damaged_question_of_many_fails_alone(predict, damaged):
    handles = predict.many([{"question": question} for question in ("a", "damaged", "b")])
    assert [handles[index].get(timeout=20).answer for index in (0, 2)] == ["echo:a", "echo:b"]
    with pytest.raises(DamagedKey, match=f"WRONGTYPE {damaged} is a string"):
        handles[1].get(timeout=20)
    assert not handles[1].cancel()


def test_a_look_in_bulk_passes_over_a_damaged_question(predict, damaged):
    from dspyq.client.spread_bulk import process_bulk
    from dspyq.prediction.request import build_request

    del predict
    requests = [build_request({"question": question}) for question in ("a", "damaged", "b")]
    assert process_bulk().peek(requests) == [None] * 3
    claims = process_bulk().ask(requests, ["id-1", "id-2", "id-3"], priority=9)
    assert [(claim.verdict, claim.task_id) for claim in claims] == [
        ("claim", "id-1"),
        ("damaged", "id-2"),
        ("claim", "id-3"),
    ]
    assert damaged.encode() in claims[1].result


def test_a_queue_of_another_type_fails_all_that_is_sent_there(predict, redis_server):
    redis_server.client().set("dspy:v1:queue:qa.control", "no queue")
    with pytest.raises(DamagedKey, match="WRONGTYPE"):
        predict.many([{"question": "a"}, {"question": "b"}])


@pytest.mark.usefixtures("shared_worker")
def test_an_answer_of_another_type_is_computed_anew(predict, redis_server):
    from dspyq.cache.memory import process_cache

    job = predict.delay(question="a")
    assert job.get(timeout=20).answer == "echo:a"
    client = redis_server.client()
    (key,) = client.keys(f"*celery-task-meta-{job.id}")
    client.delete(key)
    client.rpush(key, "a stranger's list")
    process_cache().invalidate(hash_of("a"))
    again = predict.delay(question="a")
    assert again.id != job.id
    assert again.get(timeout=20).answer == "echo:a"


def test_a_damaged_question_of_a_batch_is_its_rows_error(shared_worker, dspyq, damaged, tmp_path):
    del shared_worker
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(f'{{"question": "{question}"}}\n' for question in ("a", "damaged", "b")))
    dspyq("batch", "run", str(rows), "--program", "qa", "--output", str(out), "--dry-run")
    dspyq("batch", "run", str(rows), "--program", "qa", "--output", str(out), "--ordered", ok=False)
    first, failed, last = map(json.loads, out.read_text().splitlines())
    assert [first["status"], last["status"]] == ["ok", "ok"]
    assert failed["error"]["type"] == "DamagedKey"
    assert damaged in failed["error"]["message"]


def test_statistics_of_the_cache_pass_over_a_damaged_key(dspyq, damaged):
    assert damaged not in dspyq("cache", "stats").stdout
