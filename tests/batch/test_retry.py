"""A retry runs transiently failed rows again, keeps every other line, and survives a crash."""

import json
import threading

import pytest

from dspyq.batch.options import BatchOptions
from dspyq.batch.retry import retry_elsewhere, retry_in_place
from dspyq.batch.run import run_batch
from dspyq.errors import BatchRefused

#: The third and the fifth row ask the same question, whose provider is ill; the sixth can never be asked.
QUESTIONS = ["zero", "one", "flaky", "three", "flaky", None, "six", "seven"]


def run(options):
    return run_batch(options, report=lambda _: None, stop=threading.Event())


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def failed_batch(configured, shared_worker, endpoint, tmp_path):
    """Run the batch while the provider is ill, and mend the provider."""
    del configured, shared_worker

    def start(*, is_ordered):
        path = tmp_path / "in.jsonl"
        rows = [{"question": text} if text else {"quesion": "x"} for text in QUESTIONS]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        endpoint.script(containing="flaky", status=500)
        options = BatchOptions(input=path, output=tmp_path / "out.jsonl", is_ordered=is_ordered)
        outcome = run(options)
        endpoint.clear()
        assert (outcome.ok, outcome.exit_code) == (5, 1)
        assert sum(outcome.failed_by_type.values()) == 3
        return options

    return start


@pytest.mark.parametrize("is_ordered", [True, False], ids=["ordered", "as they land"])
def test_a_retry_in_place_leaves_one_line_a_row_and_pays_one_call(failed_batch, endpoint, is_ordered):
    options = failed_batch(is_ordered=is_ordered)
    before = {line["custom_id"]: line for line in read(options.output)}
    called = endpoint.calls()
    outcome = run(retry_in_place(options.output))
    lines = read(options.output)
    after = {line["custom_id"]: line for line in lines}
    assert len(lines) == len(after) == 8
    assert endpoint.calls() == called + 1
    assert {name for name in after if after[name] != before[name]} == {"3", "5"}
    assert after["3"]["outputs"] == after["5"]["outputs"] == {"answer": "echo:flaky"}
    assert [line["custom_id"] for line in lines if line["status"] == "error"] == ["6"]
    assert (outcome.ok, outcome.failed_by_type, outcome.exit_code) == (7, {"InvalidInputs": 1}, 1)
    assert outcome.reconciliation.difference_nano_usd == 0
    if is_ordered:
        assert [line["custom_id"] for line in lines] == [str(number) for number in range(1, 9)]


@pytest.mark.parametrize("is_ordered", [True, False], ids=["ordered", "as they land"])
def test_a_retry_that_dies_before_it_runs_loses_no_line(failed_batch, is_ordered):
    options = failed_batch(is_ordered=is_ordered)
    written = options.output.read_bytes()
    retry_in_place(options.output)
    assert options.output.read_bytes() == written
    # Whoever runs the batch's own command again goes on with it, too.
    assert run(options).ok == 7
    assert sorted(int(line["custom_id"]) for line in read(options.output)) == list(range(1, 9))


def test_a_retry_elsewhere_runs_the_failed_rows_alone_under_their_own_ids(failed_batch, endpoint, tmp_path):
    options = failed_batch(is_ordered=False)
    written = options.output.read_bytes()
    called = endpoint.calls()
    new = tmp_path / "new.jsonl"
    assert run(retry_elsewhere(options.output, new)).exit_code == 0
    assert {line["custom_id"]: line["outputs"] for line in read(new)} == {
        name: {"answer": "echo:flaky"} for name in ("3", "5")
    }
    assert endpoint.calls() == called + 1
    assert options.output.read_bytes() == written
    # Again: what is there serves, and nothing is asked.
    assert run(retry_elsewhere(options.output, new)).exit_code == 0
    assert endpoint.calls() == called + 1


def test_what_is_no_batchs_output_cannot_be_retried(tmp_path):
    with pytest.raises(BatchRefused, match=r"has no journal beside it, out\.jsonl\.journal"):
        retry_in_place(tmp_path / "out.jsonl")
