"""``dspyq batch``: what each command prints and how it ends, with a real worker."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def rows(tmp_path):
    def write(*rows, name="in.jsonl"):
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_gets_its_line_in_order_and_bad_ones_say_where_they_are(
    dspyq, shared_worker, rows, tmp_path, endpoint
):
    file = rows(
        {"custom_id": "a", "inputs": {"question": "one"}},
        {"question": "two"},
        "not json\n",
        {"custom_id": "a", "inputs": {"question": "three"}},
        {"custom_id": "d", "inputs": {"query": "four"}},
        {"custom_id": "e", "inputs": {"question": "one"}},
    )
    out = tmp_path / "out.jsonl"
    done = dspyq("batch", "run", str(file), "--output", str(out), "--ordered", ok=False)
    assert done.returncode == 1
    assert "6 rows: 3 answered (2 computed, 0 cached, 1 joined), 3 failed" in done.stdout
    first, second, broken, twice, unknown, again = read(out)
    assert [line["custom_id"] for line in (first, second, broken, twice, unknown, again)] == [
        "a",
        "2",
        "3",
        "a",
        "d",
        "e",
    ]
    assert list(first) == ["custom_id", "status", "outputs", "error", "metadata"]
    assert (first["status"], first["outputs"], first["error"]) == ("ok", {"answer": "echo:one"}, None)
    assert first["metadata"]["cost_usd"] > 0
    assert not first["metadata"]["cached"]
    assert (again["outputs"], again["metadata"]["cost_usd"]) == (first["outputs"], 0)
    assert again["metadata"]["cache_level"] == "joined"
    assert [line["error"]["type"] for line in (broken, twice, unknown)] == [
        "NotJson",
        "DuplicateCustomId",
        "InvalidInputs",
    ]
    assert [line["error"]["message"].split(":")[0] for line in (broken, twice, unknown)] == [
        "line 3",
        "line 4",
        "line 5",
    ]
    assert broken["outputs"] is None
    assert endpoint.calls() == 2
    assert second["outputs"] == {"answer": "echo:two"}
