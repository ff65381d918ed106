"""The reference application at the repository's root: its producers ask, its workers answer, from that folder."""

import json
import os
import subprocess
import sys

import pytest

from dspyq.config.settings import load_settings
from tests.support.processes import REPOSITORY
from tests.support.worker import Worker

WEB = """
import asyncio, json, httpx
from producer.web import api

async def ask():
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        found = [await client.get("/triage", params={"ticket": text, "customer": "7"}) for text in ("It broke", "Hm")]
        found.append(await client.get("/triage", params={"ticket": "y" * 2_000}))
    return [(reply.status_code, reply.json()) for reply in found]

print(json.dumps(asyncio.run(ask())))
"""
ASK = """
import json
from producer import predict

ticket = {"ticket": "Where is my lamp?", "tone": "short"}
asked = [predict.apply_async(kwargs=ticket, program="reply", variant=name) for name in ("control", "plain")]
reply, _ = [job.get(timeout=30) for job in asked]
order = predict.apply_async(kwargs={"question": "Where is 1001?"}, program="orders").get(timeout=30)
print(json.dumps([reply.reply, order.answer]))
"""


@pytest.fixture
def env(redis_server, endpoint):
    """The environment that an operator of the application has: no DSPYQ_CONFIG."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
    bases = {f"DSPYQ_MODELS__{name}__API_BASE": endpoint.url for name in ("FAST", "STRONG")}
    return inherited | bases | {"DSPYQ_REDIS_URL": redis_server.url, "OPENAI_API_KEY": "a-key", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def running(env):
    with Worker(env, application="workers", is_forked=False) as worker:
        worker.ready()
        yield worker


def run(env, *arguments):
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_producers_get_answers_of_all_three_kinds_of_programs_from_its_worker(env, running, endpoint, tmp_path):
    reply, order = json.loads(run(env, "-c", ASK))
    assert reply == "echo:short"
    assert order
    texts = [request.text for request in endpoint.requests()]
    shown = ["The lamp arrived broken." in text for text in texts[:2]]  # the saved state's demonstration
    assert sorted(shown) == [False, True]
    assert "find_order" in texts[2]  # the agent's tool

    (tmp_path / "tickets.jsonl").write_text('{"ticket": "It broke"}\n{"ticket": "It fell"}\n')
    run(env, "-m", "producer.nightly", str(tmp_path / "tickets.jsonl"), str(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"urgency", "team"}] * 2

    found = json.loads(run(env | {"DSPYQ_PROGRAMS__TRIAGE__MAX_INPUT_BYTES": "1000"}, "-c", WEB))
    assert [status for status, _ in found] == [200, 200, 422]
    assert found[0][1].keys() == {"urgency", "team", "cached"}
    assert running.is_running


def test_the_demos_configuration_is_valid():
    assert load_settings(REPOSITORY / "config" / "demo.toml").programs.keys() == {"sentiment"}
