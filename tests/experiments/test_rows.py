"""Rows that an experiment keeps: bounded, each with how often it was served, its judgements, and a way into DSPy."""

from __future__ import annotations

import json
from collections import Counter

import orjson
import pytest

from dspyq.errors import ExperimentRefused, InvalidFile
from dspyq.experiments import administration
from dspyq.experiments.export import choose_rows, split_rows
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.rows import MOST_ROW_BYTES, JudgedSum, KeptRow, read_rows, write_row
from dspyq.experiments.tally import process_tally
from dspyq.experiments.token import question_name
from dspyq.store.keys import experiment_kept_key, experiment_rows_key
from dspyq.store.scripts import load_script
from tests.support.experiments import with_experiment

THUMBS = {"thumbs": {"low": 0, "high": 1}, "stars": {"low": 1, "high": 5, "replace": True}}


@pytest.fixture
def path(settings_file):
    return settings_file(with_experiment(keep_rows=100, feedback=THUMBS), challenger=0.5)


@pytest.fixture
def state(path, configure, worker):
    program = configure(path).programs["qa"]
    worker(path)
    return administration.start(program)


@pytest.fixture
def ask(state):
    from dspyq import predict

    del state
    return lambda question, unit="user", **options: predict.apply_async(
        kwargs={"question": question}, unit=unit, **options
    )


def kept(number=1, served=1, scores=None, judgements=None, arm="control", at=0.0):
    inputs = {"question": f"question {number}"}
    exposure = Exposure("qa", "ab", arm, 1, 2, 3, 20_000)
    name = question_name(orjson.dumps(inputs))
    sums = [{each: JudgedSum(1, value) for each, value in (one or {}).items()} for one in (scores, judgements)]
    return KeptRow(f"task {number} {at}", at, exposure, name, "f", inputs, {"answer": f"{arm} {at}"}, served, *sums)


def table(**changes):
    score = {"grounded": {"scorer": "a:b", "low": 0, "high": 1}}
    return {"primary": "answer.grounded", "scores": score, "feedback": THUMBS, **changes}


def test_each_computed_answer_is_kept_once_with_the_calls_it_was_served_to(state, ask):
    asked = Counter()
    for number in range(12):
        question = f"question {number % 4}"
        ask(question, "user").get(timeout=20)
        asked[question] += 1
    process_tally().flush()
    rows = list(read_rows(state))
    assert {row.inputs["question"]: row.served for row in rows} == asked
    assert len(rows) == 4
    for row in rows:
        assert row.outputs == {"answer": ask(row.inputs["question"], "user").get(timeout=20).answer}


def test_a_judgement_is_joined_to_the_row_of_its_arm_and_question(state, ask):
    from dspyq import predict

    jobs = [ask("judged", unit) for unit in ("user", "user", "another")]
    for value, job in zip((1, 0, 1), jobs, strict=True):
        predict.feedback(job.get(timeout=20).metadata.exposure, name="thumbs", value=value)
    for value in (2, 5):
        predict.feedback(jobs[0], name="stars", value=value)
    ask("silent", "user").get(timeout=20)
    process_tally().flush()
    rows = choose_rows(read_rows(state), administration.read_plan("qa").table)
    found = {row.row.inputs["question"]: row for row in rows}
    judged = [row for row in read_rows(state) if row.inputs["question"] == "judged"]
    assert sum(row.judgements["thumbs"].number for row in judged if row.judgements) == 3
    assert sum(row.judgements["thumbs"].total for row in judged if row.judgements) == 2_000_000
    assert [row.judgements["stars"] for row in judged if "stars" in row.judgements] == [JudgedSum(1, 1_000_000)]
    assert found["silent"].judgements == {}


def test_the_oldest_rows_go_with_all_that_is_known_of_them(configure, settings_file, client):
    program = configure(settings_file(with_experiment(keep_rows=3), challenger=0.5)).programs["qa"]
    state = administration.start(program)
    open_call = load_script(client, "dspyq.cache", "claim")
    answer = load_script(client, "dspyq.cache", "answer")
    for number in range(8):
        exposure = Exposure("qa", state.epoch, "control", 1, 2, 3, 20_000).stated()
        alias, task_id = f"dspy:v1:prediction:{number}", f"task {number}"
        open_call(
            [alias], id=task_id, flags="c", claim_seconds=30, priority=0, queue="qa.control", is_here="1", gone="",
            fence="", day="d", batch="", seen=str(state.version), exposure=exposure,
        )  # fmt: skip
        answer(
            [alias], id=task_id, fence="", serve_seconds=60, keep_seconds=60, result="", input_hash="", cost=1,
            queue="qa.control", day="d", is_last="", time_ms=1, tokens=1, is_fallback="", found="", unscored="",
            counts=[], row=write_row(task_id, "f", {"question": f"q{number}"}, {"answer": "a"}),
        )  # fmt: skip
    assert [row.inputs["question"] for row in read_rows(state)] == ["q5", "q6", "q7"]
    assert client.hlen(experiment_kept_key("qa", state.epoch)) == 6  # calls served to, and the question, of each
    assert client.ttl(experiment_rows_key("qa", state.epoch)) > 0
    assert client.ttl(experiment_kept_key("qa", state.epoch)) > 0


def test_nothing_is_kept_where_the_table_does_not_say_so(configure, settings_file, worker, client):
    from dspyq import predict

    path = settings_file(with_experiment(), challenger=0.5)
    program = configure(path).programs["qa"]
    worker(path)
    state = administration.start(program)
    predict.apply_async(kwargs={"question": "private"}, unit="user").get(timeout=20)
    assert not client.exists(experiment_rows_key("qa", state.epoch), experiment_kept_key("qa", state.epoch))


