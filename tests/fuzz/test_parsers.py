"""Parsers of messages, results, headers, tokens, envelopes, bodies and files, on mutations of what they read well.

The long form is `python -m tests.fuzz --minutes 60`. ``corpus/<target>/`` has messages, results, headers, tokens and
files of real runs; findings go into ``corpus/`` beside them, as ``<target>-<name>.b64``.
"""

import subprocess
import sys

import pytest

from tests.fuzz.run import corpus, fuzz
from tests.fuzz.targets import Target, targets
from tests.support.processes import REPOSITORY

NAMES = (
    *("result", "message", "request", "header", "envelope", "token", "ids", "body", "chat", "headers", "address"),
    "signature",
    *("jsonl", "csv", "parquet"),
)
FILES = {"jsonl", "csv", "parquet"}
CORPUS = REPOSITORY / "tests" / "fuzz" / "corpus"
#: Files of the corpus that their parsers are to refuse; all others are read.
REFUSED = {
    "envelope": {"cut.bin", "moved.bin", "plain.json", "unknown-key.bin"},
    "token": {"of-another-fleet.txt"},
    "body": {"unknown-member.json"},
    "chat": {"tools.json"},
    "signature": {"broken.txt", "import.txt", "signature-deep.b64"},
    "csv": {"semicolons.csv"},
    "parquet": {"cut.parquet"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_takes_anything_or_raises_an_error_of_ours(configured, name):
    del configured
    target = targets()[name]
    tried, findings = fuzz(name, target, 1, inputs=30 if name in FILES else 300)
    assert tried == (30 if name in FILES else 300)
    assert not findings, findings[0]


@pytest.mark.parametrize("name", NAMES)
def test_each_file_of_the_corpus_is_tried_and_is_read_or_refused_by_an_error_of_ours(configured, name):
    del configured
    target, files, tried = targets()[name], corpus(name), []

    def run(text):
        tried.append(text)
        return target.run(text)

    assert len(files) >= 2
    _, findings = fuzz(name, target._replace(run=run), 1, inputs=len(target.seeds) + len(files))
    assert tried == [*target.seeds, *files.values()]
    assert not findings, findings[0]
    assert max(map(len, files.values())) < 8_192
    refused = {file for file, text in files.items() if is_refused(target, text)}
    assert refused == REFUSED.get(name, set())


def is_refused(target, text):
    try:
        target.run(text)
    except target.allowed:
        return True
    return False


def test_every_file_of_the_corpus_is_a_targets():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {name for of in NAMES for name in corpus(of)}


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
    assert corpus("faulty") == {}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_parsers_stand_two_minutes():
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "2"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
