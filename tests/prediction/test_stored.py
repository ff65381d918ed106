"""A stored result is taken for the question that it answers, and for no other."""

import orjson
import pytest

from dspyq.prediction.stored import answers_question

OURS, THEIRS = "a" * 64, "b" * 64


def stored(outputs, input_hash=OURS, **more):
    metadata = {"program": "qa", "input_hash": input_hash}
    return orjson.dumps({"status": "SUCCESS", "result": {"outputs": outputs, "metadata": metadata, **more}})


@pytest.mark.parametrize(
    "value", [THEIRS, [{"input_hash": THEIRS}], {"input_hash": THEIRS}, f'"input_hash":"{THEIRS}"']
)
@pytest.mark.parametrize("place", ["outputs", "exact"])
def test_a_hash_within_outputs_makes_no_answer_of_another_question(place, value):
    payload = stored({"input_hash": value}) if place == "outputs" else stored({}, exact={"input_hash": value})
    assert answers_question(payload, OURS)
    assert not answers_question(payload, THEIRS)


def test_what_names_no_question_answers_none():
    assert not answers_question(b"", OURS)
    assert not answers_question(b'{"status": "SUCCESS", "result": 3}', OURS)
    assert not answers_question(orjson.dumps({"result": [{"input_hash": OURS}, {"input_hash": OURS}]}), OURS)
