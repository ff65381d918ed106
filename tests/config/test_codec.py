from __future__ import annotations

import datetime
import functools
import json
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspyq.config.codec import decode_inputs, decode_outputs, encode_outputs, find_open_types, find_type_faults
from dspyq.config.programs import Program
from dspyq.core.depth import MOST_DEPTH
from dspyq.errors import InvalidInputs, InvalidOutputs, NotAPrediction
from tests.prediction.test_request import Measured, Reading
from tests.programs.sample_types import Corner, Level, Mood, NotData, Span, Verdict
from tests.properties.profiles import examples

REQUESTS = "tests.prediction.test_request"
TYPES = "tests.programs.sample_types"
DAY = datetime.date(2024, 2, 29)
VARIANT = {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}}


def program(signature: str) -> Program:
    return Program.model_validate({"name": "p", "signature": signature, "variants": VARIANT})


def through_json(type_text: str, value: Any) -> Any:
    """The values that a producer reads of what a program returned."""
    served = program(f"question -> answer: {type_text}")
    plain, exact = encode_outputs(served, {"answer": value})
    return decode_outputs(served, orjson.loads(orjson.dumps(plain)), orjson.loads(orjson.dumps(exact)))["answer"]


@pytest.mark.parametrize(
    ("type_text", "value"),
    [
        ("str", "naïve \U0001f600\x00"),
        ("int", 2**63 - 1),
        ("int", -(2**63)),
        ("float", 0.1),
        ("float", -0.0),
        ("float", 1e300),
        ("bool", True),
        ("bytes", b"caf\xc3\xa9"),
        ("None | str", None),
        ("list[str]", []),
        ("dict[str, list[int]]", {"a": [1, 2], "": []}),
        ("dict[int, str]", {1: "one", -2: "two"}),
        ("dict[date, Decimal]", {DAY: Decimal("1.10")}),
        ("dict[bool, int]", {True: 1, False: 0}),
        ("tuple[int, str]", (1, "a")),
        ("tuple[date, ...]", (DAY, DAY)),
        ("set[UUID]", {uuid.UUID(int=7)}),
        ("date", DAY),
        ("datetime", datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.timezone(datetime.timedelta(hours=-9.5)))),
        ("datetime", datetime.datetime(1, 1, 1)),  # noqa: DTZ001 - a naive one must stay naive
        ("time", datetime.time(23, 59, 59, 999_999)),
        ("timedelta", datetime.timedelta(days=-1, microseconds=5)),
        ("Decimal", Decimal("0.10")),
        ("Decimal | float", 1.5),
        ("Decimal | int", Decimal("1.5")),
        ("UUID", uuid.UUID(int=2**127)),
        ("bool | int | float", 1.0),
        ("bool | int | float", 1),
        ("bool | int | float", True),
        ("date | None", DAY),
        ("Optional[datetime]", None),
        ('Literal["yes", "no", 3]', 3),
        ("Any", {"a": [1, None, {"b": 2.5}]}),
        (f"{TYPES}.Mood", Mood.CROSS),
        (f"{TYPES}.Level", Level.HIGH),
        (f"{TYPES}.Span", Span(1, 2, DAY)),
        (f"{TYPES}.Verdict", Verdict(label="a", score=0.5, mood=Mood.CROSS, price=Decimal("9.90"), spans=[Span(1, 2)])),
        (f"list[{TYPES}.Verdict] | None", [Verdict(label="a", score=1)]),
        (f"dict[{TYPES}.Mood, {TYPES}.Span]", {Mood.CALM: Span(0, 0)}),
        (f"{TYPES}.Span | {TYPES}.Verdict", Verdict(label="a", score=1)),
        (f"{TYPES}.Corner", Corner.ORIGIN),
        ("dict[tuple[int, int], int]", {(1, 2): 3}),
        ("set[int] | list[int]", {1}),
        ("date | str", DAY),
        ("bytes", b"\xff"),
    ],
)
def test_a_value_comes_out_of_json_equal_and_of_the_same_type(type_text: str, value: Any) -> None:
    decoded = through_json(type_text, value)
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("type_text", "value"),
    [
        ("float", math.nan),
        ("float", math.inf),
        ("list[float]", [1.0, -math.inf]),
        ("float | None", math.nan),
        ("Decimal", Decimal("NaN")),
        (f"{TYPES}.Verdict", Verdict(label="a", score=math.nan)),
        ("Any", {"a": math.nan}),
        ("Any", DAY),
        ("Any", (1, 2)),
        ("dict", {1: 2}),
        ("int", 2**64),
        ("int", -(2**63) - 1),
        ("str", "\ud800"),
        (f"{TYPES}.Picky", {"value": "never"}),
        ("str", 5),
        ("int", "five"),
        ("str", None),
        ('Literal["yes", "no"]', "maybe"),
    ],
)
def test_a_value_that_json_would_change_or_that_does_not_fit_is_refused(type_text: str, value: Any) -> None:
    with pytest.raises(InvalidOutputs, match="answer"):
        through_json(type_text, value)


