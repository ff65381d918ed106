"""Files as spreadsheets, data frames and attackers write them: every row has a line, none ends the batch."""

import datetime
import decimal
import gzip
import json
import os
import re

import pyarrow
import pyarrow.parquet
import pytest

from dspyq.batch.files.parquet_rows import without_pandas
from dspyq.batch.files.source import open_source
from dspyq.config.settings import load_settings
from dspyq.errors import InvalidFile
from tests.support.journeys import few_of


@pytest.fixture
def rows(settings_file, tmp_path):
    def rows(path, signature="question: Any -> answer", read=list):
        program = load_settings(settings_file({"programs": {"qa": {"signature": signature}}})).programs["qa"]
        return read(open_source(path, spool=tmp_path / "spool").rows(program))

    return rows


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_cell_that_python_cannot_hold_is_the_fault_of_its_row_alone(rows, tmp_path):
    moments = pyarrow.array([1_000, 1_001, 2_000], type=pyarrow.timestamp("ns"))
    found = rows(parquet(tmp_path / "a.parquet", question=moments))
    assert [row.fault.type if row.fault else None for row in found] == [None, "InvalidInputs", None]
    far = pyarrow.array([0, 2**62], type=pyarrow.timestamp("us"))
    found = rows(parquet(tmp_path / "b.parquet", question=far))
    assert [row.fault is None for row in found] == [True, False]


class OfPandas(datetime.datetime):
    """A moment in nanoseconds as pyarrow returns it where pandas is installed, in the form of pandas' ``Timestamp``."""

    nanosecond = 0

    def to_pydatetime(self):
        return datetime.datetime.combine(self.date(), self.time(), self.tzinfo)


class FractionOfPandas(OfPandas):
    nanosecond = 1


def test_moments_are_pythons_own_whether_pandas_is_installed_or_not():
    read = without_pandas({"at": [OfPandas(2024, 2, 29, 1, tzinfo=datetime.UTC), None, "a"]})
    assert read == {"at": [datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC), None, "a"]}
    assert type(read["at"][0]) is datetime.datetime
    with pytest.raises(ValueError, match="below a microsecond"):
        without_pandas([FractionOfPandas(2024, 2, 29, tzinfo=datetime.UTC)])


def test_maps_whole_floats_decimals_and_an_index_are_read_by_the_types_of_the_fields(rows, tmp_path):
    scores = pyarrow.array([[("a", 1)]], type=pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    columns = {"n": [1.0], "x": [decimal.Decimal("1.5")], "scores": scores, "__index_level_0__": [7]}
    (row,) = rows(parquet(tmp_path / "a.parquet", **columns), "n: int, x: float, scores: dict -> answer")
    assert row.inputs == {"n": 1, "x": 1.5, "scores": {"a": 1}}
    assert type(row.inputs["n"]) is int


def test_a_text_in_every_row_takes_the_memory_of_one(rows, tmp_path):
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 400), pyarrow.array(["x" * 2_000_000]))
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": texts}), path, store_schema=False)
    (first, *_) = (len(row.inputs["question"]) for row in rows(path, read=iter))
    assert first == 2_000_000
    assert pyarrow.default_memory_pool().max_memory() < 500_000_000


@pytest.mark.parametrize("header", ["", "Unnamed: 0"])
def test_a_spreadsheets_numbering_is_passed_over(header, rows, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{header},question\n0,first\n1,second\n")
    assert [row.inputs for row in rows(path, "question -> answer")] == [{"question": "first"}, {"question": "second"}]


def test_another_delimiter_is_named(rows, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question;context\na;b\n")
    with pytest.raises(InvalidFile, match="divided by semicolons"):
        rows(path, "question, context -> answer")


def test_quotes_that_are_not_closed_cost_time_in_proportion_to_the_file(rows, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + 'x","y\n' * 24_000)  # each read up to the end took minutes, longer than a test may
    found = rows(path, "a, b -> answer")
    assert found
    assert all(row.fault for row in found)


def test_a_row_that_would_be_larger_than_it_may_is_refused_before_it_is_made(rows, tmp_path):
    text = pyarrow.array([["y" * 2_000_000] * 8, ["a"]])  # 2 MB in the file, 16 MB as a row
    refused, good = rows(parquet(tmp_path / "a.parquet", question=text))
    assert (refused.fault.type, good.inputs) == ("RowTooLarge", {"question": ["a"]})
    numbers = pyarrow.ListArray.from_arrays(
        pyarrow.array([0, 13_000_000]), pyarrow.repeat(pyarrow.scalar(0), 13_000_000)
    )
    (refused,) = rows(parquet(tmp_path / "b.parquet", question=numbers))
    assert refused.fault.type == "RowTooLarge"


def test_a_nested_text_in_every_row_takes_the_memory_of_one(rows, tmp_path):
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 500), pyarrow.array(["x" * 2_000_000]))
    path = tmp_path / "a.parquet"
    nested = pyarrow.StructArray.from_arrays([texts], names=["a"])
    pyarrow.parquet.write_table(pyarrow.table({"question": nested}), path, store_schema=False)
    (first, *_) = (len(row.inputs["question"]["a"]) for row in rows(path, read=iter))
    assert first == 2_000_000
    assert pyarrow.default_memory_pool().max_memory() < 500_000_000


def test_a_number_that_its_field_cannot_hold_is_the_fault_of_its_row(rows, tmp_path):
    huge = pyarrow.array([decimal.Decimal(10) ** 60, decimal.Decimal(7)], pyarrow.decimal256(76, 0))
    bad, good = rows(parquet(tmp_path / "a.parquet", n=huge), "n: int -> answer")
    assert bad.fault
    assert good.inputs == {"n": 7}


