"""The API as its description states it: Schemathesis, in all of its phases, against a server with a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

#: Types of inputs, each with what JSON makes of it.
PROGRAMS = {
    "programs": {
        "typed": {
            "signature": "count: int, share: float, is_new: bool, tags: list[str], limit: int | None, day: date, "
            'kind: Literal["a", "b"], rows: dict[str, list[int]], note: str = "none" -> answer: str, score: int',
            "variants": {"control": {"model": "control"}},
        }
    }
}
_LONGEST_SECONDS = 600


@pytest.mark.long
@pytest.mark.timeout(_LONGEST_SECONDS)
@pytest.mark.parametrize("seed", [1])
def test_every_answer_is_as_described(door, settings_file, worker, endpoint, seed, tmp_path):
    settings = settings_file(PROGRAMS)
    worker(settings)
    endpoint.script(outputs={"answer": "yes", "score": 1})
    server = door(settings)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", f"{server.url}/openapi.json",
        "--phases", "examples,coverage,fuzzing,stateful", "--seed", str(seed), "--continue-on-failure",
        "--max-examples", "40", "--generation-database", "none", "--request-timeout", "60",
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.serve.contract_hooks", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **hooks}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:]
