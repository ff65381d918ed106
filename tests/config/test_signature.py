"""Signatures are read from their text, with the types they state."""

import datetime
from typing import Literal

import pytest

from dspyq.config.signature import SignatureError, parse_signature


def types(text):
    signature = parse_signature(text)
    return {field.name: field.resolve() for field in (*signature.inputs, *signature.outputs)}


def test_a_field_without_a_type_is_text():
    assert types("question -> answer") == {"question": str, "answer": str}


def test_types_resolve_to_pythons_own():
    assert types("a: list[str], b: dict[str, int] -> c: Literal['x', 'y'], d: Optional[date], e: int | None") == {
        "a": list[str],
        "b": dict[str, int],
        "c": Literal["x", "y"],
        "d": datetime.date | None,
        "e": int | None,
    }


def test_types_of_ones_own_are_imported_by_their_path():
    assert types("a -> b: dspyq.config.programs.Model")["b"].__name__ == "Model"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("question", "exactly one '->'"),
        ("a -> b -> c", "exactly one '->'"),
        (" -> answer", "at least one input and one output"),
        ("question -> ", "at least one input and one output"),
        ("a, a -> b", "names a more than once"),
        ("a -> a", "names a more than once"),
        ("a: Verdict -> b", r"write types of your own by their dotted path \(mypackage.types.Verdict\)"),
        ("a: 1 + 1 -> b", "not a type"),
        ("a b -> c", "does not read as"),
        ("a, *, b -> c", "takes names, types and defaults only"),
        ("a, /, b -> c", "takes names, types and defaults only"),
        ("a -> c='x'", "gives an output a default"),
        ("a, *b -> c", "takes names, types and defaults only"),
        ("a, **b -> c", "takes names, types and defaults only"),
        (f"a: {300 * chr(91)} -> b", "too deeply|does not read as"),
    ],
)
def test_what_is_no_signature_is_refused_with_its_reason(text, reason):
    with pytest.raises(SignatureError, match=reason):
        parse_signature(text)


def test_a_path_that_does_not_import_raises_when_it_is_needed():
    (field,) = parse_signature("a -> b: nowhere.types.Thing").outputs
    with pytest.raises(SignatureError, match=r"nowhere\.types\.Thing does not import"):
        field.resolve()


@pytest.mark.parametrize(
    "text", ["str", "list[int]", "dict[str, float]", "Literal['2026-01-01']", "bool | None", "Any"]
)
def test_json_types_need_nothing_rebuilt(text):
    assert parse_signature(f"a -> b: {text}").outputs[0].is_json


@pytest.mark.parametrize(
    "text",
    [
        "date",
        "tuple[int, int]",
        "set[str]",
        "dict[int, str]",
        "list[str] | list[dict[int, str]]",
        "Literal[b'x']",
        "dspyq.config.programs.Model",
    ],
)
def test_other_types_are_rebuilt(text):
    assert not parse_signature(f"a -> b: {text}").outputs[0].is_json
