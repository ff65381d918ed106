"""Parsers of messages, results, headers, tokens, envelopes, bodies and files, on mutations of what they read well.

The long form is `python -m tests.fuzz --minutes 60`; findings go into ``corpus/``, as ``<target>-<name>.b64``.
"""

import subprocess
import sys

import pytest

from tests.fuzz.run import corpus, fuzz
from tests.fuzz.targets import Target, targets
from tests.support.processes import REPOSITORY

NAMES = (
    *("result", "message", "request", "header", "envelope", "token", "ids", "body", "chat", "headers", "address"),
    *("jsonl", "csv", "parquet"),
)
FILES = {"jsonl", "csv", "parquet"}


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_takes_anything_or_raises_an_error_of_ours(configured, name):
    del configured
    target = targets()[name]
    tried, findings = fuzz(name, target, 1, inputs=30 if name in FILES else 300)
    assert tried == (30 if name in FILES else 300)
    assert not findings, findings[0]


def test_every_parser_is_tried(configured):
    del configured
    assert targets().keys() == set(NAMES)


@pytest.mark.parametrize("fault", [KeyError("a"), RecursionError("deep")])
def test_a_fault_of_a_parser_is_found(fault):
    def read(text):
        if b"\0" in text:
            raise fault

    _, findings = fuzz("faulty", Target([b'{"a": 1}'], read), 1, inputs=3_000)
    assert findings
    assert b"\0" in findings[0].text
    assert corpus("faulty") == []


@pytest.mark.long
@pytest.mark.timeout(300)
def test_parsers_stand_two_minutes():
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "2"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
