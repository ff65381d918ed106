"""``prediction.to_dict()`` is JSON, the same that a batch writes, for outputs of every type; ``outputs`` are typed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from dspyq.config.codec import encode_outputs
from dspyq.prediction import prediction as predictions
from dspyq.prediction.prediction import Metadata, Prediction, from_json, to_json
from tests.config.test_values import TABLE, program

METADATA = Metadata("p", "a", "openai/m", "0" * 64, "mine", 1.0)


@pytest.mark.parametrize(("type_text", "value"), TABLE)
def test_the_outputs_of_every_type_are_json_as_they_were_stored(
    monkeypatch: pytest.MonkeyPatch, type_text: str, value: Any
) -> None:
    served = program(f"question -> answer: {type_text}")
    monkeypatch.setattr(predictions, "get_settings", lambda: SimpleNamespace(programs={"p": served}))
    encoded = encode_outputs(served, {"answer": value})
    answer = from_json(json.loads(json.dumps(to_json(encoded.plain, METADATA, encoded.exact))))
    assert answer.outputs == dict(answer) == {"answer": value}
    assert json.loads(json.dumps(answer.to_dict())) == encoded.plain


def test_what_is_changed_in_it_changes_no_output() -> None:
    answer = Prediction({"tags": ["a"]}, METADATA, {"tags": ["a"]})
    answer.to_dict()["tags"].append("b")  # type: ignore[union-attr]  # JSON may be anything
    assert answer.tags == ["a"]
    assert answer.to_dict() == {"tags": ["a"]}


def test_a_prediction_made_by_hand_is_json_too() -> None:
    assert json.loads(json.dumps(Prediction({"answer": b"\xff", "one": 1}, METADATA).to_dict()))["one"] == 1


def test_a_prediction_is_read_like_a_dict() -> None:
    answer = Prediction({"answer": "a", "score": 1}, METADATA)
    assert list(answer.items()) == [("answer", "a"), ("score", 1)]
    assert list(answer.values()) == ["a", 1]
    assert answer.get("answer") == "a"
    assert answer.get("none") is None
    assert answer.get("none", 5) == 5


def test_an_output_named_like_a_method_of_dicts_comes_first() -> None:
    outputs: dict[str, Any] = {"items": ["a"], "values": [1], "get": None}
    answer = Prediction(outputs, METADATA)
    found: Any = answer
    assert (found.items, found.values, found.get) == (["a"], [1], None)
    assert dict(answer) == outputs
    assert list(Prediction.items(answer)) == list(outputs.items())
