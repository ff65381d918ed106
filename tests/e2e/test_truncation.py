"""Answers that were cut off at ``max_tokens`` are marked, counted and logged wherever they go."""

import json

import pytest

from tests.support.monitor import Monitor


@pytest.fixture
def served(worker, settings_file):
    """A worker with programs that keep cut answers or not, and one of two steps; and its configuration."""
    variants = {"control": {"model": "control"}}
    path = settings_file(
        {
            "metrics": {"port": 0},
            "programs": {
                "kept": {"signature": "question -> answer", "cache_truncated": True, "variants": variants},
                "steps": {
                    "signature": "question -> answer",
                    "class": "tests.programs.sample_classes:TwoSteps",
                    "variants": variants,
                },
            },
        }
    )
    return worker(path), path


def ask(programs):
    from dspyq import predict

    answers = []
    for program in programs:
        metadata = predict.apply_async(kwargs={"question": "long"}, program=program).get(timeout=20).metadata
        answers.append([metadata.finish_reason, metadata.is_truncated, metadata.cached])
    return answers


def test_a_truncated_answer_is_counted_logged_and_cached_if_the_program_allows_it(served, run_producer, endpoint):
    running, path = served
    endpoint.script(times=1, finish_reason="length")
    assert run_producer(ask, path, programs=["kept", "kept"]) == [["length", True, False], ["length", True, True]]
    assert Monitor.of(running).metrics()['dspy_truncated_answers_total{model="control"}'] == 1
    logged = [json.loads(line) for line in running.logs().splitlines() if line.startswith("{")]
    (entry,) = [each for each in logged if each["event"] == "answer_truncated"]
    assert (entry["model"], entry["advice"]) == ("control", "raise models.control.max_tokens")
    assert "long" not in json.dumps(entry)


def test_an_answer_whose_first_of_two_calls_was_cut_off_is_marked_and_not_cached(served, run_producer, endpoint):
    endpoint.script(times=1, finish_reason="length")
    answers = run_producer(ask, served[1], programs=["steps", "steps", "steps"])
    assert answers == [["length", True, False], ["stop", False, False], ["stop", False, True]]
    assert endpoint.calls() == 4


def test_a_batchs_row_is_answered_with_its_mark_and_the_report_counts_it(served, dspyq, endpoint, tmp_path):
    _, path = served
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"question": "short"}\n{"question": "too long"}\n{"question": "too long"}\n')
    endpoint.script(containing="too long", finish_reason="length")
    dspyq("batch", "run", str(rows), "--program", "qa", "--output", str(out), "--ordered", settings=path)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 3
    assert [line["metadata"]["is_truncated"] for line in lines] == [False, True, True]
    assert (
        "| cut off | 2 | of those answered, at their model's max_tokens |"
        in dspyq("batch", "report", str(out), settings=path).stdout
    )
