"""docs/tutorial.md: its files and commands in their order, on a real worker and a stand-in for the provider."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.blocks import ROOT
from tests.support.configuration import environment, merged, write_settings
from tests.support.nursery import Fork
from tests.support.processes import LocalProcess, free_port

pytestmark = pytest.mark.journey

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
#: Asks the handler as a client does, in a process of its own, as a server is.
_CLIENT = """
from fastapi.testclient import TestClient
from web import api
with TestClient(api) as client:
    print(client.post("/reply", json={"text": "Where is it?", "user": "u1"}).text)
    print(client.post("/reply", json={"text": "x" * 5_000_000, "user": "u1"}).status_code)
"""


class Desk:
    """The folder of a page's files, and its commands there."""

    def __init__(self, folder: Path, redis_url: str, endpoint_url: str, page: str = "tutorial.md") -> None:
        self.folder = folder
        self._endpoint_url = endpoint_url
        given = {"OPENAI_API_KEY": "sk-test", "OPENAI_API_BASE": endpoint_url, "COLUMNS": "200"}
        self._env = environment(folder / "dspyq.toml", redis_url, given)
        self._configurations: list[dict[str, Any]] = []
        for name, text in _FILE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
            (folder / name).write_text(text, encoding="utf-8")
            if name == "dspyq.toml":
                self._configurations.append(tomllib.loads(text))

    def configure(self, count: int) -> None:
        """Write the page's first configurations, merged, with the endpoint in place of the provider."""
        document: dict[str, Any] = {}
        for each in self._configurations[:count]:
            document = merged(document, each)
        for model in document["models"].values():
            model["api_base"] = self._endpoint_url
        write_settings(self.folder / "dspyq.toml", document)

    def python(self, *arguments: str) -> str:
        env = self._env | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dspyq(self, *arguments: str) -> str:
        output = self.folder / "output.txt"
        output.unlink(missing_ok=True)
        process = Fork("dspyq", arguments, env=self._env, directory=self.folder, output=output)
        try:
            status = process.wait(60)
        finally:
            process.kill()
        assert status == 0, output.read_text()
        return output.read_text()

    def ask_over_http(self) -> dict[str, Any]:
        """Start ``dspyq serve``, and ask what the page's curl asks."""
        (body,) = re.findall(r"--json '(.*)'", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
        port = free_port(2)
        env = self._env | {"DSPYQ_SERVE__PORT": str(port), "DSPYQ_SERVE__METRICS_PORT": str(port + 1)}
        command = [sys.executable, "-m", "dspyq", "serve"]
        door = LocalProcess("door", command, ready_line="server_ready", env=env, directory=self.folder, module="dspyq")
        try:
            door.ready(60)
            url = f"http://127.0.0.1:{port}/v1/programs/support/predictions"
            reply = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=60)
        finally:
            door.close()
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def worker(self) -> LocalProcess:
        command = [str(Path(sys.executable).with_name("celery")), "-A", "dspyq", "worker", "-l", "INFO"]
        process = LocalProcess(
            "desk",
            [*command, "--without-mingle"],
            ready_line=" ready.",
            env=self._env,
            directory=self.folder,
            module="celery",
        )
        process.ready(60)
        return process


@pytest.fixture
def desk(tmp_path: Path, redis_server: Any, endpoint: Any, nursery: Any) -> Desk:
    del nursery  # started
    return Desk(tmp_path, redis_server.url, endpoint.url)


def test_the_tutorial_works_as_it_stands(desk: Desk, endpoint: Any) -> None:
    pytest.importorskip("fastapi")
    desk.configure(1)
    desk.dspyq("check")
    with desk.worker() as worker:
        desk.dspyq("predict", "ticket=My parcel has not arrived.")
        assert endpoint.calls() == 2
        assert desk.python("ask.py").splitlines()[-1] == "0.0 redis"
        reply, too_large = desk.python("-c", _CLIENT).splitlines()
        assert json.loads(reply)["variant"] == "control"
        assert too_large == "422"
        assert desk.ask_over_http()["metadata"]["cached"], "the handler's caller and curl's have one cache"
        desk.dspyq("batch", "run", "tickets.jsonl", "--output", "answers.jsonl", "--dry-run")
        desk.dspyq("batch", "run", "tickets.jsonl", "--output", "answers.jsonl", "--max-usd", "1")
        rows = [json.loads(line) for line in (desk.folder / "answers.jsonl").read_text().splitlines()]
        costs = {row["custom_id"]: row["metadata"]["cost_usd"] for row in rows}
        assert costs["t1"] == 0
        assert costs["t2"] > 0
        worker.kill()
    desk.configure(2)
    calls = endpoint.calls()
    with desk.worker():
        desk.dspyq("predict", "--variant", "control", "ticket=My parcel has not arrived.")
        assert endpoint.calls() == calls, "the control's answers stay valid"
        desk.dspyq("predict", "--variant", "challenger", "ticket=My parcel has not arrived.")
        assert endpoint.calls() == calls + 2
        desk.dspyq("batch", "run", "tickets.jsonl", "--output", "paired.jsonl", "--paired")
        assert "challenger" in desk.dspyq("batch", "report", "paired.jsonl")
        assert "challenger" in desk.dspyq("variants")