def test_a_value_that_a_model_gave_as_text_is_taken_as_the_stated_type() -> None:
    assert through_json("date", "2024-02-29") == DAY
    assert through_json("date | str", "2024-02-29") == "2024-02-29"
    assert through_json(f"{TYPES}.Verdict", {"label": "a", "score": "0.5"}) == Verdict(label="a", score=0.5)


def nested(levels: int) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(levels), 1)


class Tree(pydantic.BaseModel):
    part: Tree | int = 1


def tree(levels: int) -> Tree:
    return functools.reduce(lambda inner, _: Tree.model_construct(part=inner), range(levels), Tree())


@pytest.mark.timeout(30)
def test_outputs_may_nest_to_the_stated_depth_and_no_deeper() -> None:
    assert through_json("Any", nested(MOST_DEPTH - 1)) == nested(MOST_DEPTH - 1)
    cyclic: list[Any] = []
    cyclic += [cyclic, cyclic]
    deep = {
        "Any": [nested(200), nested(300), nested(100_000), cyclic],
        f"{__name__}.Tree": [tree(200), tree(260), tree(800)],
    }
    for type_text, values in deep.items():
        for value in values:
            with pytest.raises(InvalidOutputs, match=r"^p returned outputs that nest deeper than 200 levels$"):
                through_json(type_text, value)


@pytest.mark.timeout(30)
def test_an_output_that_is_not_stated_and_nests_deeper_is_named_by_its_type() -> None:
    encoded = encode_outputs(program("question -> answer"), {"answer": "a", "unstated": tree(260)})
    assert encoded.plain["unstated"] == "a Tree that nests deeper than 200 levels"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("type_text", "kind"),
    [
        ("Any", Reading),
        ("Any", lambda value: {value}),
        ("Any", lambda value: Measured(value=value)),
        (f"{REQUESTS}.Reading", Reading),
        (f"{REQUESTS}.Measured", lambda value: Measured(value=value)),
        ("set[float]", lambda value: {value}),
        ("tuple[float, ...]", lambda value: (value,)),
    ],
)
def test_what_is_no_number_is_refused_in_outputs_and_kept_as_text_beside_them(
    type_text: str, kind: Callable[[float], Any], number: float
) -> None:
    with pytest.raises(InvalidOutputs, match="answer"):
        through_json(type_text, kind(number))
    encoded = encode_outputs(program("question -> answer"), {"answer": "a", "unstated": kind(number)})
    assert re.search('"-?(NaN|Infinity)"', json.dumps(encoded.plain["unstated"]))


Stated = tuple[str, st.SearchStrategy[Any]]

