"""A server added to ``redis_urls`` or left out: nothing is lost or paid twice, and old processes are refused."""

import asyncio
import itertools
import json

import pytest

from dspyq import predict
from dspyq.cache import admin as cache
from dspyq.cli import spine_commands
from dspyq.client.spread_bulk import process_bulk
from dspyq.delivery.spine_holdings import describe_moves, read_spines
from dspyq.errors import RedisUnavailable
from dspyq.prediction.request import build_request
from dspyq.store.spines import process_spines
from tests.support.processes import wait_until
from tests.support.several_servers import lists_of

pytestmark = pytest.mark.journey


def questions_of(text, count, *, is_moved):
    """Return questions whose bucket has moved, or not; this process must have the new list."""
    candidates = (f"{text} ({each})" for each in itertools.count())
    spines = process_spines()
    wanted = (one for one in candidates if (spines.former(hash_of(one)) is not None) == is_moved)
    return list(itertools.islice(wanted, count))


def hash_of(question):
    return build_request({"question": question}).input_hash


def jobs(server):
    return len(server.keys("dspy:v1:job:*"))


def rows(questions):
    return [{"question": each} for each in questions]


def test_a_run_at_the_former_owner_is_joined_awaited_and_found_by_its_id(
    configure_spines, spine_worker, endpoint, two, three, spines
):
    configure_spines(**three)
    one, many, unmoved = (questions_of(name, 3, is_moved=name != "unmoved") for name in ("one", "many", "unmoved"))
    configure_spines(**two)
    before = predict.many(rows([*one, *many, *unmoved]))
    configure_spines(**three)
    joined = [predict.delay(question=each) for each in one] + predict.many(rows([*many, *unmoved]))
    assert [each.id for each in joined] == [each.id for each in before]
    assert jobs(spines.servers[2]) == 0
    spine_worker(env=three)
    assert [each.get(timeout=60).answer for each in joined] == [f"echo:{each}" for each in (*one, *many, *unmoved)]
    assert predict.AsyncResult(before[0].id).get(timeout=30).answer == f"echo:{one[0]}"

    async def by_id():
        return await predict.AsyncResult(before[1].id)

    assert asyncio.run(by_id()).answer == f"echo:{one[1]}"
    assert None not in process_bulk().collect([each.id for each in before])
    assert all(process_bulk().peek([build_request({"question": each}) for each in (*one, *unmoved)]))
    again = [predict.delay(question=each).get(timeout=30) for each in (*one, *many)]
    assert all(each.metadata.cached for each in again)
    assert endpoint.calls() == 9


def test_an_id_alone_is_awaited_where_its_run_is(configure_spines, spine_worker, two, three):
    configure_spines(**three)
    (question,) = questions_of("by its id", 1, is_moved=True)
    configure_spines(**two)
    task_id = predict.delay(question=question).id
    configure_spines(**three)
    handle = predict.AsyncResult(task_id)
    assert handle.state == "PENDING"
    spine_worker(env=three)
    assert handle.get(timeout=60).answer == f"echo:{question}"


def test_a_joined_run_at_the_former_owner_is_cancelled_there(configure_spines, two, three, spines):
    configure_spines(**three)
    questions = questions_of("cancelled", 2, is_moved=True)
    configure_spines(**two)
    first, second = predict.many(rows(questions))
    configure_spines(**three)
    one, other = (predict.delay(question=each) for each in questions)
    assert [one.id, other.id] == [first.id, second.id]
    assert not one.cancel()
    assert one.cancel()
    withdrawn = [(build_request({"question": questions[1]}), other.id)]
    assert process_bulk().withdraw(withdrawn * 2) == 1
    assert sum(map(jobs, spines.servers)) == 0


def test_a_process_with_the_old_list_is_refused_what_has_moved_and_no_more(configure_spines, two, three, spines):
    configure_spines(**three)
    moved, unmoved = (questions_of("refused", 4, is_moved=each) for each in (True, False))
    asked = [predict.delay(question=moved[0]), *predict.many(rows(moved[1:]))]
    assert jobs(spines.servers[2]) == len({each.id for each in asked}) == 4
    configure_spines(**two)
    for ask in (lambda: predict.delay(question=moved[0]), lambda: predict.many(rows(moved))):
        with pytest.raises(RedisUnavailable, match=r"old redis_urls.*restart this process") as refused:
            ask()
        assert refused.value.retryable
    predict.many(rows(unmoved))
    assert [jobs(server) for server in spines.servers][2] == 4
    assert sum(map(jobs, spines.servers)) == 8


