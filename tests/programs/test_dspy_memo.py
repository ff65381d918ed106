"""Memoized parts equal what DSPy computes each time."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import dspy
import pytest
from dspy import lm15
from dspy.adapters import utils
from dspy.clients.engines.lm15_engine import LM15Engine
from pydantic import BaseModel, TypeAdapter

from dspyq.programs import dspy_memo


class Mood(StrEnum):
    GOOD = "good"


class Person(BaseModel):
    name: str
    age: int = 0


class Ask(dspy.Signature):
    """Say how a text sounds."""

    text: str = dspy.InputField()
    person: Person = dspy.InputField(desc="who wrote it")
    mood: Mood = dspy.OutputField()
    tags: list[Literal["a", "b"]] = dspy.OutputField()


INPUTS = {"text": "Fine.", "person": Person(name="Ada", age=36)}


@pytest.mark.parametrize("adapter_class", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
def test_an_adapters_prompt_is_the_same_with_the_cache(adapter_class: type[dspy.Adapter]) -> None:
    adapter = adapter_class()
    dspy_memo.cache_signature_texts(adapter)
    dspy_memo.cache_type_adapters()
    for signature in (Ask, Ask.with_instructions("Another task."), Ask.delete("tags"), Ask):
        assert adapter.format(signature, [], INPUTS) == adapter_class().format(signature, [], INPUTS)


def test_the_fields_of_a_signature_are_the_same_with_the_cache_and_a_callers_change_stays_its_own() -> None:
    signatures = (
        Ask,
        Ask.with_instructions("Another task."),
        Ask.delete("tags"),
        Ask.append("more", dspy.InputField()),
    )
    plain = [(signature.input_fields, signature.output_fields) for signature in signatures]
    dspy_memo.cache_fields()
    for _ in range(2):
        cached = [(signature.input_fields, signature.output_fields) for signature in signatures]
        assert cached == plain
        assert [list(fields) for pair in cached for fields in pair] == [
            list(fields) for pair in plain for fields in pair
        ]
        cached[0][0].clear()


def test_an_adapter_of_the_users_own_is_asked_each_time() -> None:
    class Counting(dspy.ChatAdapter):
        calls = 0

        def format_system_message(self, signature: type[dspy.Signature]) -> str:
            self.calls += 1
            return f"call {self.calls} of {signature.__name__}"

    adapter = Counting()
    dspy_memo.cache_signature_texts(adapter)
    texts = [adapter.format(Ask, [], INPUTS)[0]["content"] for _ in range(2)]
    assert texts == ["call 1 of Ask", "call 2 of Ask"]


@pytest.mark.parametrize("value", ["text", 3, 2.5, None, Mood.GOOD, Person(name="Ada"), ["a", Mood.GOOD], {"a": {1}}])
def test_values_become_the_same_json(value: object) -> None:
    expected = TypeAdapter(type(value)).dump_python(value, mode="json", fallback=str)
    dspy_memo.cache_type_adapters()
    assert [utils.serialize_for_json(value) for _ in range(2)] == [expected, expected]


def test_equal_unions_in_another_order_stay_apart() -> None:
    dspy_memo.cache_type_adapters()
    one, other = int | str, str | int
    assert one == other
    assert utils.TypeAdapter(one).json_schema() == TypeAdapter(one).json_schema()
    assert utils.TypeAdapter(other).json_schema() == TypeAdapter(other).json_schema()


def test_the_way_to_a_model_stays_the_same_and_what_cannot_be_found_raises_each_time() -> None:
    plain, engine = (LM15Engine(lm15.RouterConfig(env={})) for _ in range(2))
    dspy_memo.cache_routes(engine)
    for model in ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "openai/gpt-4o-mini"):
        assert engine.resolve(model) == plain.resolve(model)
    for _ in range(2):
        with pytest.raises(lm15.LM15Error):
            engine.resolve("no-such-provider/model")
