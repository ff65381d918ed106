"""Inputs are checked before anything is sent, and hashed to one key however they are written."""

import pytest

from dspyq.config.settings import load_settings
from dspyq.errors import InputsTooLarge, InvalidInputs, UnknownProgram, UnknownVariant

pytestmark = pytest.mark.usefixtures("configured")


def build(inputs, **options):
    from dspyq.prediction.request import build_request

    return build_request(inputs, **options)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, "question is missing"),
        ({"quesion": "x"}, r"quesion is unknown \(did you mean question\?\)"),
        ({"question": 3}, "question is of the wrong type"),
        ({"question": None}, "question is of the wrong type"),
        ({"question": "half a pair \ud800"}, "not JSON"),
        ({"question": object()}, "not JSON"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_their_field(inputs, reason):
    with pytest.raises(InvalidInputs, match=reason):
        build(inputs)


def test_the_refusal_quotes_no_value():
    with pytest.raises(InvalidInputs) as raised:
        build({"question": ["my secret"], "other": "my secret"})
    assert "my secret" not in str(raised.value)


def test_inputs_that_are_too_large_are_refused_with_the_setting():
    with pytest.raises(InputsTooLarge, match=r"programs\.qa\.max_input_bytes"):
        build({"question": "x" * 5_000_000})


def test_unknown_programs_and_variants_are_refused_with_the_nearest():
    with pytest.raises(UnknownProgram, match=r"no program 'qqa' \(did you mean qa\?\)"):
        build({"question": "x"}, program="qqa")
    with pytest.raises(UnknownVariant, match=r"no variant 'contrl' \(did you mean control\?\)"):
        build({"question": "x"}, variant="contrl")


def test_the_key_does_not_depend_on_how_the_inputs_are_written():
    first, second = build({"question": "é"}), build({"question": "\u00e9"})
    assert first.input_hash == second.input_hash
    assert first.request_id != second.request_id


def test_other_inputs_have_another_key():
    assert build({"question": "a"}).input_hash != build({"question": "a "}).input_hash


def test_the_order_of_fields_does_not_matter(run_producer, settings_file):
    path = settings_file({"programs": {"qa": {"signature": "a: int, b: list[str] -> answer"}}})

    def hashes():
        from dspyq.prediction.request import build_request

        first = build_request({"a": 2**63 - 1, "b": ["x", ""]})
        second = build_request({"b": ["x", ""], "a": 2**63 - 1})
        return [first.input_hash, second.input_hash, first.inputs["a"]]

    first, second, number = run_producer(hashes, path)
    assert first == second
    assert number == 2**63 - 1


def test_json_forms_of_dates_and_models_are_taken(run_producer, settings_file):
    path = settings_file({"programs": {"qa": {"signature": "day: date, note: Any -> answer"}}})

    def inputs():
        import datetime

        from dspyq.prediction.request import build_request

        day = datetime.date(2026, 11, 24)
        text, value = build_request({"day": "2026-11-24", "note": 1}), build_request({"day": day, "note": 1})
        return [text.input_hash == value.input_hash, value.inputs]

    assert run_producer(inputs, path) == [True, {"day": "2026-11-24", "note": 1}]


def test_numbers_that_json_has_no_form_for_are_refused(run_producer, settings_file):
    path = settings_file({"programs": {"qa": {"signature": "x: float, note: Any -> answer"}}})

    def refused():
        from dspyq.errors import InvalidInputs
        from dspyq.prediction.request import build_request

        count = 0
        for inputs in ({"x": float("nan"), "note": 1}, {"x": 1.0, "note": {"deep": [float("inf")]}}):
            try:
                build_request(inputs)
            except InvalidInputs:
                count += 1
        return count

    assert run_producer(refused, path) == 2


def test_a_program_is_named_where_there_are_several(run_producer, settings_file):
    other = {"signature": "text -> label", "variants": {"control": {"model": "control"}}}
    path = settings_file({"programs": {"other": other}})

    def ask():
        from dspyq.errors import UnknownProgram
        from dspyq.prediction.request import build_request

        try:
            build_request({"question": "x"})
        except UnknownProgram as error:
            return str(error)

    assert run_producer(ask, path) == "say which program, with program=: qa, other"
    assert load_settings(path).programs.keys() == {"qa", "other"}
