"""Answers from memory, written as JSON once and completed for each call."""

from types import SimpleNamespace

import orjson
import pytest

from dspyq.prediction.prediction import AnsweredCaller, metadata_from_json
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.answer_forms import AnswerForms
from dspyq.serve.predictions.ids import CallOfPrediction

METADATA = {
    "program": "qa", "variant": "control", "model": "openai/control", "input_hash": "a" * 64, "request_id": "first",
    "timestamp": 1.0, "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}, "cost_usd": 0.5,
    "duration_seconds": 0.25, "cached": False, "cache_level": None, "fallback": None, "finish_reason": "stop",
    "is_truncated": False,
}  # fmt: skip


def stored(outputs):
    result = {"dspyq": 1, "outputs": outputs, "metadata": METADATA}
    return orjson.dumps({"status": "SUCCESS", "result": result, "traceback": None, "children": [], "task_id": "t"})


def call(number, exposure=""):
    made = CallOfPrediction("task", f"call {number}", 1_764_540_000_000 + number, "memory", exposure)
    return rendering.PublicCall(made, f"pred_{number}", f"/v1/predictions/pred_{number}", f"/events?token={number}")


def asked(variant, request_id):
    return SimpleNamespace(variant=SimpleNamespace(name=variant), request_id=request_id)


@pytest.mark.parametrize("text", ["plain", '50 % of "%b" and %(x)s, %%', "é\n\\ %"])
def test_each_call_gets_what_would_be_written_for_it_alone(text):
    forms, payload = AnswerForms(), stored({"answer": text})
    for number, variant, exposure in ((1, "control", ""), (2, "control", "token"), (3, "other", "")):
        request_id = f"request.{number}"
        metadata = metadata_from_json(METADATA, AnsweredCaller(variant, request_id, "memory"))
        if exposure:
            metadata.expose(lambda: "token")
        expected = rendering.succeeded(call(number, exposure), {"answer": text}, metadata)
        body = forms.complete(call(number, exposure), payload, asked(variant, request_id))
        assert orjson.loads(body) == orjson.loads(orjson.dumps(expected))


def test_a_failure_has_no_form():
    failure = {"exc_type": "PredictionFailed", "exc_module": "config.errors", "exc_message": ["no"]}
    payload = orjson.dumps({"status": "FAILURE", "result": failure, "traceback": None, "children": [], "task_id": "t"})
    assert AnswerForms().complete(call(1), payload, asked("control", "r")) is None