def test_a_drained_server_ends_its_jobs_gets_no_more_and_can_be_switched_off(
    configure_spines, spine_worker, endpoint, spines
):
    drained = lists_of(*spines.servers[:2], former=spines.servers)
    configure_spines(**drained)
    moved = questions_of("drained", 12, is_moved=True)
    configure_spines()
    before = predict.many(rows(moved[:8]))
    assert jobs(spines.servers[2]) == 8
    configure_spines(**drained)
    after = predict.many(rows(moved))
    assert jobs(spines.servers[2]) == 8
    assert [(each.is_draining, each.is_empty) for each in read_spines()][2] == (True, False)
    spine_worker(env=drained)
    assert [each.get(timeout=60).answer for each in after] == [f"echo:{each}" for each in moved]
    assert [each.id for each in after[:8]] == [each.id for each in before]
    wait_until(lambda: read_spines()[2].is_empty, 30, "the drained server to be empty")
    assert endpoint.calls() == len(moved)
    spines.servers[2].process.kill()
    configure_spines(**lists_of(*spines.servers[:2]))
    assert all(each.get(timeout=30).metadata.cached for each in predict.many(rows(moved[8:])))


def test_an_answer_at_the_former_owner_is_invalidated(configure_spines, spine_worker, endpoint, two, three):
    configure_spines(**three)
    by_command, by_handle, by_backend = questions_of("invalidated", 3, is_moved=True)
    configure_spines(**two)
    before = predict.many(rows([by_command, by_handle, by_backend]))
    spine_worker(env=three)
    assert [each.get(timeout=60).metadata.cached for each in before] == [False] * 3
    configure_spines(**three)
    assert cache.invalidate({"question": by_command}) == 1
    handle = predict.delay(question=by_handle)
    assert handle.get(timeout=30).metadata.cached
    handle.forget()
    predict.AsyncResult(before[2].id).forget()
    again = [predict.delay(question=each).get(timeout=60) for each in (by_command, by_handle, by_backend)]
    assert not any(each.metadata.cached for each in again)
    assert endpoint.calls() == 6


def test_a_server_that_owns_a_bucket_again_takes_its_questions(configure_spines, two, three, spines):
    configure_spines(**three)
    first, second, third = questions_of("back", 3, is_moved=True)
    predict.delay(question=first)
    configure_spines(**lists_of(*spines.servers[:2], former=spines.servers))
    predict.delay(question=second)
    configure_spines(**two)
    predict.delay(question=third)
    assert jobs(spines.servers[2]) == 1
    assert sum(map(jobs, spines.servers)) == 3


def ask_all(questions, rounds):
    """Ask like a program that retries what can be retried; return the answers, hits and refusals."""
    import random

    from dspyq import predict
    from dspyq.errors import RedisUnavailable

    found, hits, refused = {}, 0, 0
    for _ in range(rounds):
        for question in random.sample(questions, len(questions)):
            try:
                prediction = predict.delay(question=question).get(timeout=60)
            except RedisUnavailable as error:
                refused += "old redis_urls" in str(error)
                continue
            found[question] = prediction.answer
            hits += bool(prediction.metadata.cached)
    return {"found": found, "hits": hits, "refused": refused}


def test_a_server_is_added_under_load_and_no_question_is_paid_twice(
    configure_spines, spine_worker, spine_producer, endpoint, two, three
):
    configure_spines(**three)
    known = [f"known {each}" for each in range(40)]
    fresh = [f"fresh {each}" for each in range(40)]
    for each in (two, three):
        spine_worker(env=each)
    warmed = spine_producer(ask_all, env=two, questions=known, rounds=1).result(90)
    assert len(warmed["found"]) == len(known)
    load = [spine_producer(ask_all, env=each, questions=[*known, *fresh], rounds=3) for each in (two, three, three)]
    old, *new = [each.result(120) for each in load]
    expected = {each: f"echo:{each}" for each in (*known, *fresh)}
    assert all(each["found"] == expected and not each["refused"] for each in new)
    assert old["found"].items() <= expected.items()
    # A process begins or joins each fresh question once at most; the known ones are hits, wherever they are.
    assert all(each["hits"] >= 3 * len(expected) - len(fresh) for each in new)
    assert old["hits"] + old["refused"] >= 3 * len(expected) - len(fresh)
    assert endpoint.calls() == len(expected)
    again = [predict.delay(question=each).get(timeout=30).metadata.cached for each in expected]
    assert all(again)


def test_the_command_shows_shares_and_what_a_drained_server_holds(configure_spines, spines, capsys):
    configure_spines()
    predict.many(rows([f"shown {each}" for each in range(30)]))
    configure_spines(**lists_of(*spines.servers[:2], former=spines.servers))
    spine_commands.spines(as_json=True)
    first, second, drained = json.loads(capsys.readouterr().out)
    assert first["share"] + second["share"] == 1
    assert first["share_moved_here"] + second["share_moved_here"] == drained["share_moved_away"] > 0
    assert first["waiting"] + second["waiting"] + drained["waiting"] == 30
    assert (drained["share"], drained["is_draining"], drained["is_empty"]) == (0, True, False)
    spine_commands.spines()
    assert "draining" in capsys.readouterr().out
    *moves, last = describe_moves()
    assert all("of the questions move to" in each for each in moves)
    assert last == f"{drained['server']} is drained; `dspyq spines` shows what it holds"
