"""A summary agrees with OUT to the nano-dollar, separates variants, and holds no content of users but ids."""

import random

import pytest

from dspyq.batch.clusters import note_clusters
from dspyq.batch.entry import Entry
from dspyq.batch.files.rows import Row
from dspyq.batch.journal import Journal
from dspyq.batch.output import Output
from dspyq.batch.output_lines import BatchContext, line_of_fault, line_of_result
from dspyq.batch.reports.histogram import Histogram
from dspyq.batch.reports.summary import summarize
from dspyq.errors import InvalidFile

VARIANTS = ("control", "challenger")
ASKED = BatchContext("qa", VARIANTS, "0123456789abcdef")


class Written:
    """A batch's OUT and journal, written as a run writes them."""

    def __init__(self, path, *, is_paired):
        self.path = path
        self.journal = Journal(path)
        identity = {
            "program": "qa",
            "is_paired": str(is_paired),
            "experiment": '["qa",[["control","f",0.5],["challenger","f",0.5]]]',
        }
        self.journal.begin(identity, batch_id=ASKED.batch_id)
        self.output = Output(path, self.journal, is_ordered=False)
        self.number = 0

    def _entry(self, row, variant, cost_nano_usd=0):
        self.number += 1
        entry = Entry(self.number, row, f"r{row}", variant, self.number.to_bytes(16, "big"))
        entry.paid_nano_usd = cost_nano_usd
        return entry

    def cluster(self, row, cluster):
        note_clusters(self.journal, [Row(row, str(row), {}, cluster=cluster)])

    def answer(self, row, variant, answer, *, cost_nano_usd=1000, seconds=1.0, level=None, fallback=None, scores=None):
        metadata = {
            "program": "qa",
            "model": f"openai/{VARIANTS[variant]}",
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            "duration_seconds": seconds,
            "cached": False,
            "cache_level": None,
            "fallback": fallback,
            **({} if scores is None else {"scores": scores}),
        }
        result = {"dspyq": 1, "outputs": {"answer": answer}, "metadata": metadata}
        entry = self._entry(row, variant, cost_nano_usd)
        self.output.write([line_of_result(entry, {"status": "SUCCESS", "result": result}, ASKED, level)])

    def fail(self, row, variant, name, *, cost_nano_usd=0):
        error = {"exc_type": name, "exc_message": ["secret"], "exc_module": "dspyq.errors"}
        entry = self._entry(row, variant, cost_nano_usd)
        self.output.write([line_of_result(entry, {"status": "FAILURE", "result": error}, ASKED, None)])

    def fault(self, row):
        self.output.write([line_of_fault(self._entry(row, None), "NotJson", "line 1: not JSON (secret)", ASKED)])

    def close(self):
        self.output.commit()
        self.output.close()
        self.journal.close()


@pytest.fixture
def write(tmp_path):
    return lambda *, is_paired=False: Written(tmp_path / "out.jsonl", is_paired=is_paired)


def test_costs_errors_hits_and_tokens_are_reported_by_variant(write):
    batch = write()
    for row in range(1, 11):
        batch.answer(row, row % 2, "secret", cost_nano_usd=1_000_001 * row, seconds=row / 10)
    batch.answer(11, 0, "secret", cost_nano_usd=0, level="redis")
    batch.answer(12, 1, "secret", cost_nano_usd=0, level="joined")
    batch.fail(13, 0, "TransientPredictionFailure", cost_nano_usd=7)
    batch.fail(14, 1, "InvalidOutputs")
    batch.fault(15)
    batch.close()
    found = summarize(batch.path)
    assert (found.lines, found.ok, found.failed, found.retryable, found.left) == (15, 12, 3, 1, 0)
    assert found.failed_by_type == {"TransientPredictionFailure": 1, "InvalidOutputs": 1, "NotJson": 1}
    assert found.cost_nano_usd == sum(1_000_001 * row for row in range(1, 11)) + 7
    control, challenger = found.variants
    assert (control.variant, control.computed, control.cached, control.joined) == ("control", 5, 1, 0)
    assert (challenger.computed, challenger.cached, challenger.joined, challenger.model) == (
        5,
        0,
        1,
        "openai/challenger",
    )
    assert control.hit_rate == pytest.approx(1 / 6)
    assert (control.prompt_tokens, control.completion_tokens) == (50, 25)
    assert control.durations.percentile(0.5) == pytest.approx(0.6, rel=0.01)
    assert sum(bar.computed + bar.shared + bar.failed for bar in found.timeline.bars) == 15
    assert [row.custom_id for row in found.failed_rows] == ["r13", "r14", "r15"]
    assert "secret" not in repr(found)


