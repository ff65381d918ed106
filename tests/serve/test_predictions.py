"""Predictions over HTTP, against a real server and a real worker."""

from __future__ import annotations

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import eventually

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_a_question_is_answered_by_curl(shared_door):
    url = f"{shared_door.url}/v1/programs/qa/predictions"
    command = [shutil.which("curl"), "-sS", "--json", '{"inputs": {"question": "by curl"}}', url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"answer":"echo:by curl"' in done.stdout


def test_an_answer_names_its_origin_and_its_cost(shared_door):
    reply = shared_door.ask("with its origin")
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["status"], found["program"], found["variant"]) == ("succeeded", "qa", "control")
    assert found["outputs"] == {"answer": "echo:with its origin"}
    assert found["metadata"]["cached"] is False
    assert found["metadata"]["cost_usd"] > 0
    assert found["metadata"]["request_id"] == reply.headers["x-request-id"]
    looked_at = shared_door.look(found["id"])
    assert looked_at["outputs"] == found["outputs"]
    assert looked_at["created_at"] == found["created_at"]


def test_an_answer_from_memory_costs_nothing_and_is_another_prediction(shared_door):
    first = shared_door.ask("twice").json()
    again = shared_door.ask("twice").json()
    assert again["metadata"]["cache_level"] == "memory"
    assert again["metadata"]["cost_usd"] == 0
    assert again["outputs"] == first["outputs"]
    assert again["id"] != first["id"]
    assert shared_door.look(again["id"])["metadata"] == again["metadata"] | {"request_id": ""}


def test_a_caller_that_will_not_wait_gets_the_place_of_the_answer(shared_door, endpoint):
    endpoint.hold()
    reply = shared_door.ask("held", prefer="respond-async")
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "respond-async"
    assert reply.headers["location"] == reply.json()["urls"]["self"]
    assert int(reply.headers["retry-after"]) >= 1
    place = reply.headers["location"]
    endpoint.wait_for_calls(1)
    assert shared_door.api.get(place).json()["status"] == "running"
    endpoint.release()
    done = shared_door.api.get(place, params={"wait": "30"}).json()
    assert (done["status"], done["outputs"]) == ("succeeded", {"answer": "echo:held"})


def test_a_caller_waits_as_long_as_it_prefers(shared_door, endpoint):
    endpoint.hold()
    began = time.monotonic()
    reply = shared_door.ask("for a second", prefer="wait=1")
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "wait=1"
    assert reply.json()["status"] in {"queued", "running"}
    assert 1 <= time.monotonic() - began < 20
    endpoint.release()


def test_many_callers_of_one_question_are_one_model_call(shared_door, endpoint):
    with ThreadPoolExecutor(20) as callers:
        replies = list(callers.map(lambda _: shared_door.ask("together"), range(20)))
    assert {reply.json()["outputs"]["answer"] for reply in replies} == {"echo:together"}
    assert len({reply.json()["id"] for reply in replies}) == 20
    assert endpoint.calls() == 1


def test_a_cancelled_prediction_is_cancelled_for_its_caller_alone(shared_door, endpoint):
    """Twice by one caller of two: the other gets its answer."""
    endpoint.hold()
    one = shared_door.ask("of two callers", prefer="respond-async").json()
    other = shared_door.ask("of two callers", prefer="respond-async").json()
    for _ in range(2):
        reply = shared_door.api.post(one["urls"]["cancel"])
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    assert shared_door.look(one["id"])["status"] == "cancelled"
    endpoint.release()
    assert shared_door.look(other["id"], wait="30")["outputs"] == {"answer": "echo:of two callers"}
    assert shared_door.look(one["id"])["status"] == "cancelled"


def test_a_job_ends_with_its_last_caller(shared_door, endpoint, client):
    endpoint.hold()
    asked = [shared_door.ask("of nobody", prefer="respond-async").json() for _ in range(2)]
    endpoint.wait_for_calls(1)
    for each in asked:
        shared_door.api.post(each["urls"]["cancel"])
    assert client.zcard("dspy:v1:leases") == 0
    assert [shared_door.look(each["id"])["status"] for each in asked] == ["cancelled", "cancelled"]
    endpoint.release()
    answered = shared_door.ask("of nobody").json()
    assert answered["outputs"] == {"answer": "echo:of nobody"}


def test_a_finished_prediction_cannot_be_cancelled(shared_door):
    found = shared_door.ask("already there").json()
    reply = shared_door.api.post(found["urls"]["cancel"])
    assert (reply.status_code, reply.json()["status"]) == (200, "succeeded")


