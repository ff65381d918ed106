"""Files that can be read in part: each row has a line, and what the format still gives is right."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from dspyq.batch.files import streams
from dspyq.batch.files.rows import Row
from dspyq.batch.files.source import open_source
from dspyq.config.programs import Program

VARIANT = {"name": "control", "queue": "qa.control", "model": {"name": "fast", "model": "openai/fast"}}
PROGRAM = Program.model_validate({"name": "qa", "signature": "question -> answer", "variants": {"control": VARIANT}})


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, bytes], list[Row]]:
    def rows(name: str, content: bytes) -> list[Row]:
        path = tmp_path / name
        path.write_bytes(content)
        return list(open_source(path, spool=tmp_path / "spool").rows(PROGRAM))

    return rows


def asked(rows: list[Row]) -> list[str]:
    return [row.inputs["question"] for row in rows if row.inputs]


def faults(rows: list[Row]) -> dict[int, str]:
    return {row.number: row.fault.type for row in rows if row.fault}


def texts(number: int) -> list[str]:
    return [f"{index} {os.urandom(40).hex()}" for index in range(number)]


def parquet_bytes(columns: dict[str, list[str]], **options: Any) -> bytearray:
    file = io.BytesIO()
    settings = {"row_group_size": 1_000, "data_page_size": 4_096, "write_batch_size": 10, "use_dictionary": False}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, **(settings | options))
    return bytearray(file.getvalue())


def chunk(content: bytearray, group: int, column: int) -> tuple[int, int]:
    found = pyarrow.parquet.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(group).column(column)
    return found.data_page_offset, found.total_compressed_size


def test_a_damaged_page_of_a_row_group_costs_the_rows_behind_it_in_that_group_alone(
    read: Callable[[str, bytes], list[Row]],
) -> None:
    questions = texts(2_500)
    content = parquet_bytes({"question": questions}, write_page_checksum=True)
    start, size = chunk(content, 1, 0)
    content[start + size // 2 : start + size // 2 + 2_000] = b"\xff" * 2_000
    rows = read("a.parquet", bytes(content))
    assert [row.number for row in rows] == list(range(1, 2_501))
    lost = faults(rows)
    assert set(lost.values()) == {"BrokenFile"}
    assert 1_400 < min(lost) < 1_600  # those before it in its group are read
    assert set(lost) == set(range(min(lost), 2_001))
    assert asked(rows) == [text for number, text in enumerate(questions, 1) if number not in lost]


def test_a_changed_byte_that_only_a_checksum_shows_gives_no_wrong_row(
    read: Callable[[str, bytes], list[Row]],
) -> None:
    questions = texts(100)
    content = parquet_bytes(
        {"question": questions}, compression="none", write_statistics=False, write_page_checksum=True
    )
    at = content.index(questions[50].encode())
    content[at + 5] ^= 1
    rows = read("a.parquet", bytes(content))
    assert len(rows) == 100
    assert set(asked(rows)) < set(questions)
    assert min(faults(rows)) <= 51


def test_damage_in_a_column_that_is_not_asked_costs_nothing(read: Callable[[str, bytes], list[Row]]) -> None:
    questions = texts(300)
    content = parquet_bytes({"question": questions, "Unnamed: 0": texts(300)})
    start, size = chunk(content, 0, 1)
    content[start : start + size] = b"\xff" * size
    assert asked(read("a.parquet", bytes(content))) == questions


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_every_row_that_is_decompressed_before_the_damage_is_asked(
    suffix: str, read: Callable[[str, bytes], list[Row]]
) -> None:
    questions = [f"{number} {'the same in each row ' * 3}" for number in range(2_000)]
    plain = b"".join(json.dumps({"question": text}).encode() + b"\n" for text in questions)
    plain += b'{"question": "damaged'
    if suffix == ".gz":
        compressor = zlib.compressobj(wbits=31)
        good = compressor.compress(plain) + compressor.flush(zlib.Z_FULL_FLUSH)
    else:
        zstd_compressor = zstd.ZstdCompressor()
        good = zstd_compressor.compress(plain, zstd_compressor.FLUSH_BLOCK)
    rows = read(f"a.jsonl{suffix}", good + b"\x07" * 64)  # no type of a block
    assert asked(rows) == questions
    assert faults(rows) == {len(questions) + 1: "BrokenFile"}
    assert rows[-1].fault
    assert "stream is damaged" in rows[-1].fault.message


def test_a_quote_that_is_open_where_a_stream_ends_early_costs_its_own_row_alone(
    read: Callable[[str, bytes], list[Row]],
) -> None:
    questions = texts(3_000)
    lines = ["question", *questions[:10], '"open', *questions[10:]]
    packed = gzip.compress("\n".join(lines).encode())
    rows = read("a.csv.gz", packed[: len(packed) * 2 // 3])
    *_, last = rows
    assert faults(rows) == {11: "InvalidRow", last.number: "BrokenFile"}
    assert len(rows) > 1_500
    assert asked(rows) == questions[: len(rows) - 2]


def test_what_is_kept_of_a_stream_that_ends_early_has_its_format_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress("\n".join(["question", *texts(20)]).encode())
    stream = tmp_path / "stream"
    stream.write_bytes(packed[:-200])
    with stream.open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        source = open_source(None, spool=tmp_path / "spool")
    assert source.format == "csv"
    rows = list(source.rows(PROGRAM))
    assert len(asked(rows)) > 5
    assert set(faults(rows).values()) == {"BrokenFile"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_disk_that_fails_within_a_file_costs_the_rows_behind_it(
    name: str, read: Callable[[str, bytes], list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.FileIO):
        def read(self, size: int = -1, /) -> bytes:
            if self.tell() > 1_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size) or b""

    monkeypatch.setattr(streams.io, "FileIO", Failing)
    questions = texts(30_000)
    form = "{}\n" if name == "a.csv" else '{{"question": "{}"}}\n'
    header = "question\n" if name == "a.csv" else ""
    rows = read(name, (header + "".join(form.format(text) for text in questions)).encode())
    *_, last = rows
    assert faults(rows) == {last.number: "BrokenFile"}
    assert asked(rows) == questions[: len(rows) - 1]
    assert len(rows) > 5_000
