"""Many questions in one request, against a real server and a real worker."""

from __future__ import annotations

import threading

import pytest

from tests.support.processes import eventually

pytestmark = pytest.mark.usefixtures("shared_worker")
PLACE = "/v1/programs/qa/predictions:batch"


def rows_of(*questions):
    return [{"question": question} for question in questions]


def ask_many(server, *questions, headers=None, prefer=None, **members):
    stated = {**({"Prefer": prefer} if prefer else {}), **(headers or {})}
    return server.api.post(PLACE, json={"rows": rows_of(*questions), **members}, headers=stated)


def answers(reply):
    assert reply.status_code == 200, reply.text
    return [each["outputs"] and each["outputs"]["answer"] for each in reply.json()["predictions"]]


def test_rows_are_answered_in_their_order_and_alike_ones_by_one_model_call(shared_door, endpoint):
    known = shared_door.ask("row 3").json()
    questions = [f"row {number % 40}" for number in range(120)]
    reply = ask_many(shared_door, *questions)
    assert answers(reply) == [f"echo:{question}" for question in questions]
    found = reply.json()["predictions"]
    assert len({each["id"] for each in found}) == 120
    assert found[3]["metadata"]["cached"] is True
    assert found[3]["id"] != known["id"]
    assert endpoint.calls() == 40
    assert shared_door.look(found[7]["id"])["outputs"] == {"answer": "echo:row 7"}


def test_rows_that_are_not_there_in_time_are_queued_and_come_later(shared_door, endpoint):
    endpoint.hold()
    reply = ask_many(shared_door, "rather now", "later", prefer="respond-async")
    assert reply.headers["preference-applied"] == "respond-async"
    assert [each["status"] for each in reply.json()["predictions"]] == ["queued", "queued"]
    endpoint.release()
    later = [shared_door.look(each["id"], wait="30") for each in reply.json()["predictions"]]
    assert [each["outputs"]["answer"] for each in later] == ["echo:rather now", "echo:later"]


def test_answers_that_came_in_time_are_there_beside_those_that_did_not(shared_door, endpoint):
    shared_door.ask("there before")
    endpoint.hold()
    reply = ask_many(shared_door, "not there", "there before", prefer="wait=1")
    assert answers(reply) == [None, "echo:there before"]
    assert [each["status"] for each in reply.json()["predictions"]] == ["queued", "succeeded"]
    endpoint.release()


def test_a_row_that_fails_is_a_failed_prediction_beside_the_others(shared_door, endpoint):
    endpoint.script(containing="bad", status=400)
    found = ask_many(shared_door, "bad", "good").json()["predictions"]
    assert [each["status"] for each in found] == ["failed", "succeeded"]
    assert found[0]["error"]["status"] == 500


def test_faults_of_rows_are_named_by_their_places_and_nothing_is_asked(shared_door, endpoint):
    rows = [*rows_of("good"), {"question": 3}, "no object", {"question": "x", "more": 1}]
    reply = shared_door.api.post(PLACE, json={"rows": rows})
    assert reply.status_code == 422
    assert [each["pointer"] for each in reply.json()["errors"]] == ["/rows/1/question", "/rows/2", "/rows/3/more"]
    assert endpoint.calls() == 0


@pytest.mark.parametrize("rows", [None, [], {"question": "x"}, [{"question": "x"}] * 1001])
def test_rows_are_a_list_of_as_many_as_the_settings_allow(shared_door, rows):
    reply = shared_door.api.post(PLACE, json={"rows": rows})
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "/rows")


def test_a_repeated_request_with_an_idempotency_key_is_the_same_predictions(shared_door, endpoint):
    headers = {"Idempotency-Key": "rows-1"}
    first = ask_many(shared_door, "key one", "key two", refresh=True, headers=headers)
    again = ask_many(shared_door, "key one", "key two", refresh=True, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert [each["id"] for each in again.json()["predictions"]] == [each["id"] for each in first.json()["predictions"]]
    assert answers(again) == ["echo:key one", "echo:key two"]
    assert endpoint.calls() == 2
    assert ask_many(shared_door, "key other", headers=headers).status_code == 422


def test_rows_of_a_server_that_died_before_it_noted_them_are_not_computed_again(shared_door, endpoint, client):
    headers = {"Idempotency-Key": "rows-2"}
    ask_many(shared_door, "died one", "died two", refresh=True, headers=headers)
    (known,) = client.keys("dspy:v1:serve-idempotency:*")
    client.hdel(known, "prediction")
    assert answers(ask_many(shared_door, "died one", "died two", refresh=True, headers=headers)) == [
        "echo:died one",
        "echo:died two",
    ]
    assert endpoint.calls() == 2


def test_a_thousand_rows_take_few_round_trips(shared_door, client):
    questions = [f"of a thousand {number}" for number in range(1000)]
    before = client.info("commandstats")
    reply = ask_many(shared_door, *questions, prefer="respond-async")
    after = client.info("commandstats")
    assert len(reply.json()["predictions"]) == 1000
    puts = sum(after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in ("cmdstat_evalsha",))
    # 10 scripts of 100 rows each; the rest are the worker's turns, which begin meanwhile.
    assert puts < 1000


def test_rows_are_withdrawn_when_their_caller_hangs_up_where_the_settings_want_that(
    door, settings_file, endpoint, client
):
    server = door(settings_file({"serve": {"on_hangup": "cancel"}}))
    endpoint.hold()
    with pytest.raises(Exception, match="timed out"):
        server.api.post(PLACE, json={"rows": rows_of("withdrawn one", "withdrawn two")}, timeout=1)
    eventually(lambda: client.zcard("dspy:v1:leases") == 0)
    endpoint.release()


def test_requests_for_many_and_for_one_wait_at_once(shared_door, endpoint):
    endpoint.hold()
    replies = []
    asking = threading.Thread(target=lambda: replies.append(ask_many(shared_door, "shared", "alone")))
    asking.start()
    endpoint.wait_for_calls(2)
    single = shared_door.ask("shared", prefer="respond-async").json()
    endpoint.release()
    asking.join()
    assert answers(replies[0]) == ["echo:shared", "echo:alone"]
    assert shared_door.look(single["id"], wait="30")["outputs"] == {"answer": "echo:shared"}