#: JSON's times state offsets in minutes; zones of a century ago have seconds, and are refused.
ZONES = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
#: Python holds a time that a clock shows twice, or leaves out, equal to none of another zone (PEP 495).
TIMES_OF_PLACES = st.datetimes(timezones=st.timezones()).filter(lambda at: at == at.astimezone(datetime.UTC))
SPANS = st.builds(Span, st.integers(0, 9), st.integers(0, 9), st.none() | st.dates())
KEYS: list[Stated] = [
    ("str", st.text(max_size=5)),
    ("int", st.integers(-(2**63), 2**63 - 1)),
    ("date", st.dates()),
    ("bool", st.booleans()),
    ("UUID", st.uuids()),
    (f"{TYPES}.Mood", st.sampled_from(Mood)),
    (f"{TYPES}.Level", st.sampled_from(Level)),
]
SAFE_SCALARS: list[Stated] = [
    *KEYS,
    ("float", st.floats(allow_nan=False, allow_infinity=False)),
    ("datetime", st.datetimes(timezones=st.none() | ZONES)),
    ("timedelta", st.timedeltas(datetime.timedelta(days=-10_000), datetime.timedelta(days=10_000))),
    ("time", st.times()),
    ("Decimal", st.decimals(allow_nan=False, allow_infinity=False)),
    (f"{TYPES}.Span", SPANS),
]
SCALARS: list[Stated] = [
    *SAFE_SCALARS,
    ("int", st.integers()),
    ("float", st.floats()),
    ("bytes", st.binary(max_size=5)),
    ("str", st.text(st.characters(), max_size=5)),
    ("datetime", TIMES_OF_PLACES),
    ("timedelta", st.timedeltas()),
    ("Decimal", st.decimals()),
    (f"{TYPES}.Corner", st.sampled_from(Corner)),
    (f"{TYPES}.Verdict", st.builds(Verdict, label=st.text(), score=st.floats(), spans=st.lists(SPANS, max_size=2))),
]


def union_of(one: Stated, other: Stated) -> Stated:
    return f"Union[{one[0]}, {other[0]}]", one[1] | other[1]


def containing(inner: st.SearchStrategy[Stated]) -> st.SearchStrategy[Stated]:
    """Types of one more level."""
    keys = st.sampled_from(KEYS)
    return st.one_of(
        inner.map(lambda part: (f"list[{part[0]}]", st.lists(part[1], max_size=3))),
        inner.map(lambda part: (f"tuple[{part[0]}, ...]", st.lists(part[1], max_size=3).map(tuple))),
        inner.map(lambda part: (f"Optional[{part[0]}]", st.none() | part[1])),
        keys.map(lambda key: (f"set[{key[0]}]", st.sets(key[1], max_size=3))),
        st.builds(
            lambda key, part: (f"dict[{key[0]}, {part[0]}]", st.dictionaries(key[1], part[1], max_size=3)), keys, inner
        ),
    )


SAFE_TYPES = st.recursive(st.sampled_from(SAFE_SCALARS), containing, max_leaves=4)
TYPES_OF_ALL_KINDS = st.recursive(
    st.sampled_from(SCALARS), lambda inner: containing(inner) | st.builds(union_of, inner, inner), max_leaves=4
)


@pytest.mark.property
@given(data=st.data(), stated=SAFE_TYPES)
@settings(max_examples=examples(70, 200), deadline=None)
def test_whatever_json_can_carry_comes_back_equal(data: st.DataObject, stated: Stated) -> None:
    value = data.draw(stated[1])
    assert through_json(stated[0], value) == value


@pytest.mark.property
@given(data=st.data(), stated=TYPES_OF_ALL_KINDS)
@settings(max_examples=examples(100, 300), deadline=None)
def test_whatever_the_type_a_value_comes_back_equal_or_is_refused(data: st.DataObject, stated: Stated) -> None:
    value = data.draw(stated[1])
    try:
        decoded = through_json(stated[0], value)
    except InvalidOutputs:
        return
    assert decoded == value


def test_every_missing_and_unfit_output_is_named() -> None:
    with pytest.raises(InvalidOutputs, match=r"label is missing; score: input should be a valid number") as raised:
        encode_outputs(program("q -> label, score: float"), {"score": "high"})
    assert len(raised.value.args) == 1


def test_outputs_beside_the_stated_ones_are_kept_as_the_nearest_json() -> None:
    outputs = {
        "answer": "a",
        "reasoning": "because",
        "trajectory": {"step_0": DAY, 1: {"x"}, "unknown": NotData, "rate": math.nan},
        "broken": "\ud800",
        "huge": 2**80,
    }
    encoded = encode_outputs(program("question -> answer"), outputs).plain
    assert list(encoded) == list(outputs)
    assert encoded["reasoning"] == "because"
    assert encoded["trajectory"] == {"step_0": "2024-02-29", "1": ["x"], "unknown": str(NotData), "rate": "NaN"}
    assert encoded["broken"] == r"\ud800"
    assert encoded["huge"] == str(2**80)


