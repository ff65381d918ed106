"""A user's dict with Celery's keys of types stays unchanged on each path of Celery's JSON."""

import base64
import datetime
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import serialization

import dspyq.celery_app.application  # noqa: F401 - registers the serializer
from dspyq.core.plain_json import SERIALIZER, shield, shield_inputs

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
KEYS = st.sampled_from(["__type__", "__value__", "a"])
TYPES = st.sampled_from(["nope", "datetime", "bytes", "uuid", "dspyq.dict"])
VALUES = st.recursive(
    SCALARS | TYPES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def written_and_read(value):
    content_type, encoding, text = serialization.dumps(value, serializer=SERIALIZER)
    return serialization.loads(text, content_type, encoding, accept=["application/json"])


@given(VALUES)
def test_plain_json_is_read_as_it_was_written(value):
    assert written_and_read(value) == value
    assert written_and_read(written_and_read(value)) == value
    text = orjson.dumps(value)
    assert serialization.loads(shield(text), "application/json", "utf-8", accept=["application/json"]) == value


@given(VALUES)
def test_inputs_of_an_earlier_version_are_read_as_they_were_written(value):
    if "dspyq.dict" in json.dumps(value):
        return  # no earlier version wrote that
    body = json.dumps([[], {"x": value}, {}]).encode()
    assert serialization.loads(shield_inputs(body), "application/json", "utf-8", accept=["application/json"])[1] == {
        "x": value
    }


def test_celerys_types_beyond_json_still_arrive():
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert written_and_read([moment, {"__type__": "datetime", "__value__": "x"}]) == [
        moment,
        {"__type__": "datetime", "__value__": "x"},
    ]


@pytest.mark.parametrize("way", ["delay", "many"])
def test_both_ways_of_publishing_shield_inputs(way, predict, redis_server):
    question = '{"__type__": "nope"}'
    if way == "delay":
        handle = predict.delay(question=question)
    else:
        (handle,) = predict.many([{"question": question}])
    message = orjson.loads(redis_server.client().hget(f"dspy:v1:job:{handle.id}", "message"))
    _, inputs, _ = json.loads(base64.b64decode(message["body"]))
    assert inputs == {"question": question}
