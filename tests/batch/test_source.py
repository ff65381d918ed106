"""Files of every format and compression give the same rows; what is broken costs its own row and no other."""

import gzip
import io
import os
import sys
import tempfile
import threading

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from dspyq.batch.files.source import open_source
from dspyq.config.programs import Program
from dspyq.errors import InvalidFile

QUESTIONS = [f"question {number}: é\nsecond line" for number in range(1, 6)]


def program(signature="question -> answer", **options):
    variant = {"name": "control", "queue": "qa.control", "model": {"name": "fast", "model": "openai/fast"}}
    return Program(name="qa", signature=signature, variants={"control": variant}, **options)


@pytest.fixture
def write(tmp_path):
    """Write a file of bytes or text and return its source."""

    def open_file(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return open_source(path, spool=tmp_path / "spool", **options)

    return open_file


def as_jsonl(questions):
    return b"".join(orjson.dumps({"question": question}) + b"\n" for question in questions)


def as_csv(questions):
    cells = "".join(f'"{question}"\r\n' for question in questions)
    return f"\ufeffquestion\r\n{cells}".encode()


def as_parquet(questions):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"question": questions}), file, row_group_size=2)
    return file.getvalue()


CONTENTS = {"jsonl": as_jsonl(QUESTIONS), "csv": as_csv(QUESTIONS), "parquet": as_parquet(QUESTIONS)}
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
KINDS = [(form, suffix) for form in CONTENTS for suffix in COMPRESSIONS if not (form == "parquet" and suffix)]


@pytest.mark.parametrize(("form", "suffix"), KINDS)
def test_every_format_and_compression_gives_the_same_rows(write, form, suffix):
    content = COMPRESSIONS[suffix](CONTENTS[form])
    source = write(f"rows.{form}{suffix}", content)
    rows = list(source.rows(program()))
    assert [row.inputs for row in rows] == [{"question": question} for question in QUESTIONS]
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert source.bytes_read == source.size_bytes == len(content)


@pytest.mark.parametrize(("form", "suffix"), KINDS)
def test_standard_input_is_kept_and_its_format_found(tmp_path, monkeypatch, form, suffix):
    spool = tmp_path / "out.jsonl.input"
    content = COMPRESSIONS[suffix](CONTENTS[form])

    def send(sent):
        with tempfile.TemporaryFile("w+") as file:
            file.buffer.write(sent)
            file.seek(0)
            monkeypatch.setattr(sys, "stdin", file)
            return open_source(None, spool=spool)

    first = send(content)
    assert first.format == form
    assert spool.read_bytes() == content
    # Taken up again: with the same rows, or with none.
    assert first.digest() == send(content).digest() == send(b"").digest()
    with pytest.raises(InvalidFile, match="is not what"):
        send(content + b" ")
    assert spool.read_bytes() == content
    assert list(tmp_path.iterdir()) == [spool]


def test_a_pipe_is_kept_as_standard_input_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CONTENTS["jsonl"],))
    writer.start()
    source = open_source(pipe, spool=tmp_path / "spool")
    writer.join()
    assert [row.inputs["question"] for row in source.rows(program())] == QUESTIONS


def test_the_digest_is_that_of_the_bytes(write):
    assert write("a.jsonl", "x").digest() == write("b.csv", "x").digest() != write("c.jsonl", "y").digest()


def test_empty_files_have_no_rows_and_empty_lines_are_none(write):
    for name in ("a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet"):
        assert list(write(name, "").rows(program())) == []
    rows = list(write("b.jsonl", b'\n{"question": "x"}\r\n  \n{"question": "y"}').rows(program()))
    assert [(row.number, row.line, row.custom_id) for row in rows] == [(1, 2, "2"), (2, 4, "4")]


def test_bad_lines_stop_no_other(write):
    lines = [b'{"question": "x"}', b"{", b'"\xff"', b'{"question": "' + b"x" * 70_000 + b'"}', b'{"question": "y"}']
    rows = list(write("a.jsonl", b"\n".join(lines)).rows(program(max_input_bytes=100)))
    assert [row.fault and row.fault.type for row in rows] == [None, "NotJson", "NotUtf8", "RowTooLarge", None]
    assert rows[3].fault.message == "line 4: larger than 65,836 bytes"


