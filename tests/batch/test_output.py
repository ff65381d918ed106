"""OUT and its journal: every line once, in its order, whatever is cut off and whenever."""

from __future__ import annotations

import json
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyq.batch.entry import Entry, EntryState
from dspyq.batch.events import EntryCounts
from dspyq.batch.journal import Journal, Place
from dspyq.batch.output import Output
from dspyq.batch.output_lines import BatchContext, OutputLine, line_of_copy, line_of_fault, line_of_result
from dspyq.errors import BatchRefused

ASKED = BatchContext("qa", ("control",), "b" * 16)


def line_of(number):
    entry = Entry(number, number, f"id {number}", 0, number.to_bytes(16, "big"), state=EntryState.ASKED)
    text = json.dumps({"number": number, "text": "x" * (number % 7)}).encode() + b"\n"
    return OutputLine(entry, EntryState.OK, "computed", text)


@pytest.fixture
def opened(tmp_path):
    """Open OUT and its journal, as a run does."""
    files = []

    def open_them(*, is_ordered=False):
        journal = Journal(tmp_path / "out.jsonl")
        files.append(journal)
        if journal.is_new:
            journal.begin({}, batch_id="b" * 16)
        output = Output(tmp_path / "out.jsonl", journal, is_ordered=is_ordered)
        files.append(output)
        return journal, output

    yield open_them
    for file in reversed(files):
        file.close()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), is_ordered=st.booleans())
def test_every_line_is_there_once_and_in_order_however_often_the_process_dies(seed, is_ordered):
    random = Random(seed)  # noqa: S311 - no secret
    numbers = set(range(1, 31))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        left = numbers
        while left:
            with closing(Journal(out)) as journal:
                if journal.is_new:
                    journal.begin({}, batch_id="b" * 16)
                with closing(Output(out, journal, is_ordered=is_ordered)) as output:
                    left = numbers - done_in(journal)
                    for _ in range(random.randint(1, 4)):
                        chunk = random.sample(sorted(left), random.randint(0, min(12, len(left))))
                        output.write([line_of(number) for number in chunk])
                        left -= set(chunk)
                        if random.random() < 0.5:
                            output.commit()
            with out.open("ab") as file:  # what a killed process may have begun to write
                file.write(random.choice([b"", b'{"number": 99', b"x" * 300]))
            with closing(Journal(out)) as journal, closing(Output(out, journal, is_ordered=is_ordered)):
                left = numbers - done_in(journal)
        written = [json.loads(line)["number"] for line in out.read_text().splitlines()]
        assert sorted(written) == sorted(numbers)
        assert not is_ordered or written == sorted(written)


def done_in(journal):
    return {number for (number,) in journal._database.execute("SELECT number FROM entries WHERE state >= 3")}  # noqa: SLF001 - what is durable


def test_lines_that_wait_for_their_turn_can_be_read(opened):
    journal, output = opened(is_ordered=True)
    output.write([line_of(2)])
    leader = journal.leaders([line_of(2).entry.input_hash])[line_of(2).entry.input_hash]
    assert leader.place is None
    assert output.line_of(leader) == line_of(2).text
    output.write([line_of(1)])
    leader = journal.leaders([line_of(2).entry.input_hash])[line_of(2).entry.input_hash]
    assert leader.place == Place(len(line_of(1).text), len(line_of(2).text))
    assert output.line_of(leader) == line_of(2).text


def test_what_was_counted_is_read_off_the_entries(opened):
    journal, output = opened()
    paid = line_of(1)
    paid.entry.paid_nano_usd, paid.entry.prompt_tokens, paid.entry.completion_tokens = 7, 3, 2
    output.write([paid, line_of_fault(Entry(2, 2, "b"), "NotJson", "line 2: not JSON", ASKED)])
    counts = EntryCounts.of(journal.totals())
    assert (counts.done, counts.ok, counts.computed, counts.cost_nano_usd) == (2, 1, 1, 7)
    assert (counts.prompt_tokens, counts.completion_tokens) == (3, 2)
    assert dict(counts.failed_by_type) == {"NotJson": 1}
    assert journal.rows_read() == 2


def test_the_first_row_with_a_custom_id_owns_it(opened):
    journal, _ = opened()
    assert journal.take_ids([("a", 1), ("b", 2), ("a", 3)]) == {"a": 1}
    assert journal.take_ids([("b", 2), ("b", 4)]) == {"b": 2}


def test_files_are_as_readable_as_the_umask_lets_them(opened, tmp_path):
    opened()
    for name in ("out.jsonl", "out.jsonl.journal"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o133 == 0


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "out.jsonl.journal").write_text("not SQLite " * 100)
    with pytest.raises(BatchRefused, match="cannot be used as a journal"):
        Journal(tmp_path / "out.jsonl")


def test_the_journal_holds_no_answer_unless_it_waits_for_its_turn(opened, tmp_path):
    journal, output = opened()
    result = {
        "dspyq": 1,
        "outputs": {"answer": "a secret"},
        "metadata": {"cache_level": None, "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    }
    output.write([line_of_result(line_of(1).entry, {"status": "SUCCESS", "result": result}, ASKED, None)])
    output.commit()
    assert "a secret" in (tmp_path / "out.jsonl").read_text()
    dump = "\n".join(sqlite3.connect(tmp_path / "out.jsonl.journal").iterdump())
    assert "a secret" not in dump
    assert journal.batch_id() in dump


@pytest.mark.parametrize(
    ("exc_type", "module", "retryable"),
    [
        ("TransientPredictionFailure", "dspyq.errors", True),
        ("PredictionFailed", "dspyq.errors", False),
        ("BreakerOpen", "dspyq.errors", True),
        ("PoisonedJob", "dspyq.errors", False),
        ("TaskRevokedError", "celery.exceptions", True),
        ("ValueError", "builtins", False),
    ],
)
def test_an_error_states_if_a_retry_may_help(exc_type, module, retryable):
    failure = {"exc_type": exc_type, "exc_module": module, "exc_message": ["half a pair: \ud800"]}
    line = line_of_result(line_of(1).entry, {"status": "FAILURE", "result": failure}, ASKED, None)
    assert json.loads(line.text)["error"] == {
        "type": exc_type,
        "message": "half a pair: ?",
        "retryable": retryable,
    }
    assert line.state == (EntryState.RETRYABLE if retryable else EntryState.FAILED)


def test_a_duplicate_of_a_failed_row_fails_as_it_did_at_no_cost():
    failure = {"exc_type": "PredictionFailed", "exc_module": "dspyq.errors", "exc_message": "no"}
    spent = {"prompt_tokens": 5, "completion_tokens": 6, "duration_seconds": 1.0}
    first = line_of(1).entry
    first.paid_nano_usd = 9
    line = line_of_result(first, {"status": "FAILURE", "result": failure, "spent": spent}, ASKED, None)
    assert json.loads(line.text)["metadata"]["cost_usd"] == 9e-9
    copy = json.loads(line_of_copy(line_of(2).entry, line.text, ASKED, "joined").text)
    assert copy["error"] == json.loads(line.text)["error"]
    assert copy["metadata"]["cost_usd"] == copy["metadata"]["usage"]["total_tokens"] == 0
