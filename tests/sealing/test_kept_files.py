"""Files that keep users' content: sealed in pieces, read from any place, and refused where anything was changed."""

from __future__ import annotations

import gzip
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from dspyq.errors import InvalidFile
from dspyq.store.kept_files import PIECE_BYTES, open_kept, write_kept


@pytest.fixture(autouse=True)
def sealing(configure, sealed):
    """Let this process seal."""
    return configure(sealed())


def kept(path, text):
    write_kept(path, iter([text[start : start + 10_000] for start in range(0, len(text), 10_000)]))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(size=some.sampled_from([0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 200_000]),
       start=some.integers(0, 210_000))  # fmt: skip
def test_a_sealed_file_is_read_whole_and_from_any_place(tmp_path, size, start):
    text = os.urandom(size)
    path = kept(tmp_path / "file", text)
    assert path.stat().st_mode & 0o777 == 0o600
    assert text[:50] not in path.read_bytes() or size < 8
    with open_kept(path) as file:
        assert io.BufferedReader(file).read() == text
    with open_kept(path) as file:
        file.seek(start)
        assert file.read() == text[start:]
        assert file.seek(0, os.SEEK_END) == size


def test_a_file_that_was_changed_cut_or_put_together_anew_is_refused(tmp_path):
    path = kept(tmp_path / "file", os.urandom(3 * PIECE_BYTES))
    good = path.read_bytes()
    stored, head = PIECE_BYTES + 51, 20
    first, second, third = (good[head + number * stored :][:stored] for number in range(3))
    other = kept(tmp_path / "other", os.urandom(3 * PIECE_BYTES)).read_bytes()
    attacks = {
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[: head + 2 * stored],
        "cut within": good[:-100],
        "exchanged": good[:head] + second + first + third,
        "doubled": good + third,
        "another's": good[:head] + other[head:],
    }
    for name, bytes_now in attacks.items():
        path.write_bytes(bytes_now)
        assert is_refused(path), name


def is_refused(path):
    try:
        with open_kept(path) as file:
            file.read()
    except InvalidFile:
        return True
    return False


def test_a_sealed_file_may_hold_a_compressed_one_and_a_plain_file_stays_readable(tmp_path):
    path = kept(tmp_path / "file", gzip.compress(b"row\n" * 50_000))
    with open_kept(path) as file:
        assert gzip.GzipFile(fileobj=file).read() == b"row\n" * 50_000
    plain = tmp_path / "plain"
    plain.write_bytes(b"dqf1")
    with open_kept(plain) as file:
        assert file.read() == b"dqf1"
