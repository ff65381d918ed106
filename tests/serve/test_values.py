"""Schemas of fields, and whole numbers as they have them."""

import pytest

from dspyq.serve.values import OF_INPUTS, SchemaForm, fields_schema, whole_numbers

SIGNATURE = (
    "count: int, share: float, either: int | float, maybe: int | None, rows: dict[str, list[int]], "
    'pair: tuple[int, float], note: str = "none" -> answer: str, score: int'
)


@pytest.fixture
def program(configure, settings_file):
    return configure(settings_file({"programs": {"qa": {"signature": SIGNATURE}}})).programs["qa"]


def test_a_whole_number_is_an_integer_where_the_field_has_integers(program):
    inputs = {
        "count": 2.0, "share": 2.0, "either": 2.0, "maybe": 3.0, "rows": {"a": [1.0, 2.5]}, "pair": [4.0, 4.0],
        "note": "2.0", "unknown": 5.0,
    }  # fmt: skip
    found = whole_numbers(program.name, inputs)
    assert repr(found) == repr(
        {
            "count": 2, "share": 2.0, "either": 2.0, "maybe": 3, "rows": {"a": [1, 2.5]}, "pair": [4, 4.0],
            "note": "2.0", "unknown": 5.0,
        }
    )  # fmt: skip


@pytest.mark.parametrize("value", [2.5, 2.0**64, -(2.0**63), 1e300, True, None, "2"])
def test_what_is_no_whole_number_of_64_bits_stays(program, value):
    assert repr(whole_numbers(program.name, {"count": value})) == repr({"count": value})


def test_a_program_s_schema_has_its_fields_and_no_others(program):
    schema = fields_schema(program, OF_INPUTS)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"count", "share", "either", "rows", "pair"}
    assert schema["properties"]["count"] == {
        "title": "Count", "type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1,
    }  # fmt: skip
    assert schema["properties"]["note"]["default"] == "none"
    outputs = fields_schema(program, SchemaForm(is_of_outputs=True))
    assert set(outputs["required"]) == {"answer", "score"}


def test_types_of_dspy_and_of_modules_that_are_not_here_are_open(configure, settings_file):
    signature = "image: dspy.Image, place: nowhere.Place -> answer: str"
    program = configure(settings_file({"programs": {"qa": {"signature": signature}}})).programs["qa"]
    properties = fields_schema(program, OF_INPUTS)["properties"]
    assert [set(properties[name]) - {"title"} for name in ("image", "place")] == [set(), set()]