def test_a_deleted_prediction_is_gone_for_its_caller_alone(shared_door):
    one = shared_door.ask("to be forgotten").json()
    other = shared_door.ask("to be forgotten").json()
    assert shared_door.api.delete(one["urls"]["self"]).status_code == 204
    for method in ("GET", "DELETE"):
        assert shared_door.api.request(method, one["urls"]["self"]).status_code == 404
    assert shared_door.look(other["id"])["status"] == "succeeded"


def test_an_unchanged_answer_is_not_sent_again(shared_door):
    place = shared_door.ask("unchanged").json()["urls"]["self"]
    tag = shared_door.api.get(place).headers["etag"]
    reply = shared_door.api.get(place, headers={"If-None-Match": tag})
    assert (reply.status_code, reply.content) == (304, b"")


def test_a_failed_prediction_is_a_problem_where_its_caller_waits_and_a_resource_where_it_looks(shared_door, endpoint):
    endpoint.script(containing="patient zero", status=400)
    reply = shared_door.ask("of patient zero")
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status_code, problem["type"].rpartition("/")[2]) == (500, "prediction-failed")
    assert "zero" not in reply.text
    found = shared_door.look(problem["prediction"])
    assert (found["status"], found["error"]["status"]) == ("failed", 500)


def test_an_answer_that_is_no_longer_kept_is_410(shared_door, client):
    found = shared_door.ask("to be evicted").json()
    client.flushall()
    reply = shared_door.api.get(found["urls"]["self"])
    assert (reply.status_code, reply.json()["type"].rpartition("/")[2]) == (410, "answer-lost")


@pytest.mark.parametrize("public_id", ["pred_x", "x", "pred_" + "A" * 64])
def test_an_id_that_was_never_given_out_is_404(shared_door, public_id):
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        reply = shared_door.api.request(method, f"/v1/predictions/{public_id}{path}")
        assert (reply.status_code, reply.json()["title"]) == (404, "There is nothing here")


class TestIdempotencyKey:
    def test_the_same_request_is_the_same_prediction_even_where_it_refreshes(self, shared_door, endpoint):
        headers = {"Idempotency-Key": "one-1"}
        first = shared_door.ask("refreshed", refresh=True, headers=headers)
        again = shared_door.ask("refreshed", refresh=True, headers=headers)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json()["id"] == first.json()["id"]
        assert endpoint.calls() == 1

    def test_at_once_they_are_one_prediction(self, shared_door, endpoint):
        def ask(_):
            return shared_door.ask("at once", refresh=True, headers={"Idempotency-Key": "one-2"}).json()["outputs"]

        with ThreadPoolExecutor(10) as callers:
            outputs = list(callers.map(ask, range(10)))
        assert outputs == [{"answer": "echo:at once"}] * 10
        assert endpoint.calls() == 1

    def test_another_request_under_the_same_key_is_refused(self, shared_door):
        headers = {"Idempotency-Key": "one-3"}
        shared_door.ask("this", headers=headers)
        reply = shared_door.ask("that", headers=headers)
        assert (reply.status_code, reply.json()["type"].rpartition("/")[2]) == (422, "idempotency-mismatch")

    def test_a_key_of_a_server_that_died_before_it_noted_the_prediction_finds_its_run(
        self, shared_door, client, endpoint
    ):
        headers = {"Idempotency-Key": "one-4"}
        first = shared_door.ask("noted late", refresh=True, headers=headers).json()
        (known,) = client.keys("dspy:v1:serve-idempotency:*")
        client.hdel(known, "prediction")
        again = shared_door.ask("noted late", refresh=True, headers=headers).json()
        assert again["outputs"] == first["outputs"]
        assert endpoint.calls() == 1


def test_a_question_goes_on_when_its_caller_hangs_up(shared_door, endpoint):
    endpoint.hold()
    url = f"{shared_door.url}/v1/programs/qa/predictions"
    command = [shutil.which("curl"), "-sS", "-m", "1", "--json", '{"inputs": {"question": "hung up"}}', url]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 28
    eventually(lambda: shared_door.metric("dspyq_http_waiting") == 0)
    endpoint.release()
    assert shared_door.ask("hung up").json()["outputs"] == {"answer": "echo:hung up"}
    assert endpoint.calls() == 1


def test_a_question_is_withdrawn_when_its_caller_hangs_up_where_the_settings_want_that(
    door, settings_file, endpoint, client
):
    server = door(settings_file({"serve": {"on_hangup": "cancel"}}))
    endpoint.hold()
    url = f"{server.url}/v1/programs/qa/predictions"
    command = [shutil.which("curl"), "-sS", "-m", "1", "--json", '{"inputs": {"question": "withdrawn"}}', url]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 28
    eventually(lambda: client.zcard("dspy:v1:leases") == 0)
    endpoint.release()