@pytest.mark.journey
@pytest.mark.parametrize(
    ("name", "start", "row"), [("a.jsonl.gz", b"", b'{"question": "a"}'), ("a.csv.gz", b"question\n", b"a")]
)
def test_half_a_gigabyte_of_blank_lines_is_passed_over(name, start, row, rows, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(start) + gzip.compress(b"\n" * 2**20, 9) * 512 + gzip.compress(row))
    (read,) = rows(path)  # a line at a time took longer than a test may
    assert read.inputs == {"question": "a"}
    assert read.line == start.count(b"\n") + 2**29 + 1


def test_a_header_of_many_columns_is_refused_in_one_short_line(rows, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question," + ",".join(f"c{number}" for number in range(200_000)) + "\n")
    with pytest.raises(InvalidFile, match="and 199,992 more") as caught:
        rows(path, "question -> answer")
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_utf_16_is_named_with_and_without_its_mark(name, encoding, rows, tmp_path):
    path = tmp_path / name
    path.write_bytes("question\nfirst\n".encode(encoding))
    with pytest.raises(InvalidFile, match="is UTF-16; save it as UTF-8"):
        rows(path)


JSON_LINES = [
    b'{"question": "good"}',
    b'{"question": "first", "question": "twice"}',
    b'{"question": "a\0b"}',
    b"\0",
    b"[" * 300 + b"]" * 300,
    b'{"question": ' + b"[" * 250 + b"]" * 250 + b"}",
    b'{"question": ' + b"[" * 1500 + b"]" * 1500 + b"}",
    b'{"question": NaN}',
    b'{"question": -Infinity}',
    b'{"question": 1e999}',
    b'{"question": ' + b"9" * 5000 + b"}",
    b'{"question": "\\ud800"}',
    b'{"question": "\xed\xa0\x80"}',
    b'{"\\ud800": "a"}',
    b'["a"]',
    b'"a"',
    b"null",
    b'{"question": "a",}',
    b"{'question': 'a'}",
    b'{"question": "a"}{"question": "b"}',
    b"{}",
    b'{"custom_id": "\\u0000", "question": "zero"}',
    b'{"custom_id": [], "question": "a"}',
    b'{"custom_id": 99999999999999999999999, "question": "a"}',
    b'{"inputs": []}',
    b'{"inputs": null, "question": "a"}',
    b'{"__type__": "x", "__value__": 1}',
    b'{"question": {"__type__": "datetime", "__value__": "x"}}',
    b'{"question": "a", "self": 1}',
    b'{"question": "\x1b[31m"}',
    b'{"question": "' + b"x" * 13_000_000 + b'"}',
]
OPENAI = b'{"custom_id": "%d", "method": %s, "url": "/v1/chat/completions", "body": %s}'
OPENAI_LINES = [
    OPENAI % (number, method, body)
    for number, (method, body) in enumerate(
        [
            (b'"POST"', b'{"messages": [{"role": "user", "content": "good"}]}'),
            (b'"POST"', b"null"),
            (b"{}", b"{}"),
            (b'"POST"', b'{"messages": [{"role": "user"}]}'),
            (b'"POST"', b'{"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}'),
            (b'"POST"', b'{"messages": []}'),
            (b'"POST"', b'{"messages": [7]}'),
            (b'"POST"', b'{"messages": [{"role": ["user"], "content": "a"}]}'),
        ]
    )
]


def odd_parquet(path):
    moments = pyarrow.array([0, 1_001, 2**62], type=pyarrow.timestamp("ns"))
    parquet(path, question=moments)


def half_broken_parquet(path):
    texts = [f"row {number} {os.urandom(8).hex()}" for number in range(30)]
    pyarrow.parquet.write_table(pyarrow.table({"question": texts}), path, row_group_size=10)
    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)


def lines(*some):
    return lambda path: path.write_bytes(b"\n".join(some) + b"\n")


#: By name: what writes it, its rows, and how many of them can be asked.
CORPUS = {
    "json.jsonl": (lines(*JSON_LINES), len(JSON_LINES), 3),
    "openai.jsonl": (lines(*OPENAI_LINES), len(OPENAI_LINES), 1),
    "mark.jsonl": (lines(b'\xef\xbb\xbf{"question": "a"}', b'\xef\xbb\xbf{"question": "b"}'), 2, 1),
    "carriage.jsonl": (lines(b'{"question": "a"}\r{"question": "b"}\r'), 1, 0),
    "quotes.csv": (lines(b"question", *[b'x","y'] * 300), 300, 0),
    "odd.csv": (lines(b"question", b"a\0b", b"\xe9", b"a\rb", b"," * 1000, b'"c', b"good"), 6, 2),
    "moments.parquet": (odd_parquet, 3, 1),
    "broken.parquet": (half_broken_parquet, 30, 20),
    "empty.csv": (lines(b"question"), 0, 0),
}


@pytest.mark.parametrize("name", few_of(CORPUS, 3))
def test_every_row_of_an_odd_file_has_a_line_and_none_ends_the_batch(name, dspyq, tmp_path, shared_worker):
    del shared_worker
    write, rows, good = CORPUS[name]
    path, out = tmp_path / name, tmp_path / "out.jsonl"
    write(path)
    quote = dspyq("batch", "run", str(path), "--output", str(out), "--dry-run")
    assert re.search(rf"^rows +{rows}$", quote.stdout, re.MULTILINE)
    dspyq("batch", "run", str(path), "--output", str(out), ok=rows == good)
    answered = [json.loads(line)["status"] == "ok" for line in out.read_text().splitlines()]
    assert (len(answered), sum(answered)) == (rows, good)