def test_outputs_whose_type_is_json_are_passed_on_untouched() -> None:
    outputs = {"answer": ["a"], "reasoning": {"kept": True}}
    decoded = decode_outputs(program("question -> answer: list[str]"), outputs)
    assert decoded == outputs
    assert decoded["answer"] is outputs["answer"]


def test_a_type_whose_module_is_not_installed_here_stays_json() -> None:
    assert decode_outputs(program("q -> answer: nowhere.types.Verdict"), {"answer": {"a": 1}}) == {"answer": {"a": 1}}


def test_an_answer_under_another_signature_is_not_decoded_as_something_else() -> None:
    with pytest.raises(NotAPrediction, match="answer: input should be a valid date"):
        decode_outputs(program("question -> answer: date"), {"answer": "no date"})


def test_inputs_become_the_types_the_signature_states() -> None:
    served = program(f"on: date, mood: {TYPES}.Mood, span: {TYPES}.Span, counts: dict[int, str], note: str | None -> a")
    inputs = {"on": "2024-02-29", "mood": "cross", "span": {"start": 1, "end": 2}, "counts": {"3": "x"}, "note": None}
    assert decode_inputs(served, inputs) == {
        "on": DAY,
        "mood": Mood.CROSS,
        "span": Span(1, 2),
        "counts": {3: "x"},
        "note": None,
    }


def test_every_input_that_does_not_fit_is_named_without_its_value() -> None:
    served = program(f"question, on: date, spans: list[{TYPES}.Span], picky: {TYPES}.Picky -> answer")
    with pytest.raises(InvalidInputs) as raised:
        decode_inputs(
            served, {"on": "secret", "spans": [{"start": 1, "end": "secret"}], "picky": {"value": "never"}, "x": 1}
        )
    (message,) = raised.value.args
    assert message.startswith("p takes question, on, spans, picky: x is unknown; question is missing; on: ")
    assert "spans[0]['end']: input should be a valid integer" in message
    assert "picky: RuntimeError: not even a ValueError" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("type_text", "holder", "example"),
    [
        ("dict", "dict", "dict[str, date]"),
        ("list", "list", "list[date]"),
        ("Any", "Any", "date"),
        ("dict[str, Any] | None", "Any", "date"),
    ],
)
def test_an_output_of_which_json_values_alone_come_back_is_named_before_a_run(
    type_text: str, holder: str, example: str
) -> None:
    (note,) = find_open_types(program(f"question: dict -> facts: {type_text}"))
    assert note.startswith(f"programs.p.signature: facts: {type_text} brings back JSON values only; ")
    assert note.endswith(f"state what {holder} holds, as {example}")
    assert list(find_open_types(program(f"question: Any -> facts: {example}"))) == []


@pytest.mark.parametrize(
    "type_text", ["str", 'Literal["Any"]', "dict[str, list[int]]", "tuple[Any, date]", f"dict[str, {TYPES}.Verdict]"]
)
def test_an_output_whose_values_come_back_is_not_warned_of(type_text: str) -> None:
    assert list(find_open_types(program(f"question -> facts: {type_text}"))) == []


def test_a_number_beyond_64_bits_comes_back_as_a_decimal() -> None:
    assert through_json("Decimal", Decimal(2**80)) == 2**80


@pytest.mark.parametrize("type_text", ["{}", "list[{}]", "dict[str, {}] | None"])
def test_a_type_that_pydantic_cannot_build_is_named_with_what_to_state(type_text: str) -> None:
    (fault,) = find_type_faults(program(f"question -> answer: {type_text.format(f'{TYPES}.NotData')}"))
    assert fault.startswith("programs.p.signature: answer: ")
    assert "NotData is no pydantic model, dataclass, enum or named tuple" in fault
    assert "arbitrary_types_allowed" not in fault
    assert "\n" not in fault


def test_types_that_do_not_import_or_cannot_be_json_are_found_before_a_job_is() -> None:
    faults = list(find_type_faults(program(f"q: nowhere.X -> a: {TYPES}.NotData, b: {TYPES}.Missing, c: int")))
    assert [fault.split(": ")[1] for fault in faults] == ["q", "a", "b"]
    assert all(fault.startswith("programs.p.signature: ") for fault in faults)