def test_a_row_that_is_too_large_is_not_kept(configured):
    del configured
    assert write_row("task", "f", {"question": "x"}, {"answer": "y"})
    assert write_row("task", "f", {"question": "x" * MOST_ROW_BYTES}, {"answer": "y"}) == b""


def test_a_row_that_cannot_be_read_is_passed_over(state, ask, client):
    ask("good").get(timeout=20)
    for fields in ({"id": "x"}, {"id": "x", "exposure": "y", "row": "ab f {"}, {"id": "x", "exposure": "", "row": ""}):
        client.xadd(experiment_rows_key("qa", state.epoch), fields)
    assert [row.inputs["question"] for row in read_rows(state)] == ["good"]


def test_a_question_is_exported_once_with_its_best_answer_and_all_its_calls():
    rows = [
        kept(1, 3, {"grounded": 400_000}, arm="control", at=1.0),
        kept(1, 2, {"grounded": 900_000}, arm="challenger", at=2.0),
        kept(1, 1, {"grounded": 500_000}, arm="control", at=3.0),
        kept(2, 1, at=1.0),
        kept(2, 1, judgements={"stars": 750_000}, at=0.5),
    ]
    first, second = choose_rows(rows, table())
    assert (first.row.exposure.arm, first.weight, first.scores) == ("challenger", 6, {"grounded": 0.9})
    assert (second.row.at, second.weight, second.judgements) == (0.5, 2, {"stars": 4.0})


def test_what_is_not_good_enough_is_left_out():
    rows = [kept(1, 1, {"grounded": 900_000}), kept(2, 1, {"grounded": 700_000}), kept(3)]
    assert [each.row.inputs for each in choose_rows(rows, table(), {"grounded": 0.8})] == [{"question": "question 1"}]
    with pytest.raises(ExperimentRefused, match="no score or feedback 'smiles'; it has thumbs, stars, grounded"):
        choose_rows(rows, table(), {"smiles": 1})


def test_no_question_is_on_both_sides_of_a_split():
    early, late = ([kept(number, at=at) for number in range(2_000)] for at in (1.0, 2.0))
    sides = [split_rows(choose_rows(rows, table()), 0.8) for rows in (early[:1_500], late)]
    first = {row.row.question for side in sides for row in side[0]}
    second = {row.row.question for side in sides for row in side[1]}
    assert not first & second
    assert len(first) / 2_000 == pytest.approx(0.8, abs=0.03)


def test_exported_rows_are_examples_of_dspy(state, ask, dspyq, path, tmp_path):
    from dspyq import examples

    del state

    for number in range(10):
        ask(f"question {number}").get(timeout=20)
    out = tmp_path / "rows.jsonl"
    told = dspyq("experiment", "export", "qa", "--since", "1h", "--split", "0.5", "--out", str(out), "--json",
                 "--with-feedback", settings=path)  # fmt: skip
    beside = tmp_path / "rows.held-out.jsonl"
    assert json.loads(told.stdout)["held_out"] == str(beside)
    found = examples.read(out)
    held_out = [json.loads(line)["inputs"]["question"] for line in beside.read_text().splitlines()]
    assert sorted([*(each.question for each in found), *held_out]) == [f"question {number}" for number in range(10)]
    assert all(dict(each.inputs()) == {"question": each.question} and each.answer for each in found)
    assert out.stat().st_mode & 0o777 == 0o600
    line = json.loads(out.read_text().splitlines()[0])
    assert line["weight"] == 1
    assert line["feedback"] == {}
    assert line["fingerprint"]


@pytest.mark.parametrize("text", ["{", "[]", '{"program":"qa"}', '{"program":"nobody","inputs":{},"outputs":{}}'])
def test_a_file_that_is_no_export_is_refused_in_one_line_that_quotes_none_of_it(configured, tmp_path, text):
    from dspyq import examples

    del configured
    (tmp_path / "rows.jsonl").write_text(f"{text}\n")
    with pytest.raises(InvalidFile, match=r"rows\.jsonl, line 1: "):
        examples.read(tmp_path / "rows.jsonl")
    with pytest.raises(InvalidFile, match="cannot read"):
        examples.read(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--since", "two weeks"], "--since: state a number of days, hours or minutes, as in 14d, 12h or 30m"),
        (["--min", "thumbs"], "--min: state NAME=VALUE with a number, as in grounded=0.8"),
        (["--min", "smiles=1"], "the experiment has no score or feedback 'smiles'; it has thumbs, stars"),
        (["--out", "/nowhere/rows.jsonl"], "cannot write /nowhere/rows.jsonl: No such file or directory"),
    ],
)
def test_an_export_that_cannot_be_made_gets_one_line(configure, path, dspyq, tmp_path, options, line):
    administration.start(configure(path).programs["qa"])
    out = [] if "--out" in options else ["--out", str(tmp_path / "rows.jsonl")]
    failed = dspyq("experiment", "export", "qa", *options, *out, settings=path, ok=False)
    assert line in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_an_experiment_that_keeps_no_rows_names_the_setting(configure, settings_file, dspyq, tmp_path):
    path = settings_file(with_experiment(), challenger=0.5)
    administration.start(configure(path).programs["qa"])
    failed = dspyq("experiment", "export", "qa", "--out", str(tmp_path / "rows.jsonl"), settings=path, ok=False)
    assert "programs.qa.experiment.keep_rows" in failed.stderr
