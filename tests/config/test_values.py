"""Values of every kind of type arrive equal, as outputs and as inputs, or their type is named before a job is."""

from __future__ import annotations

import collections
import datetime
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import dspy
import orjson
import pytest
from pydantic import AnyUrl

from dspyq.config import exact
from dspyq.config.codec import decode_inputs, decode_outputs, encode_outputs, find_type_faults
from dspyq.config.programs import Program
from dspyq.errors import InvalidInputs, NotAPrediction
from dspyq.prediction.contract import Contract
from tests.programs import value_types as t

T = "tests.programs.value_types"
DAY = datetime.date(2024, 2, 29)
VARIANT = {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}}
ALIAS = t.Alias(cityName="Rome")
ODD = t.Odd(
    text="a", path="/etc", queue=[1, 2], counts={"a": 2}, many={(1, 2): frozenset({"a"})}, number=1 + 2j
)  # fmt: skip

TABLE: list[tuple[str, Any]] = [
    ("str", "naïve"),
    ("int", -(2**63)),
    ("float", 0.1),
    ("bool", True),
    ("bytes", b"caf\xc3\xa9"),
    ("bytes", b"\xff\x00"),
    ("date", DAY),
    ("datetime", datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC)),
    ("time", datetime.time(23, 59)),
    ("timedelta", datetime.timedelta(days=-1, microseconds=5)),
    ("Decimal", Decimal("0.10")),
    ("UUID", uuid.UUID(int=7)),
    ("tuple[int, str]", (1, "a")),
    ("tuple[date, ...]", (DAY, DAY)),
    ("set[int]", {1, 2}),
    ("frozenset[str]", frozenset({"a"})),
    ("set[int] | list[int]", {1}),
    ("date | str", DAY),
    ("date | str", "2024-02-29"),
    ("Decimal | str", Decimal("1.0")),
    ("UUID | str", uuid.UUID(int=7)),
    ("bytes | str", b"a"),
    ("dict[tuple[int, int], date]", {(1, 2): DAY}),
    ("dict[int, str]", {1: "a"}),
    ("list[dict[str, date | None]]", [{"a": DAY, "b": None}]),
    ("Optional[date]", None),
    ('Literal["yes", 3]', 3),
    ("pathlib.Path", pathlib.Path("/etc")),
    ("ipaddress.IPv4Address", ipaddress.IPv4Address("127.0.0.1")),
    ("re.Pattern[str]", re.compile("a+")),
    ("builtins.complex", 1 + 2j),
    ("pydantic.AnyUrl", AnyUrl("http://a.b/c")),
    ("collections.deque[int]", collections.deque([1, 2])),
    ("collections.Counter[str]", collections.Counter("aab")),
    ("collections.OrderedDict[str, int]", collections.OrderedDict(a=1)),
    ("collections.defaultdict[str, list[int]]", collections.defaultdict(list, a=[1])),
    ("typing.Sequence[date]", [DAY]),
    ("typing.Mapping[str, date]", {"a": DAY}),
    (f"{T}.Alias", ALIAS),
    (f"list[{T}.Alias]", [ALIAS]),
    (f"dict[str, list[{T}.Alias]]", {"a": [ALIAS]}),
    (f"{T}.Alias | None", ALIAS),
    (f"tuple[{T}.Alias, int]", (ALIAS, 1)),
    (f"{T}.ValidationAlias", t.ValidationAlias(cityName="Rome")),
    (f"{T}.SerializationAlias", t.SerializationAlias(city="Rome")),
    (f"{T}.TwoAliases", t.TwoAliases.model_validate({"in": "Rome"})),
    (f"{T}.Path", t.Path.model_validate({"place": ["Rome"]})),
    (f"{T}.Choices", t.Choices(town="Rome")),
    (f"{T}.Camel", t.Camel(homeCity="Rome", zipCode=5)),
    (f"{T}.ByName", t.ByName(city="Rome")),
    (f"{T}.Computed", t.Computed(width=2)),
    (f"{T}.ComputedExtra", t.ComputedExtra(width=2, more=[1])),
    (f"{T}.Excluded", t.Excluded(shown="a", hidden="b")),
    (f"{T}.ExcludedDefault", t.ExcludedDefault(shown="a", hidden=5)),
    (f"{T}.FieldSerialized", t.FieldSerialized(price=1.255)),
    (f"{T}.Lossy", t.Lossy(price=1.255)),
    (f"{T}.ModelSerialized", t.ModelSerialized(first="Ada", last="Lovelace")),
    (f"{T}.Growing", t.Growing(text="a")),
    (f"list[{T}.Growing]", [t.Growing(text="a"), t.Growing(text="b")]),
    (f"{T}.GrowingModel", t.GrowingModel(count=1)),
    (f"{T}.FromText", t.FromText.model_validate("a,b")),
    (f"{T}.Names", t.Names(["a", "b"])),
    (f"{T}.Places", t.Places({"a": ALIAS})),
    (f"{T}.Private", t.Private.made()),
    (f"{T}.Strict", t.Strict(day=DAY, data=b"\xff")),
    (f"{T}.Frozen", t.Frozen(name="a")),
    (f"{T}.Extra", t.Extra(name="a", more={"b": [1]})),
    (f"{T}.Revalidated", t.Revalidated(inner=t.Growing(text="a"))),
    (f"{T}.Box[int]", t.Box[int](theItem=5)),
    (f"{T}.Box[{T}.Alias]", t.Box[t.Alias](theItem=ALIAS)),
    (f"{T}.Pet", t.Dog(dogName="Rex")),
    (f"{T}.Tagged", t.Cat(lives=9)),
    (f"{T}.Owner", t.Owner(pets=[t.Dog(dogName="Rex"), t.Cat(lives=9)], by_name={"a": ALIAS})),
    (f"{T}.Node", t.Node(n="a", children=[t.Node(n="b")])),
    (f"{T}.Left | {T}.Right", t.Right(a=1)),
    (f"{T}.Plain", t.Plain(2)),
    (f"{T}.Slotted", t.Slotted(1, ALIAS)),
    (f"{T}.NotCompared", t.NotCompared(1, "kept")),
    (f"{T}.Checked", t.Checked(cityName="Rome")),
    (f"{T}.Pair", t.Pair(1, DAY)),
    (f"list[{T}.Pair]", [t.Pair(1)]),
    (f"{T}.Shape", {"name": "a", "day": DAY}),
    (f"{T}.Word", t.Word.YES),
    (f"str | {T}.Word", t.Word.YES),
    (f"{T}.Corner", t.Corner.FAR),
    (f"{T}.Flags", t.Flags.B),
    (f"dict[{T}.Word, {T}.Corner]", {t.Word.YES: t.Corner.ORIGIN}),
    (f"{T}.Outer.Inner", t.Outer.Inner(a=1)),
    (f"{T}.Grown", "a!"),
    (f"list[{T}.Grown]", ["a!", "b!"]),
    (f"{T}.Kilograms", 5),
    (f"{T}.Shouted", "quiet"),
    (f"{T}.Odd", ODD),
    ("dspy.Image", dspy.Image("https://example.com/a.png")),
    ("list[dspy.Image]", [dspy.Image("data:image/png;base64,AAAA")]),
    ("dict[str, dspy.Image] | None", {"a": dspy.Image("https://example.com/a.png")}),
    ("dspy.Audio", dspy.Audio(data="AAAA", audio_format="wav")),
    ("dspy.File", dspy.File(file_data="data:application/pdf;base64,AAAA", filename="a.pdf")),
    ("dspy.History", dspy.History(messages=[{"question": "a", "answer": "b"}])),
    ("dspy.Code", dspy.Code(code="print(1)")),
]  # fmt: skip


