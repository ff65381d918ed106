"""Inputs are checked before anything is sent, and hashed to one key however they are written."""

import dataclasses

import pydantic
import pytest

from dspyq.config.settings import load_settings
from dspyq.core.runtime import DEFAULT
from dspyq.errors import InputsTooLarge, InvalidInputs, InvalidOption, UnknownProgram, UnknownVariant

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

    assert run_producer(ask, path) == "name a program with program=: qa, other"
    assert load_settings(path).programs.keys() == {"qa", "other"}


def nested(levels):
    value = "x"
    for _ in range(levels - 1):  # the inputs' own dict is one
        value = [value]
    return value


def refused(call):
    from dspyq.errors import DspyqError

    try:
        call()
    except DspyqError as error:
        return [type(error).__name__, str(error)]
    return None


def test_inputs_may_nest_to_the_stated_depth_and_no_deeper(run_producer, settings_file):
    def ask():
        from dspyq.core.depth import MOST_DEPTH
        from dspyq.prediction.request import build_request
        from tests.prediction.test_request import nested, refused

        cyclic = []
        cyclic.append(cyclic)
        keys = {"question": {1: "x"}}
        build_request({"question": nested(MOST_DEPTH)})
        deep = [
            refused(lambda levels=levels: build_request({"question": nested(levels)}))
            for levels in (201, 253, 300, 5000)
        ]
        others = [
            refused(lambda value=value: build_request({"question": value}))
            for value in (2**70, float("nan"), "\ud800", [2**70])
        ]
        return [
            deep,
            refused(lambda: build_request({"question": cyclic})),
            refused(lambda: build_request(keys)),
            others,
        ]

    path = settings_file({"programs": {"qa": {"signature": "question: Any -> answer"}}})
    deep, cyclic, keys, others = run_producer(ask, path)
    assert [kind for kind, _ in (*deep, cyclic, keys, *others)] == ["InvalidInputs"] * 10
    assert all("nest deeper than 200 levels" in text for _, text in (*deep, cyclic))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"request_id": "x" * 257}, "request_id has 257 characters"),
        ({"request_id": "a\nb"}, "control character"),
        ({"request_id": "\ud800"}, "surrogate"),
        ({"unit": "x" * 5_000_000}, "unit has 5,000,000 characters"),
        ({"program": "x" * 5_000_000}, "there is no program"),
        ({"variant": "x" * 5_000_000}, "no variant"),
        ({"variant": ["x"]}, "no variant"),
    ],
)
def test_what_goes_into_messages_and_logs_is_bounded(options, reason, configured):
    del configured
    kind, text = refused(lambda: build({"question": "q"}, **options))
    assert kind in {"InvalidOption", "UnknownProgram", "UnknownVariant"}
    assert reason in text
    assert len(text) < 400


def test_a_request_id_of_others_that_is_too_long_fails_nothing(configured):
    del configured
    from dspyq.tracing.propagation import request_context

    with request_context({"X-Request-ID": "x" * 5_000_000}):
        assert len(build({"question": "q"}).request_id) == 32


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda predict: predict.delay(question="q", program="qa"), r"predict.apply_async\(kwargs=\{…\}, program=…\)"),
        (lambda predict: predict.delay(question="q", countdown=3), "countdown=…"),
        (lambda predict: predict.apply_async({"question": "q"}), r"apply_async\(kwargs=\{…\}\)"),
        (lambda predict: predict.apply_async("q"), "inputs are passed by name"),
        (lambda predict: predict.apply_async({"question"}), "inputs are passed by name"),
    ],
)
def test_a_wrong_turn_of_calling_names_the_right_one(call, reason, predict):
    from dspyq.errors import InvalidInputs

    with pytest.raises(InvalidInputs, match=reason):
        call(predict)


@pytest.mark.parametrize(
    "name", ["self", "config", "lm", "demos", "signature", "new_signature", "completions", "reasoning"]
)
def test_input_names_that_dspy_uses_itself_are_refused_at_start(name, settings_file):
    from dspyq.config.settings import load_settings
    from dspyq.errors import ConfigurationError

    module = "ChainOfThought" if name == "reasoning" else "Predict"
    path = settings_file({"programs": {"qa": {"signature": f"{name} -> answer", "module": module}}})
    with pytest.raises(ConfigurationError, match=f"DSPy itself uses the input names {name}"):
        load_settings(path)


def test_headers_pass_over_what_is_newer_and_refuse_what_is_missing():
    from dspyq.errors import InvalidRequest
    from dspyq.prediction.header import Header

    header = Header("qa", "control", "f", "h", "r", refresh=False, is_claimed=True)
    assert Header.read({**header._asdict(), "newer": 1}) == header
    for stated in (
        None,
        [],
        {},
        {"program": "qa"},
        {**header._asdict(), "refresh": 1},
        {**header._asdict(), "batch": None},
    ):
        with pytest.raises(InvalidRequest, match="header that this worker cannot read"):
            Header.read(stated)


@dataclasses.dataclass
class Reading:
    value: float


class Measured(pydantic.BaseModel):
    value: float


@pytest.mark.parametrize("kind", [Reading, lambda value: {value}, lambda value: Measured(value=value)])
def test_what_is_no_number_is_found_within_dataclasses_sets_and_models(kind, settings_file, monkeypatch):
    monkeypatch.setenv(
        "DSPYQ_CONFIG", str(settings_file({"programs": {"qa": {"signature": "note: Any, n: Any -> answer"}}}))
    )
    with DEFAULT.emptied():
        assert build({"note": [kind(1.5)], "n": None}).inputs["n"] is None
        with pytest.raises(InvalidInputs, match="NaN or infinity"):
            build({"note": [kind(float("nan"))], "n": None})


def test_an_option_that_there_is_not_is_refused(predict):
    with pytest.raises(TypeError, match="no option varaint"):
        build({"question": "q"}, varaint="control")
    with pytest.raises(InvalidOption, match="many has no option 'request_id': it takes priority, program"):
        predict.many([{"question": "q"}], request_id="mine")


def test_a_type_that_pydantic_cannot_build_is_refused_in_one_line(run_producer, settings_file):
    path = settings_file({"programs": {"qa": {"signature": "thing: tests.programs.sample_types.NotData -> answer"}}})

    def refusal():
        from dspyq.errors import ConfigurationError
        from dspyq.prediction.request import build_request

        try:
            build_request({"thing": 1})
        except ConfigurationError as error:
            return str(error)

    refused_with = run_producer(refusal, path)
    assert refused_with.startswith("programs.qa.signature: thing: ")
    assert refused_with.endswith(
        "NotData is no pydantic model, dataclass, enum or named tuple, so pydantic cannot build it; "
        "state one of those, or leave it out of the type"
    )