def test_pairs_are_compared_row_by_row(write):
    batch = write(is_paired=True)
    for row in range(1, 101):
        batch.answer(row, 0, "Yes", cost_nano_usd=1000, seconds=1.0)
        batch.answer(row, 1, " yes " if row <= 80 else "no", cost_nano_usd=3000 + row, seconds=1.5)
    batch.answer(101, 0, "Yes")
    batch.fail(101, 1, "InvalidOutputs")
    batch.answer(102, 0, "Yes")
    batch.answer(102, 1, "Yes", fallback="outputs")
    batch.close()
    found = summarize(batch.path)
    assert found.variants[1].fallbacks == 1
    (comparison,) = found.comparisons
    assert (comparison.control, comparison.variant, comparison.rows) == ("control", "challenger", 100)
    agreement = comparison.agreement["answer"]
    assert agreement.value == 0.8
    assert agreement.interval.low < 0.8 < agreement.interval.high
    cost = comparison.cost_difference_usd
    assert cost.value == pytest.approx(2050.5e-9)
    assert cost.interval.low < cost.value < cost.interval.high
    assert comparison.duration_difference_seconds.value == pytest.approx(0.5)
    assert comparison.duration_difference_seconds.interval is None  # all alike


def scored_pairs(write, documents, rows_a_document):
    """Write pairs whose score differs by document alone."""
    batch, numbers = write(is_paired=True), random.Random(3)  # noqa: S311 - no secret
    for document in range(documents):
        differs = numbers.gauss(0, 1)
        for each in range(rows_a_document):
            row = document * rows_a_document + each + 1
            batch.cluster(row, document)
            batch.answer(row, 0, "x", scores={"judge": 0.5, "fails": None})
            batch.answer(row, 1, "x", scores={"judge": 0.5 + differs, "fails": 1.0})
    batch.close()
    (comparison,) = summarize(batch.path).comparisons
    return comparison.score_differences


def test_rows_of_one_document_count_as_little_as_one_of_them(write, tmp_path):
    few = scored_pairs(write, 100, 1)["judge"]
    (tmp_path / "out.jsonl").unlink()
    (tmp_path / "out.jsonl.journal").unlink()
    many = scored_pairs(write, 100, 8)["judge"]
    assert (few.rows, many.rows) == (100, 800)
    assert few.clusters == many.clusters == 100
    assert many.value == pytest.approx(few.value)
    assert many.interval.low == pytest.approx(few.interval.low)
    assert many.interval.high == pytest.approx(few.interval.high)


def test_few_documents_have_a_difference_and_no_interval(write):
    found = scored_pairs(write, 10, 20)
    assert found["judge"].rows == 200
    assert found["judge"].interval is None
    assert "fails" not in found  # no row has it of both variants


def test_a_batch_that_runs_can_be_summarized_and_a_line_being_written_is_left_out(write):
    batch = write()
    batch.answer(1, 0, "x")
    batch.output.commit()
    with batch.path.open("ab") as file:
        file.write(b'{"custom_id": "r2", "stat')
    found = summarize(batch.path)
    batch.close()
    assert (found.lines, found.ok, found.batch_id) == (1, 1, ASKED.batch_id)


def test_what_is_no_batchs_output_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidFile, match="cannot read"):
        summarize(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(InvalidFile, match="line 1: no line of a batch's output"):
        summarize(tmp_path / "other.jsonl")


def test_percentiles_are_one_percent_exact():
    numbers = random.Random(1)  # noqa: S311 - no secret
    values = sorted(numbers.lognormvariate(0, 1) for _ in range(5_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.5, 0.95, 0.99):
        assert histogram.percentile(share) == pytest.approx(values[int(share * 5_000) - 1], rel=0.011)
    assert histogram.mean == pytest.approx(sum(values) / 5_000)
    assert sum(histogram.bins([0.1, 1.0, 10.0])) == 5_000