def program(signature: str) -> Program:
    return Program.model_validate({"name": "p", "signature": signature, "variants": VARIANT})


@pytest.mark.parametrize(("type_text", "value"), TABLE)
def test_an_output_arrives_equal(type_text: str, value: Any) -> None:
    served = program(f"question -> answer: {type_text}")
    encoded = encode_outputs(served, {"answer": value})
    plain, exact_forms = orjson.loads(orjson.dumps(tuple(encoded)))
    arrived = decode_outputs(served, plain, exact_forms)["answer"]
    assert exact.is_same(arrived, value)
    assert arrived == value
    assert not list(find_type_faults(served))


def test_a_moment_of_an_hour_that_clocks_repeat_arrives_as_the_same_moment() -> None:
    moment = datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome"))
    served = program("question -> at: datetime, all: list[datetime]")
    arrived = decode_outputs(served, *encode_outputs(served, {"at": moment, "all": [moment]}))
    for at in (arrived["at"], *arrived["all"]):
        assert at.isoformat() == "2024-10-27T02:30:00+01:00"
    asked = program("at: datetime -> answer")
    sent = Contract(asked).canonical({"at": moment})
    assert decode_inputs(asked, orjson.loads(sent))["at"].isoformat() == "2024-10-27T02:30:00+01:00"


