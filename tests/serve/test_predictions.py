"""Predictions over HTTP, against a real server and a real worker."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_a_question_is_answered_by_curl(door):
    server = door()
    done = subprocess.run(
        [
            shutil.which("curl"),
            "-sS",
            "--json",
            '{"inputs": {"question": "one"}}',
            f"{server.url}/v1/programs/qa/predictions",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"answer":"echo:one"' in done.stdout


def test_an_answer_names_its_origin_and_its_cost(door):
    server = door()
    reply = server.ask("two")
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["status"] == "succeeded"
    assert found["outputs"] == {"answer": "echo:two"}
    assert (found["program"], found["variant"]) == ("qa", "control")
    assert found["metadata"]["cached"] is False
    assert found["metadata"]["request_id"] == reply.headers["x-request-id"]
    assert server.api.get(found["urls"]["self"]).json()["outputs"] == {"answer": "echo:two"}
    again = server.ask("two").json()
    assert again["metadata"]["cache_level"] == "memory"
    assert again["metadata"]["cost_usd"] == 0
    assert again["id"] != found["id"]
    assert server.api.get(again["urls"]["self"]).json()["outputs"] == {"answer": "echo:two"}


def test_a_caller_that_will_not_wait_gets_the_place_of_the_answer(door, endpoint):
    endpoint.hold()
    server = door()
    reply = server.ask("three", prefer="respond-async")
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "respond-async"
    assert reply.headers["location"] == reply.json()["urls"]["self"]
    assert int(reply.headers["retry-after"]) >= 1
    place = reply.headers["location"]
    assert server.api.get(place).json()["status"] in {"queued", "running"}
    endpoint.release()
    done = server.api.get(place, params={"wait": "30"}).json()
    assert (done["status"], done["outputs"]) == ("succeeded", {"answer": "echo:three"})
