"""The HTTP door over several spines: each form of a request finds its answer; one that is away costs its own alone."""

import httpx
import openai
import pytest

from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import KeyGrant
from dspyq.store.clients import money_client
from tests.support.processes import wait_until
from tests.support.spine_questions import one_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

QUESTIONS = [f"question {number}" for number in range(9)]


@pytest.fixture
def door(spine_door):
    return spine_door(env={"DSPYQ_SERVE__HOST": "127.0.0.1"})


def rows_of(door, questions, key):
    body = {"rows": [{"question": each} for each in questions]}
    return door.api.post(
        "/v1/programs/qa/predictions:batch", json=body, headers={"Idempotency-Key": key, "Prefer": "wait=30"}
    )


def test_each_form_of_a_request_finds_its_answer_on_each_spine(door, spine_worker, endpoint):
    spine_worker()
    for question in (asked := one_of_each("asked")):
        reply = door.ask(question, prefer="wait=30")
        assert reply.status_code == 200, reply.text
        assert reply.json()["outputs"] == {"answer": f"echo:{question}"}
        shown = door.look(reply.json()["id"])
        assert shown["status"] == "succeeded"
        path = f"/v1/predictions/{shown['id']}"
        given = door.api.post(f"{path}/feedback", json={"name": "thumbs", "value": 1})
        assert given.status_code == 201, given.text
        assert door.api.get(f"{path}/feedback").json()["data"][0]["value"] == 1
        assert door.api.delete(path).status_code == 204
        assert door.api.get(path).status_code == 404
    later = [door.ask(each, headers={"Idempotency-Key": each}) for each in one_of_each("later")]
    again = [door.ask(each, headers={"Idempotency-Key": each}) for each in one_of_each("later")]
    assert [each.json()["id"] for each in later] == [each.json()["id"] for each in again]
    assert [door.look(each.json()["id"], wait="30")["status"] for each in later] == ["succeeded"] * 3

    first, second = rows_of(door, QUESTIONS, "batch"), rows_of(door, QUESTIONS, "batch")
    assert first.status_code == 200, first.text
    outputs = [each["outputs"]["answer"] for each in first.json()["predictions"]]
    assert outputs == [f"echo:{each}" for each in QUESTIONS]
    assert [each["id"] for each in second.json()["predictions"]] == [each["id"] for each in first.json()["predictions"]]
    for question in one_of_each("streamed"):
        with door.api.stream(
            "POST",
            "/v1/programs/qa/predictions",
            json={"inputs": {"question": question}, "stream": True},
            headers={"Accept": "text/event-stream"},
        ) as reply:
            text = "".join(reply.iter_text())
        assert f"echo:{question}" in text
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
    for question in one_of_each("chatted"):
        said = client.chat.completions.create(model="qa", messages=[{"role": "user", "content": question}])
        assert said.choices[0].message.content == f"echo:{question}"
    assert endpoint.calls() == len(asked) + 3 + len(QUESTIONS) + 3 + 3


def test_a_cancelled_call_ends_its_stream_on_each_spine(door):
    for question in one_of_each("cancelled"):
        public = door.ask(question, prefer="respond-async").json()
        with door.api.stream(
            "GET", f"/v1/predictions/{public['id']}/events", headers={"Accept": "text/event-stream"}
        ) as events:
            lines = events.iter_lines()
            cancelled = httpx.post(f"{door.url}/v1/predictions/{public['id']}/cancel", timeout=30)
            assert cancelled.json()["status"] == "cancelled"
            assert any("cancel" in line for line in lines)
        assert door.look(public["id"])["status"] == "cancelled"


def test_a_revoked_key_is_refused_by_a_door_that_knew_it(door):
    keys = ApiKeys(money_client())
    made = keys.create("acme", "a", KeyGrant())
    headers = {"Authorization": f"Bearer {made.text}"}
    assert door.api.get("/v1/key", headers=headers).status_code == 200
    keys.revoke(made.id)
    wait_until(lambda: door.api.get("/v1/key", headers=headers).status_code == 401, 20, "the refusal")


def test_a_spine_that_is_away_refuses_its_own_questions_alone(door, spine_worker, spines):
    spine_worker()
    asked = one_of_each("away")
    assert door.ask(asked[0], prefer="wait=30").status_code == 200
    spines.servers[1].process.kill()
    refused = door.ask(asked[1], prefer="wait=30")
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (503, "storage-unavailable")
    assert door.ask(asked[2], prefer="wait=30").json()["outputs"] == {"answer": f"echo:{asked[2]}"}
    assert httpx.get(f"{door.metrics_url}/readyz").status_code == 200
    spines.servers[1].restart()
    wait_until(lambda: door.ask(asked[1], prefer="wait=30").status_code == 200, 60, "the spine's answers")