@pytest.mark.parametrize(
    ("type_text", "value"),
    [
        ("pydantic.Json[list[int]]", [1]),
        ("pydantic.Base64Bytes", b"abc"),
        ("pydantic.Base64Str", "abc"),
        ("dict[str, list[pydantic.Base64Bytes]]", {"a": [b"abc"]}),
    ],
)
def test_an_output_of_a_type_that_takes_only_its_written_form_arrives_equal(type_text: str, value: Any) -> None:
    served = program(f"question -> answer: {type_text}")
    assert decode_outputs(served, *encode_outputs(served, {"answer": value})) == {"answer": value}


@pytest.mark.parametrize(("type_text", "value"), TABLE)
def test_an_input_arrives_equal(type_text: str, value: Any) -> None:
    asked = program(f"value: {type_text} -> answer")
    if asked.signature.inputs[0].is_json and not isinstance(value, str | int | float | dict | list | None):
        pytest.skip("is_json")
    sent = Contract(asked).canonical({"value": value})
    arrived = decode_inputs(asked, orjson.loads(sent))["value"]
    assert exact.is_same(arrived, value)
    assert arrived == value


def test_an_output_reads_as_pydantic_writes_it_also_where_its_exact_form_goes_along() -> None:
    served = program(f"question -> place: {T}.Alias, item: {T}.Excluded")
    value = {"place": ALIAS, "item": t.TwoAliases.model_validate({"in": "Rome"})}
    encoded = encode_outputs(served, value | {"item": t.Excluded(shown="a", hidden="b")})
    assert encoded.plain == {"place": {"cityName": "Rome"}, "item": {"shown": "a", "hidden": "b"}}
    assert not encoded.exact
    two = encode_outputs(program(f"question -> place: {T}.TwoAliases"), {"place": value["item"]})
    assert two.plain == {"place": {"city": "Rome"}}
    assert two.exact


def test_an_exact_form_builds_no_class_that_the_type_does_not_name() -> None:
    served = program(f"question -> answer: {T}.Alias")
    form = {"object": ["tests.programs.value_types:Frozen", {"name": "a"}, None, None]}
    with pytest.raises(NotAPrediction, match="Frozen is no part of the stated type"):
        decode_outputs(served, {"answer": {}}, {"answer": form})
    with pytest.raises(InvalidInputs, match="Frozen is no part of the stated type"):
        decode_inputs(program(f"value: {T}.Alias -> answer"), {"value": {"$dspyq.exact": form}})


@pytest.mark.parametrize(
    ("type_text", "named"),
    [
        (f"{T}.Secret", "SecretStr hides its value"),
        (f"list[{T}.HoldsOpaque]", "Opaque is no pydantic model"),
        (f"{T}.HoldsFunction | None", "a callable cannot be carried"),
        (f"{T}.Opaque", "Opaque"),
        ("typing.Iterable[int]", "an iterator cannot be carried"),
        ("dspy.Tool", "callable"),
        ("type[int]", "type"),
    ],
)
def test_a_type_that_cannot_come_back_is_named_by_the_check(type_text: str, named: str) -> None:
    try:
        faults = list(find_type_faults(program(f"question -> answer: {type_text}")))
    except Exception as error:  # noqa: BLE001 - a type that no signature states
        faults = [str(error)]
    assert len(faults) == 1
    assert named in faults[0]


@pytest.mark.parametrize(
    ("type_text", "value", "expected"),
    [
        ("dspy.Image", "https://example.com/a.png", dspy.Image("https://example.com/a.png")),
        ("dspy.Image", "data:image/png;base64,AAAA", dspy.Image("data:image/png;base64,AAAA")),
        ("list[dspy.Image]", ["https://example.com/a.png"], [dspy.Image("https://example.com/a.png")]),
        ("Optional[dspy.Image]", "https://example.com/a.png", dspy.Image("https://example.com/a.png")),
        ("dict[str, list[dspy.Image]]", {"a": ["https://a.b/c.png"]}, {"a": [dspy.Image("https://a.b/c.png")]}),
        ("dspy.Audio", "data:audio/wav;base64,AAAA", dspy.Audio(data="AAAA", audio_format="wav")),
        ("dspy.File", "data:application/pdf;base64,AAAA", dspy.File(file_data="data:application/pdf;base64,AAAA")),
        ("dspy.File", {"file_id": "f-1"}, dspy.File(file_id="f-1")),
    ],
)
def test_urls_and_data_urls_stand_for_dspys_objects(type_text: str, value: Any, expected: Any) -> None:
    asked = program(f"value: {type_text} -> answer")
    assert decode_inputs(asked, orjson.loads(Contract(asked).canonical({"value": value})))["value"] == expected


def test_text_that_is_no_image_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidInputs, match="value"):
        Contract(program("value: dspy.Image -> answer")).canonical({"value": "a.png"})
