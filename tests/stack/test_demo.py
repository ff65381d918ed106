"""``dspyq demo``, end to end: a real Redis and a real worker of its own."""

import json
import os
import subprocess
import sys

import pytest

from dspyq.stack.demo import REVIEWS
from dspyq.stack.embedded import weights
from tests.support.processes import wait_until


@pytest.fixture
def demo(tmp_path):
    """Run the demo; its temporary folder is the test's, so that the test sees what it leaves."""

    def run(*arguments, **variables):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
        return subprocess.run(
            [sys.executable, "-m", "dspyq", "demo", *arguments],
            env=inherited | {"TMPDIR": str(tmp_path), "COLUMNS": "80"} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    return run


def test_every_prediction_lands_and_the_second_round_comes_from_the_cache(demo, endpoint, tmp_path):
    done = demo("--model", "openai/demo", "--api-base", endpoint.url, "--json", DSPYQ_NO_SUCH="a project's setting")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    predictions = [event for event in events if event["event"] == "prediction"]
    for number in (1, 2):
        landed = [event for event in predictions if event["round"] == number]
        assert {event["text"] for event in landed} == set(REVIEWS)
        assert all(event["outputs"]["sentiment"] in {"positive", "negative"} for event in landed)
        assert all(event["metadata"]["cached"] == (number == 2) for event in landed)
        assert {event["metadata"]["variant"] for event in landed} == {"control", "challenger"}
    assert endpoint.calls() == len(REVIEWS)
    assert {request.parameters["temperature"] for request in endpoint.requests()} == {0, 0.7}
    variants = [event for event in events if event["event"] == "variant"]
    assert [event["variant"] for event in variants] == ["control", "challenger"]
    assert sum(event["calls"] for event in variants) == 2 * len(REVIEWS)
    assert all(event["hit_rate"] == 0.5 and event["success_rate"] == 1.0 for event in variants)
    (asked,) = [event for event in events if event["event"] == "http"]
    assert (asked["status"], asked["reply"]["status"]) == (200, "succeeded")
    assert asked["reply"]["metadata"]["cached"]
    assert not list(tmp_path.iterdir())


@pytest.mark.journey
def test_it_ends_with_the_command_that_asks_over_http(demo, endpoint):
    done = demo("--model", "openai/demo", "--api-base", endpoint.url)
    *_, command, body, reply = done.stdout.rstrip().splitlines()
    assert command.strip().startswith("curl http://127.0.0.1:")
    assert body.strip() == f"""'{json.dumps({"inputs": {"text": REVIEWS[5]}})}'"""
    assert reply.split() in (["200", "positive"], ["200", "negative"])
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.journey
def test_failed_predictions_are_shown_and_fail_the_command(demo, endpoint, tmp_path):
    endpoint.script(status=500)
    done = demo("--model", "openai/demo", "--api-base", endpoint.url)
    assert done.returncode == 1
    assert f"{len(REVIEWS)} of {len(REVIEWS)} predictions failed, the first with LMServerError" in done.stderr
    assert "Round 2" not in done.stdout
    assert done.stdout.count("failed after") == len(REVIEWS)
    assert (next(tmp_path.glob("dspyq-demo-*")) / "worker.log").exists()


@pytest.mark.journey
def test_the_folder_of_a_killed_demo_is_removed_by_the_next(demo, endpoint, tmp_path):
    endpoint.hold()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "dspyq", "demo", "--model", "openai/demo", "--api-base", endpoint.url]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as killed:
        wait_until(lambda: list(tmp_path.glob("dspyq-demo-*/worker.log")), 60, "its folder")
        killed.kill()
    assert list(tmp_path.glob("dspyq-demo-*"))
    endpoint.release()
    assert demo("--model", "openai/demo", "--api-base", endpoint.url).returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.journey
def test_a_workers_refusal_is_shown_in_its_lines(demo):
    done = demo("--model", "openai/demo", "--api-base", "http://127.0.0.1:1/v1", "--api-key-env", "NO_SUCH_KEY")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split(":")[:2] for line in lines] == [
        ["dspyq", f" models.{name}.api_key_env"] for name in ("control", "challenger")
    ]
    assert all("NO_SUCH_KEY is not set" in line for line in lines)


def test_an_endpoint_without_a_model_is_refused(demo):
    done = demo("--api-base", "http://127.0.0.1:1/v1")
    assert done.returncode == 1
    assert done.stderr == "dspyq: --api-base and --api-key-env are about the model that --model names\n"


def test_the_embedded_model_answers_and_its_costs_show(demo):
    if not (weights.cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf").exists():
        pytest.skip("its weights are not here; dspyq demo fetches them")
    done = demo()
    assert done.returncode == 0, done.stderr
    assert "The bundled model is there to show the machinery, not to be right." in done.stdout
    assert "Its prices are made up" in done.stdout
    assert done.stdout.count("$0.0000") == len(REVIEWS) + 2
    assert max(map(len, done.stdout.splitlines())) <= 80
