"""``dspyq batch run --lane``: what it refuses, and a batch at the flex tier with a real worker."""

from __future__ import annotations

import json

import pytest

CLASS = {"programs": {"qa": {"class": "tests.support.user_programs:Answer"}}}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{number}"}) + "\n" for number in range(5)))
    return path


@pytest.mark.usefixtures("shared_worker")
def test_a_batch_in_the_flex_lane_is_asked_at_the_flex_tier(dspyq, rows, tmp_path, endpoint):
    out = tmp_path / "out.jsonl"
    done = dspyq("batch", "run", str(rows), "--output", str(out), "--lane", "flex")
    assert "5 answered" in done.stdout
    assert {request.parameters["service_tier"] for request in endpoint.requests()} == {"flex"}
    assert endpoint.calls() == 5


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--lane", "provider"], "models.control.batch: this model has no batch interface"),
        (CLASS, ["--lane", "provider"], "programs.qa.class: its code runs again for each call that waited"),
        ({}, ["--lane", "night"], "Invalid value for '--lane': 'night' is not one of"),
        ({}, ["--finish-by", "07:00"], "--finish-by is for batches with a lane"),
        ({}, ["--lane", "flex", "--finish-by", "7 am"], "--finish-by: '7 am' is no hour of the day"),
        ({}, ["--lane", "flex", "--finish-by", "07:00", "--timezone", "Mars/Base"], "there is no timezone"),
        ({}, ["--timezone", "UTC"], "--timezone is that of --window and --finish-by"),
        ({"models": {"control": {"batch_discount": 2}}}, ["--lane", "flex"], "models.control.batch_discount"),
    ],
)
def test_a_lane_that_cannot_serve_is_refused_in_one_line(
    dspyq, rows, tmp_path, settings_file, changes, arguments, said
):
    out = tmp_path / "out.jsonl"
    done = dspyq("batch", "run", str(rows), "--output", str(out), *arguments, ok=False, settings=settings_file(changes))
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in done.stderr
    assert not out.exists()
