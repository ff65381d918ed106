"""``dspyq.testing.running_programs``: the real program on a model of the test's own."""

import asyncio

import dspy
import pytest
from dspy.utils import DummyLM

import dspyq.errors
from dspyq import predict
from dspyq.testing import answers, running_programs

INPUTS = {"question": "6 × 7?"}
SHOUTED = {
    "models": {"small": {"model": "openai/small"}},
    "programs": {
        "shouted": {
            "class": "programs:Shouted",
            "signature": "question -> answer",
            "variants": {"control": {"model": "small"}},
        }
    },
}


def test_the_program_runs_on_the_tests_model():
    lm = DummyLM([{"points": "3", "tags": '["short"]'}])
    with running_programs(lm) as asked:
        prediction = predict.apply_async(kwargs={"answer": "42"}, program="score").get()
    assert (prediction.points, prediction.tags) == (3, ["short"])
    assert prediction.metadata.program == asked[0].program == "score"
    assert "42" in lm.history[0]["messages"][-1]["content"]


def test_every_model_of_the_configuration_has_a_model_of_its_own():
    lms = {"small": DummyLM([{"answer": "small"}]), "large": DummyLM([{"answer": "large"}])}
    with running_programs(lms):
        for variant, answer in {"control": "small", "candidate": "large"}.items():
            assert predict.apply_async(kwargs=INPUTS, program="qa", variant=variant).get().answer == answer


def test_a_variant_runs_with_what_it_replaces_of_its_program():
    lm = DummyLM([{"answer": "42", "points": "3"}] * 2)
    with running_programs(lm):
        rating = predict.apply_async(kwargs={"question": "q"}, program="rated", variant="rating").get()
        control = predict.apply_async(kwargs={"question": "q"}, program="rated", variant="control").get()
    assert (rating.answer, rating.points) == ("42", 3)
    assert control.outputs == {"answer": "42"}
    assert ["Rate your answer." in str(call["messages"]) for call in lm.history] == [True, False]


def test_the_configured_model_of_dspy_is_used_where_none_is_given():
    with dspy.context(lm=DummyLM([{"answer": "42"}])), running_programs():
        assert predict.apply_async(kwargs=INPUTS, program="qa").get().answer == "42"


def test_without_any_model_the_error_has_the_remedy():
    with running_programs(), pytest.raises(dspyq.errors.ConfigurationError, match="lm="):
        predict.apply_async(kwargs=INPUTS, program="qa")


def test_what_the_program_raises_fails_its_prediction():
    with running_programs(DummyLM([{"points": "many"}] * 4)):
        job = predict.apply_async(kwargs={"answer": "42"}, program="score")
        with pytest.raises(dspyq.errors.PredictionFailed):
            job.get()


def test_an_asynchronous_program_runs_with_and_without_an_event_loop(monkeypatch):
    monkeypatch.undo()  # within an event loop its own runs in a thread
    with running_programs(DummyLM([{"answer": "yes"}] * 2), configuration=SHOUTED):
        assert predict.delay(question="q").get().answer == "YES"
        assert asyncio.run(predict.ask(question="q")).answer == "YES"


@pytest.mark.parametrize(
    "configuration",
    [
        SHOUTED,
        """
        [models.small]
        model = "openai/small"
        [programs.shouted]
        signature = "question -> answer"
        [programs.shouted.variants.control]
        model = "small"
        """,
    ],
    ids=["dict", "text"],
)
def test_a_test_may_bring_its_own_configuration(configuration):
    with answers({"answer": "42"}, configuration=configuration) as asked:
        assert predict.delay(question="q").get().answer == "42"
    with answers({"answer": "42"}), pytest.raises(dspyq.errors.UnknownProgram):
        predict.delay(question="q")
    assert asked[0].program == "shouted"
