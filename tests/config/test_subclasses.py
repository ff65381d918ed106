"""Instances of subclasses where a field states their base, and types whose own code raises."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dspyq.config.codec import decode_inputs, decode_outputs, encode_outputs, probe_values
from dspyq.config.programs import Program
from dspyq.errors import InvalidInputs, InvalidOutputs
from dspyq.prediction.contract import Contract
from tests.programs import value_types as t

T = "tests.programs.value_types"
VARIANT = {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}}
SUB = t.Child(a=1, b="x")
BASE = t.Parent(a=1)
CASES = [
    (f"{T}.Parent", SUB, BASE),
    (f"list[{T}.Parent]", [SUB, BASE], [BASE, BASE]),
    (f"dict[str, {T}.Parent | None]", {"k": SUB, "n": None}, {"k": BASE, "n": None}),
    (f"tuple[{T}.Parent, int]", (SUB, 1), (BASE, 1)),
    (f"{T}.Parent | {T}.Child", SUB, SUB),
    (f"{T}.Holder", t.Holder(held=SUB), t.Holder(held=BASE)),
    (f"{T}.Point", t.NamedPoint(1, "p"), t.Point(1)),
    (f"{T}.Doubling", t.MoreDoubling.model_construct(a=2, b=3), t.Doubling.model_construct(a=2)),
]


def program(signature: str) -> Program:
    return Program(name="p", signature=signature, variants=VARIANT)


@pytest.mark.parametrize(("type_text", "value", "arrives"), CASES)
def test_an_instance_of_a_subclass_arrives_as_the_stated_class_as_pydantic_writes_it(
    type_text: str, value: Any, arrives: Any
) -> None:
    asked = program(f"value: {type_text} -> answer")
    sent = Contract(asked).canonical({"value": value})
    arrived = decode_inputs(asked, orjson.loads(sent))["value"]
    assert (type(arrived), arrived) == (type(arrives), arrives)
    assert sent == Contract(asked).canonical({"value": arrives})
    served = program(f"question -> answer: {type_text}")
    encoded = encode_outputs(served, {"answer": value})
    assert decode_outputs(served, encoded.plain, encoded.exact) == {"answer": arrives}


def test_a_serializer_that_raises_stops_no_value_whose_fields_can_be_carried() -> None:
    served = program(f"question -> answer: {T}.RaisesWhenWritten")
    value = t.RaisesWhenWritten(a=1)
    encoded = encode_outputs(served, {"answer": value})
    assert decode_outputs(served, encoded.plain, encoded.exact) == {"answer": value}


def test_a_validator_that_raises_anything_is_an_error_of_ours_on_both_sides() -> None:
    asked = program(f"value: {T}.RaisesWhenRead -> answer: {T}.RaisesWhenRead")
    with pytest.raises(InvalidInputs, match="a validator raised ZeroDivisionError"):
        Contract(asked).canonical({"value": {"a": 0}})
    with pytest.raises(InvalidInputs, match="value: ZeroDivisionError"):
        decode_inputs(asked, {"value": {"a": 0}})
    with pytest.raises(InvalidOutputs, match="answer: ZeroDivisionError"):
        encode_outputs(asked, {"answer": {"a": 0}})


def test_a_default_value_that_cannot_be_carried_is_reported_by_the_check() -> None:
    (note,) = probe_values(program(f"question, value: list[{T}.OpaqueDefault] -> answer: {T}.Parent"))
    assert (
        "value: list[tests.programs.value_types.OpaqueDefault]: the default OpaqueDefault() cannot be carried" in note
    )
    assert list(probe_values(program(f"value: {T}.Tidy -> answer: {T}.Tidy"))) == []