@pytest.mark.parametrize(("suffix", "name"), [(".gz", "gzip"), (".zst", "zstd")])
def test_rows_before_a_torn_compressed_tail_are_kept(write, suffix, name):
    content = b"".join(orjson.dumps({"question": f"{i} {i * i}"}) + b"\n" for i in range(20_000))
    packed = COMPRESSIONS[suffix](content)
    rows = list(write(f"a.jsonl{suffix}", packed[: len(packed) * 2 // 3]).rows(program()))
    *good, last = rows
    assert len(good) > 5_000
    assert not [row for row in good if row.fault]
    assert last.fault.type == "BrokenFile"
    assert f"line {last.line}: the {name} stream ends early" in last.fault.message
    assert last.line == last.number == len(rows)


def test_a_damaged_gzip_stream_is_reported_too(write):
    packed = bytearray(gzip.compress(as_jsonl(QUESTIONS)))
    packed[-6] ^= 1  # of the checksum
    rows = list(write("a.jsonl.gz", bytes(packed)).rows(program()))
    assert [row.fault and row.fault.type for row in rows] == [*[None] * 5, "BrokenFile"]


TYPED = (
    "text, count: int, share: float, flag: bool, tags: list[str], more: dict[str, int], note: str | None, "
    "kind: Literal['a', 'b'], day: date -> answer"
)


def test_csv_cells_have_the_types_that_the_signature_states(write):
    header = "custom_id,text,count,share,flag,tags,more,note,kind,day\n"
    cells = [
        'r1,007,-7,1e3,TRUE,"[""x"",""y""]","{""x"": 1}",,a,2026-11-24',
        ',"a ""b""",0,.5,0,[],{},n,b,2026-11-24',
    ]
    rows = list(write("a.csv", header + "\n".join(cells)).rows(program(TYPED)))
    assert rows[0].custom_id == "r1"
    assert rows[0].inputs == {
        "text": "007",
        "count": -7,
        "share": 1000.0,
        "flag": True,
        "tags": ["x", "y"],
        "more": {"x": 1},
        "note": None,
        "kind": "a",
        "day": "2026-11-24",
    }
    assert rows[1].custom_id == "3"
    assert rows[1].inputs["text"] == 'a "b"'
    assert (rows[1].inputs["flag"], rows[1].inputs["note"]) == (False, "n")


@pytest.mark.parametrize(
    ("kind", "cell", "reason"),
    [
        ("int", "1.5", "x is not a whole number"),
        ("int", "9" * 19 + "9", "x is not a whole number"),
        ("float", "nan", "x is not a number"),
        ("bool", "yes", "x is neither true nor false"),
        ("list[int]", "secret", "x is not JSON"),
        ("Literal[1, 2]", "3", "x is none of 1, 2"),
        ("Optional[int]", "secret", "x is not a whole number"),
    ],
)
def test_a_cell_of_another_type_makes_its_row_faulty(write, kind, cell, reason):
    (row,) = write("a.csv", f"custom_id,x\nr1,{cell}\n").rows(program(f"x: {kind} -> answer"))
    assert (row.custom_id, row.fault) == ("r1", ("InvalidInputs", f"line 2: {reason}"))


def test_a_quote_that_is_not_closed_costs_its_own_row_alone(write):
    text = 'question,context\nx,"y"\n"never closed,z\nx,"y"\n"two\nlines",z\n\nx\nx,\xff\n"also open,z'
    rows = list(write("a.csv", text.encode("latin-1")).rows(program("question, context -> answer")))
    assert [(row.line, row.fault and row.fault.type) for row in rows] == [
        (2, None),
        (3, "InvalidRow"),
        (4, None),
        (5, None),
        (8, "InvalidRow"),
        (9, "NotUtf8"),
        (10, "InvalidRow"),
    ]
    assert rows[4].fault.message == "line 8: 1 cells where the header has 2"
    assert rows[-1].fault.message == "line 10: not CSV (a quote that is not closed)"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "quesion\nx\n", "lacks 'question', and has besides 'quesion'"),
        ("a.csv", "question,question\nx,x\n", "repeats 'question'"),
        ("a.parquet", "{}", "is not a Parquet file"),
        ("a.jsonl", CONTENTS["parquet"], "is Parquet, not jsonl"),
        ("a.jsonl.gz", "{}", "is not gzip, as its name states"),
        ("a.parquet.gz", gzip.compress(CONTENTS["parquet"]), "decompress it first"),
        ("a.parquet", CONTENTS["parquet"][:40], "is not a Parquet file that can be read"),
        ("a.jsonl", "{}".encode("utf-16"), "is UTF-16"),
        ("a.jsonl", '[{"question": "x"}]', r"^[^\n]*a.jsonl: the file is a JSON array: [^\n]*jq[^\n]*$"),
        ("a.jsonl", '\ufeff [\n  {"question": "x"}]', "is a JSON array"),
        ("a.jsonl", "[]", "is a JSON array"),
        ("a.txt", "{}", "does not show its format; use --format jsonl, csv, parquet"),
    ],
)
def test_a_file_that_does_not_fit_as_a_whole_is_one_clear_error(write, name, content, reason):
    with pytest.raises(InvalidFile, match=reason):
        write(name, content).rows(program())


def test_no_file_or_none_that_can_be_read_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidFile, match="there is no file"):
        open_source(tmp_path / "none.jsonl", spool=tmp_path / "spool")
    with pytest.raises(InvalidFile, match="is a directory"):
        open_source(tmp_path, spool=tmp_path / "spool")


def test_parquet_columns_keep_their_types_and_may_hold_the_inputs_as_one(write):
    file = io.BytesIO()
    inputs = [
        {"text": "x", "count": 3, "tags": ["a"], "note": None},
        {"text": "y", "count": 4, "tags": [], "note": "n"},
    ]
    pyarrow.parquet.write_table(pyarrow.table({"custom_id": ["a", None], "inputs": inputs}), file)
    signature = "text, count: int, tags: list[str], note: str | None -> answer"
    rows = list(write("a.parquet", file.getvalue()).rows(program(signature)))
    assert [(row.custom_id, row.inputs) for row in rows] == [("a", inputs[0]), ("2", inputs[1])]
    assert rows[1].where == "row 2"


def test_a_stated_format_wins_over_the_name(write):
    (row,) = write("rows.txt", "question\nx\n", format="csv").rows(program())
    assert row.inputs == {"question": "x"}


def test_a_missing_extra_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    with pytest.raises(InvalidFile, match=r"a\.parquet: Parquet needs the batch extra; run: pip install 'dspyq\[bat"):
        write("a.parquet", CONTENTS["parquet"]).rows(program())
    with pytest.raises(InvalidFile, match=r"zstd needs the batch extra"):
        write("a.jsonl.zst", zstd.compress(b"{}"))
