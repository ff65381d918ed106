"""docs/optimize.md: its files and commands in their order, on a real worker and a stand-in for the provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_tutorial import Desk

pytestmark = pytest.mark.journey


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_users_questions_become_a_compiled_variant_at_two_per_cent(
    tmp_path: Path, redis_server: Any, endpoint: Any, nursery: Any
) -> None:
    del nursery  # started
    desk = Desk(tmp_path, redis_server.url, endpoint.url, "optimize.md")
    desk.configure(1)
    desk.dspyq("check")
    with desk.worker() as worker:
        desk.dspyq("experiment", "start", "qa")
        desk.python("ask.py")
        desk.dspyq(
            "experiment", "export", "qa", "--since", "14d", "--with-feedback", "--min", "thumbs=0.8", "--split", "0.8",
            "--out", "rows.jsonl",
        )  # fmt: skip
        worker.kill()
    rows, held_out = lines(tmp_path / "rows.jsonl"), lines(tmp_path / "rows.held-out.jsonl")
    assert sum(row["weight"] for row in rows) >= len(rows)
    assert all(row["feedback"]["thumbs"]["mean"] == 1 for row in rows)
    assert len(rows) + len(held_out) == 20
    trained_on = {row["inputs"]["question"] for row in rows}
    assert not trained_on & {row["inputs"]["question"] for row in held_out}
    desk.python("compile.py")
    demos = json.loads((tmp_path / "qa-compiled.json").read_text())["demos"]
    assert demos
    assert {demo["question"] for demo in demos} <= trained_on
    desk.configure(2)
    assert "questions in its demonstrations" in " ".join(desk.dspyq("check").split())
    with desk.worker() as worker:
        desk.dspyq("batch", "run", "rows.held-out.jsonl", "--program", "qa", "--paired", "--output", "paired.jsonl")
        assert "compiled" in desk.dspyq("batch", "report", "paired.jsonl")
        assert {row["custom_id"] for row in lines(tmp_path / "paired.jsonl")} == {row["custom_id"] for row in held_out}
        desk.dspyq("experiment", "stop", "qa")
        started = json.loads(desk.dspyq("experiment", "start", "qa", "--json"))
        assert (started["coverage"], started["arms"]) == (0.02, ["control", "compiled"])
        worker.kill()
