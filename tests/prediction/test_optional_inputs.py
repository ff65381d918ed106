"""Inputs that may be left out, as in DSPy: of a type that allows None, or with a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from dspyq.batch.files.source import open_source
from dspyq.config.codec import find_type_faults
from dspyq.config.programs import Program
from dspyq.config.signature import SignatureError, parse_signature
from dspyq.errors import InvalidInputs
from dspyq.prediction.contract import Contract

VARIANT = {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}}


def program(signature: str) -> Program:
    return Program(name="p", signature=signature, variants=VARIANT)


def sent(signature: str, **inputs: Any) -> Any:
    return orjson.loads(Contract(program(signature)).canonical(inputs))


@pytest.mark.parametrize(
    "type_text",
    [
        "str | None",
        "None | str",
        "Optional[str]",
        "typing.Optional[str]",
        "Union[str, None]",
        "Union[int, Optional[str]]",
        "list[str] | None",
        "int | Optional[date]",
    ],
)
def test_an_input_whose_type_allows_none_may_be_left_out_and_is_another_question_than_none(type_text: str) -> None:
    signature = f"question, hint: {type_text} -> answer"
    assert sent(signature, question="x") == {"question": "x"}
    assert sent(signature, question="x", hint=None) == {"question": "x", "hint": None}


@pytest.mark.parametrize("type_text", ["str", "list[str | None]", "dict[str, None]", "Literal['None']"])
def test_an_input_whose_type_does_not_allow_none_must_be_given(type_text: str) -> None:
    with pytest.raises(InvalidInputs, match="hint is missing"):
        sent(f"question, hint: {type_text} -> answer", question="x")


@pytest.mark.parametrize(
    ("stated", "value"),
    [
        ("hint: str = 'none'", "none"),
        ("hint = 'none'", "none"),
        ("count: int = 3", 3),
        ("count: int = -3", -3),
        ("flag: bool = False", False),
        ("hint: str | None = 'a'", "a"),
        ("hint: str | None = None", None),
        ("tags: list[str] = ['a']", ["a"]),
        ("by: dict[str, int] = {'a': 1}", {"a": 1}),
        ("mood: Literal['a', 'b'] = 'b'", "b"),
    ],
)
def test_an_input_with_a_default_is_left_out_or_given_the_same_question(stated: str, value: Any) -> None:
    name = stated.replace(":", " ").split()[0]
    signature = f"{stated}, question -> answer"
    assert (
        sent(signature, question="x")
        == sent(signature, question="x", **{name: value})
        == {"question": "x", name: value}
    )


def test_a_default_is_part_of_the_version() -> None:
    versions = {program(f"question, hint: str = {default} -> answer").fingerprints["a"] for default in ("'a'", "'b'")}
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("question -> answer: str = 'x'", "gives an output a default"),
        ("hint: str = nowhere -> answer", "has the default nowhere, which is no JSON value"),
        ("at: date = date.min -> answer", "has the default date.min, which is no JSON value"),
        ("ratio: float = 1e999 -> answer", "which is no JSON value"),
    ],
)
def test_a_default_that_no_json_carries_is_refused(text: str, fault: str) -> None:
    with pytest.raises(SignatureError, match=fault):
        parse_signature(text)


@pytest.mark.parametrize("stated", ["count: int = 'x'", "hint: str = None"])
def test_a_default_that_does_not_fit_its_type_is_refused(stated: str) -> None:
    with pytest.raises(InvalidInputs, match="is of the wrong type"):
        sent(f"question, {stated} -> answer", question="x")
    (fault,) = find_type_faults(program(f"question, {stated} -> answer"))
    assert fault.endswith("is of another type")


def test_a_csv_file_may_lack_the_columns_of_inputs_that_may_be_left_out(tmp_path: Path) -> None:
    served = program("question, hint: str | None, tone: str = 'dry' -> answer")

    def read(text: str) -> list[dict[str, Any] | None]:
        (tmp_path / "in.csv").write_text(text)
        source = open_source(tmp_path / "in.csv", spool=tmp_path / "spool")
        return [row.inputs for row in source.rows(served)]

    assert read("question\none\ntwo\n") == [{"question": "one"}, {"question": "two"}]
    assert read("question,hint\none,\ntwo,x\n") == [
        {"question": "one", "hint": None},
        {"question": "two", "hint": "x"},
    ]
