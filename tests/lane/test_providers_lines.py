"""Lines of results of any content, and shipments of tens of thousands of lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.lane.providers.protocol import LineOutcome, RemoteLine
from dspyq.lane.providers.results import (
    read_anthropic_line,
    read_count,
    read_gemini_line,
    read_json,
    read_openai_line,
    read_time,
)
from tests.lane.body_forms import DIALECTS
from tests.lane.provider_support import access_to
from tests.support.endpoint import Endpoint

ROOT = Path(__file__).parents[2]
MEBI = 1024 * 1024
PATIENCE_SECONDS = 600


def read_gemini(line: bytes) -> RemoteLine:
    return read_gemini_line(read_json(line), line)


READERS = {"openai": read_openai_line, "anthropic": read_anthropic_line, "gemini": read_gemini}
#: Values of any JSON type, under the names that readers look for.
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from([
    "custom_id", "key", "metadata", "response", "status_code", "body", "error", "code", "type", "message", "result",
    "usage", "usageMetadata", "succeeded", "errored", "status", "choices",
])  # fmt: skip
WORDS = LEAVES | st.sampled_from(
    ["succeeded", "errored", "expired", "canceled", "batch_expired", "a-1", "200", 200, 500]
)
VALUES = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)
ENTRIES = st.dictionaries(NAMES, VALUES, max_size=6)


def check(line: RemoteLine) -> None:
    """Every outcome has what the lane relies on."""
    assert isinstance(line.custom_id, str)
    if line.outcome is LineOutcome.ANSWERED:
        assert line.status == 200
        assert line.body
        assert line.custom_id
    if line.outcome is LineOutcome.FAILED:
        assert line.status is not None
        assert 400 <= line.status < 500
    assert line.usage is None or (isinstance(line.usage, dict) and line.usage)
    assert line.code.isascii()
    assert len(line.code) <= 64


@pytest.mark.property
@pytest.mark.parametrize("protocol", READERS)
@given(line=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_of_any_kind_are_a_line_that_cannot_be_read(protocol: str, line: bytes) -> None:
    found = READERS[protocol](line)
    check(found)
    assert found.outcome is LineOutcome.UNREADABLE


@pytest.mark.property
@pytest.mark.parametrize("protocol", READERS)
@given(entry=ENTRIES)
def test_any_json_is_a_line_with_an_outcome(protocol: str, entry: dict[str, Any]) -> None:
    check(READERS[protocol](json.dumps(entry).encode()))


@pytest.mark.property
@pytest.mark.parametrize("protocol", READERS)
@given(cut=st.integers(min_value=0, max_value=400), body=ENTRIES)
def test_a_line_that_is_cut_is_unreadable_and_keeps_its_id_if_that_was_whole(
    protocol: str, cut: int, body: dict[str, Any]
) -> None:
    entries = {
        "openai": {"custom_id": "abc-1-1-x", "response": {"status_code": 200, "body": {"choices": [body]}}},
        "anthropic": {"custom_id": "abc-1-1-x", "result": {"type": "succeeded", "message": {"content": [body]}}},
        "gemini": {"key": "abc-1-1-x", "response": {"candidates": [body]}},
    }
    whole = json.dumps(entries[protocol]).encode()
    assert READERS[protocol](whole).outcome is LineOutcome.ANSWERED
    found = READERS[protocol](whole[: min(cut, len(whole) - 1)])
    check(found)
    assert found.outcome is LineOutcome.UNREADABLE
    assert found.custom_id == ("abc-1-1-x" if cut > whole.index(b"abc-1-1-x") + 9 else "")


@given(value=LEAVES | st.lists(LEAVES, max_size=2))
def test_times_and_counts_of_any_kind_are_read(value: Any) -> None:
    assert read_count(value) >= 0
    assert isinstance(read_time(value), float | None)


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        (3, 400, LineOutcome.FAILED),
        (5, 404, LineOutcome.FAILED),
        (8, 429, LineOutcome.UNANSWERED),
        (14, 503, LineOutcome.UNANSWERED),
        (1, None, LineOutcome.UNANSWERED),
        (400, 400, LineOutcome.FAILED),
        (503, 503, LineOutcome.UNANSWERED),
        (None, 500, LineOutcome.UNANSWERED),
    ],
)
def test_codes_of_google_stand_for_statuses(code: int | None, status: int | None, outcome: LineOutcome) -> None:
    found = read_gemini(json.dumps({"key": "a", "error": {"code": code, "message": "no"}}).encode())
    assert (found.status, found.outcome) == (status, outcome)


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        ({"response": None, "error": {"code": "batch_expired", "message": ""}}, LineOutcome.UNANSWERED),
        ({"response": None, "error": {"code": "batch_cancelled", "message": ""}}, LineOutcome.UNANSWERED),
        ({"response": None, "error": {"code": "model_not_found", "message": ""}}, LineOutcome.FAILED),
        ({"response": None, "error": {"code": "something_new", "message": ""}}, LineOutcome.UNANSWERED),
        ({"response": None, "error": None}, LineOutcome.UNANSWERED),
        ({"response": {"status_code": 200, "body": None}}, LineOutcome.UNREADABLE),
        ({"response": {"status_code": 401, "body": {"error": {}}}}, LineOutcome.UNANSWERED),
        ({"response": {"status_code": 413, "body": "<html>"}}, LineOutcome.FAILED),
    ],
)
def test_errors_without_a_status_are_read_by_their_code(entry: dict[str, Any], outcome: LineOutcome) -> None:
    assert read_openai_line(json.dumps({"custom_id": "a", **entry}).encode()).outcome is outcome


def send(endpoint: Endpoint, protocol: str, count: int) -> dict[str, int]:
    """Send a shipment in a process of its own and return its figures."""
    base_url = access_to(endpoint, protocol).base_url
    command = [sys.executable, "-m", "tests.lane.large_shipment", protocol, base_url, str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    sys.stdout.write(f"{protocol} {count} lines: {done.stdout}")
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("protocol", DIALECTS)
def test_two_thousand_lines_go_and_come_as_streams(endpoint: Endpoint, protocol: str) -> None:
    figures = send(endpoint, protocol, 2_000)
    assert figures["answered"] == 2_000
    assert figures["peak_bytes"] < 200 * MEBI
    assert endpoint.batches.counts().lines_billed == 2_000


@pytest.mark.long
@pytest.mark.timeout(PATIENCE_SECONDS)
@pytest.mark.parametrize("protocol", DIALECTS)
def test_fifty_thousand_lines_need_no_more_memory_than_a_few(endpoint: Endpoint, protocol: str) -> None:
    small = send(endpoint, protocol, 10)
    figures = send(endpoint, protocol, 50_000)
    assert figures["answered"] == 50_000
    assert figures["sent_bytes"] > 50 * MEBI
    assert figures["peak_bytes"] < 200 * MEBI
    assert figures["peak_bytes"] < small["peak_bytes"] + 30 * MEBI
    assert endpoint.batches.counts().lines_billed == 50_010
