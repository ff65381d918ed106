"""The same question has one hash in every process, though Python orders sets by a seed of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

T = "tests.programs.value_types"
CODE = """
import json, sys
from dspyq.config.programs import Program
from dspyq.prediction.contract import Contract
from tests.programs import value_types as t
variant = {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}}
sent = {}
for signature, value in json.loads(sys.argv[1]):
    program = Program(name="p", signature=signature, variants=variant)
    sent[signature + value] = Contract(program).canonical({"value": eval(value)}).decode()
print(json.dumps(sent))
"""
QUESTIONS = [
    ("value: set[str] -> answer", "{'a', 'b', 'c', 'd', 'e'}"),
    ("value: frozenset[str] -> answer", "frozenset('abcde')"),
    ("value: list[set[str]] -> answer", "[set('abcde'), {'x', 'y', 'z'}]"),
    ("value: dict[str, set[str]] -> answer", "{'b': set('abcde'), 'a': set()}"),
    ("value: set[frozenset[str]] -> answer", "{frozenset('abc'), frozenset('defg'), frozenset('h')}"),
    ("value: set[tuple[str, int]] -> answer", "{('a', 1), ('b', 2), ('c', 3)}"),
    (
        f"value: {T}.Labelled -> answer",
        "t.Labelled(tags=set('abcde'), inner=t.LabelledInside(names=frozenset('fghi')))",
    ),
    (f"value: list[{T}.LabelledInside] -> answer", "[t.LabelledInside(names=frozenset('abcde'))]"),
    (f"value: {T}.LabelledExactly -> answer", "t.LabelledExactly(tags=set('abcde'))"),
    ("value: Any -> answer", "[{'a', 'b', 'c', 'd'}, t.LabelledInside(names=frozenset('abcde'))]"),
]


@pytest.fixture(scope="module")
def sent() -> list[dict[str, str]]:
    """The inputs that three processes of different seeds send."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps(QUESTIONS)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2", "3")
    ]
    return [json.loads(process.communicate(timeout=60)[0]) for process in processes]


@pytest.mark.parametrize(("signature", "value"), QUESTIONS)
def test_a_question_with_sets_is_sent_alike_by_every_process(
    sent: list[dict[str, str]], signature: str, value: str
) -> None:
    assert len({each[signature + value] for each in sent}) == 1


def test_a_value_with_sets_still_arrives_equal(sent: list[dict[str, str]]) -> None:
    assert json.loads(sent[0]["value: set[str] -> answer{'a', 'b', 'c', 'd', 'e'}"]) == {"value": list("abcde")}
