"""Shortcuts return what DSPy computes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy._vendor.lm15 import serde
from dspy.adapters.types.decision import Noul
from dspy.clients import execution
from dspy.predict import predict

from dspyq.programs import dspy_shortcuts


class Mood(StrEnum):
    GOOD = "good"
    NONE = ""


class Strange(list[int]):
    """A list of its own kind."""


class Plain(dspy.Signature):
    """Say how a text sounds."""

    text: str = dspy.InputField()
    mood: str = dspy.OutputField()


class Deciding(dspy.Signature):
    """Decide."""

    text: str = dspy.InputField()
    is_good: Noul = dspy.OutputField()


class Nested(dspy.Signature):
    """Decide on each."""

    text: str = dspy.InputField()
    are_good: list[Noul] = dspy.OutputField()


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returned, or the text of its error."""
    try:
        return call(*arguments)
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def test_what_is_empty_is_left_out_as_dspy_does() -> None:
    parts = [
        None, "", "text", 0, 1, 0.0, 2.5, False, True, [], [0], {}, {"a": None}, (), ((),), ("a", 1), Mood.GOOD,
        Mood.NONE, Strange(), Strange([1]), b"", b"1", frozenset(), Plain,
    ]  # fmt: skip
    values = {f"field {number}": part for number, part in enumerate(parts)}
    expected = dspy_shortcuts.plain_clean_mapping(values)
    cleaned = dspy_shortcuts.clean_mapping(values)
    assert list(cleaned.items()) == list(expected.items())
    assert list(map(type, cleaned.values())) == list(map(type, expected.values()))


@pytest.mark.parametrize(
    "value",
    [
        "text", "\ud83d", ["a", {"b": "\udc00"}], {"\ud83d": 1}, {1: "\ud83d"}, ({"a"}, "b"), {"\ud83d"}, b"\xff",
        2**70, [{"role": "user", "content": "Grüße 😀"}], object, None, Mood.GOOD,
    ],
)  # fmt: skip
def test_text_that_no_provider_can_receive_is_refused_with_the_same_words(value: object) -> None:
    expected = outcome(dspy_shortcuts.plain_check_encodable, value, "messages")
    assert outcome(dspy_shortcuts.check_encodable, value, "messages") == expected


def test_dspy_uses_all_of_them() -> None:
    dspy_shortcuts.take_shortcuts()
    assert vars(serde)["_clean_mapping"] is dspy_shortcuts.clean_mapping
    assert vars(execution)["_check_encodable"] is dspy_shortcuts.check_encodable
    assert vars(predict)["resolve_adapter"] is dspy_shortcuts.resolve_adapter
    with pytest.raises(ValueError, match=re.escape("lone surrogate U+D83D")):
        dspy.LM("openai/gpt-4o-mini", api_key="none", cache=False)("half of a pair: \ud83d")


@pytest.mark.parametrize("signature", [Plain, Deciding, Nested, Plain.append("more", dspy.OutputField(), Noul)])
@pytest.mark.parametrize("takes_decisions", [False, True])
def test_an_adapter_is_wrapped_for_decisions_alone(signature: type[dspy.Signature], takes_decisions: bool) -> None:
    lm, adapter = SimpleNamespace(supports_decision_requests=takes_decisions), dspy.ChatAdapter()
    for _ in range(2):
        with warnings.catch_warnings(record=True) as plain_warnings:
            warnings.simplefilter("always")
            expected = outcome(dspy_shortcuts.plain_resolve_adapter, lm, adapter, signature, {})
        with warnings.catch_warnings(record=True) as found_warnings:
            warnings.simplefilter("always")
            found = outcome(dspy_shortcuts.resolve_adapter, lm, adapter, signature, {})
        assert type(found) is type(expected)
        assert (found is adapter) == (expected is adapter)
        assert [str(each.message) for each in found_warnings] == [str(each.message) for each in plain_warnings]


def test_decision_fields_that_a_signature_lacks_are_refused_as_before() -> None:
    for fields in ({"mood": {"threshold": 0.5}}, None):
        expected = outcome(dspy_shortcuts.plain_resolve_adapter, None, dspy.ChatAdapter(), Plain, fields)
        assert outcome(dspy_shortcuts.resolve_adapter, None, dspy.ChatAdapter(), Plain, fields) == expected
