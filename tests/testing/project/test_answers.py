"""``dspyq.testing.answers``, as a user's tests use it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import celery.exceptions
import pytest
from celery import chain, chord, group

import dspyq.errors
from dspyq import Prediction, predict
from dspyq.celery_app.application import app
from dspyq.client.asking import process_asker
from dspyq.testing import Delayed, NoAnswer, answers

INPUTS = {"question": "6 × 7?"}
ANSWER = {"answer": "42"}
FORMS = {
    "apply_async": lambda: predict.apply_async(kwargs=INPUTS, program="qa", unit="user-1", countdown=5).get(),
    "apply": lambda: predict.apply(kwargs=INPUTS, program="qa").get(),
    "many": lambda: _only(predict.many([INPUTS], program="qa")).get(),
    "ask": lambda: asyncio.run(predict.ask(INPUTS, program="qa")),
    "ask_many": lambda: asyncio.run(predict.ask_many([INPUTS], program="qa"))[0],
    "aapply_async": lambda: asyncio.run(_awaited(lambda: predict.aapply_async(kwargs=INPUTS, program="qa"))),
    "amany": lambda: asyncio.run(_first(lambda: predict.amany([INPUTS], program="qa"))),
    "signature": lambda: predict.s(**INPUTS).set(program="qa").delay().get(),
    "immutable signature": lambda: predict.si(**INPUTS).set(program="qa").apply_async().get(),
    "group": lambda: group([predict.s(**INPUTS).set(program="qa")]).apply_async().get()[0],
    "await a group": lambda: asyncio.run(_awaited_group()),
    "chain": lambda: (numbered.s(6, 7) | predict.s().set(program="qa")).apply_async().get(),
}

kept = []


@app.task
def numbered(one, other):
    return {"question": f"{one} × {other}?"}


@app.task
def keep(value):
    kept.append(value)
    return value


@app.task
def note_failure(task_id):
    kept.append(task_id)


@pytest.fixture(autouse=True)
def nothing_kept():
    kept.clear()


def _only(jobs):
    (job,) = jobs
    return job


async def _awaited(call):
    return await (await call())


async def _first(call):
    return await (await call())[0]


async def _awaited_group():
    return (await group([predict.s(**INPUTS).set(program="qa")]).apply_async())[0]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_is_answered(form):
    with answers(ANSWER) as asked:
        prediction = FORMS[form]()
    assert isinstance(prediction, Prediction)
    assert (prediction.answer, prediction.metadata.program) == ("42", "qa")
    assert [call.inputs["question"] for call in asked] == ["6 × 7?"]


def test_what_was_asked_is_kept_with_its_options():
    with answers(ANSWER) as asked:
        job = predict.apply_async(
            kwargs=INPUTS,
            program="qa",
            variant="candidate",
            unit="user-1",
            request_id="web-1",
            refresh=True,
            priority=7,
        )
    (call,) = asked
    assert call.inputs == {"question": "6 × 7?", "tone": "plain"}
    assert (call.program, call.variant, call.unit, call.request_id) == ("qa", "candidate", "user-1", "web-1")
    assert (call.refresh, call.priority, call.task_id, call.is_cancelled) == (True, 7, job.id, False)


def test_a_unit_gets_the_variant_that_it_gets_in_production():
    with answers(ANSWER) as asked:
        predict.many([INPUTS] * 2, program="qa", unit="user-1")
        for unit in range(40):
            predict.apply_async(kwargs=INPUTS, program="qa", unit=unit)
    assert asked[0].variant == asked[1].variant
    assert {call.variant for call in asked} == {"control", "candidate"}


def test_inputs_are_checked_as_in_production():
    with answers(ANSWER) as asked:
        with pytest.raises(dspyq.errors.InvalidInputs, match="question is missing"):
            predict.apply_async(kwargs={}, program="qa")
        with pytest.raises(dspyq.errors.UnknownProgram):
            predict.apply_async(kwargs=INPUTS)
    assert not asked


@pytest.mark.parametrize("outputs", [{"points": "many", "tags": []}, {"points": 1}, {}])
def test_outputs_that_no_program_returns_are_refused_where_they_are_asked_for(outputs):
    with answers(outputs), pytest.raises(dspyq.errors.InvalidOutputs):
        predict.apply_async(kwargs=ANSWER, program="score")


def test_typed_outputs_come_as_their_types():
    with answers({"points": 3, "tags": ["short"]}):
        prediction = predict.apply_async(kwargs=ANSWER, program="score").get()
    assert (prediction.points, prediction["tags"]) == (3, ["short"])


def test_outputs_may_be_computed_from_the_inputs():
    with answers(lambda inputs: {"answer": inputs["question"].upper()}):
        jobs = predict.many([{"question": "a"}, {"question": "b"}], program="qa")
        assert [job.get().answer for job in jobs] == ["A", "B"]


def test_answers_in_a_list_come_one_after_another_and_no_further():
    with answers([ANSWER, dspyq.errors.RateLimited("later")]):
        assert predict.apply_async(kwargs=INPUTS, program="qa").get().answer == "42"
        with pytest.raises(dspyq.errors.RateLimited, match="later"):
            predict.apply_async(kwargs=INPUTS, program="qa").get()
        with pytest.raises(NoAnswer, match="2 answers"):
            predict.apply_async(kwargs=INPUTS, program="qa")


def test_programs_and_variants_have_answers_of_their_own():
    own = {"score": {"points": 1, "tags": []}, "qa.candidate": {"answer": "large"}}
    with answers({"answer": "small"}, programs=own):
        assert predict.apply_async(kwargs=ANSWER, program="score").get().points == 1
        for variant, answer in {"candidate": "large", "control": "small"}.items():
            assert predict.apply_async(kwargs=INPUTS, program="qa", variant=variant).get().answer == answer


def test_a_program_without_an_answer_is_an_error_with_the_remedy():
    with answers(programs={"score": {"points": 1, "tags": []}}), pytest.raises(NoAnswer, match=r"programs=\{'qa'"):
        predict.apply_async(kwargs=INPUTS, program="qa")


@pytest.mark.parametrize("error", [dspyq.errors.BreakerOpen("closed for now"), ValueError("not ours")])
def test_an_error_fails_the_prediction_and_not_the_call(error):
    with answers(error):
        job = predict.apply_async(kwargs=INPUTS, program="qa")
        assert (job.failed(), job.status) == (True, "FAILURE")
        with pytest.raises(type(error), match=str(error)):
            job.get()
        assert isinstance(job.get(propagate=False), type(error))
        jobs = asyncio.run(predict.ask_many([INPUTS, INPUTS], program="qa", return_exceptions=True))
        assert [type(each) for each in jobs] == [type(error)] * 2


def test_what_a_function_raises_fails_the_prediction():
    def answer(_):
        raise dspyq.errors.PredictionFailed("KeyError: 'x'")

    with answers(answer), pytest.raises(dspyq.errors.PredictionFailed, match="KeyError"):
        predict.apply_async(kwargs=INPUTS, program="qa").get()


def test_a_delayed_answer_takes_its_time_and_none_of_the_tests():
    started = time.monotonic()
    with answers(Delayed(ANSWER, seconds=600)):
        job = predict.apply_async(kwargs=INPUTS, program="qa")
        assert (job.ready(), job.status) == (False, "PENDING")
        with pytest.raises(celery.exceptions.TimeoutError):
            job.get(timeout=599)
        assert not job.ready()
        assert job.get(timeout=601).answer == "42"
        assert job.ready()
        assert asyncio.run(_awaited(lambda: predict.aapply_async(kwargs=INPUTS, program="qa"))).answer == "42"
    assert time.monotonic() - started < 60


def test_a_delayed_answer_takes_real_time_if_it_sleeps():
    with answers(Delayed(ANSWER, seconds=0.2, sleeps=True)):
        started = time.monotonic()
        predict.apply_async(kwargs=INPUTS, program="qa").get()
        asyncio.run(predict.ask(INPUTS, program="qa"))
        assert time.monotonic() - started >= 0.4


def test_an_await_that_is_cancelled_cancels_its_job():
    async def ask():
        await asyncio.wait_for(predict.ask(INPUTS, program="qa"), 0.01)

    with answers(Delayed(ANSWER, seconds=600, sleeps=True)) as asked:
        with pytest.raises(TimeoutError):
            asyncio.run(ask())
        assert [call.is_cancelled for call in asked] == [True]


def test_a_job_is_found_by_its_id():
    with answers(Delayed(ANSWER, seconds=600)):
        job = predict.apply_async(kwargs=INPUTS, program="qa", task_id="own-id")
        found = predict.AsyncResult("own-id")
        assert not found.ready()
        job.get()
        assert found.ready()
        assert found.get().answer == "42"


def test_an_unknown_id_stays_pending():
    with answers(ANSWER):
        unknown = predict.AsyncResult("unknown")
        assert unknown.status == "PENDING"
        with pytest.raises(celery.exceptions.TimeoutError):
            unknown.get(timeout=5)
        with pytest.raises(dspyq.errors.AnswerLost):
            unknown.get()


def test_a_job_that_is_cancelled_is_revoked_and_a_done_one_stays():
    with answers([Delayed(ANSWER, seconds=600), ANSWER]) as asked:
        job, done = (predict.apply_async(kwargs=INPUTS, program="qa") for _ in range(2))
        assert (job.cancel(), done.cancel()) == (True, False)
        with pytest.raises(celery.exceptions.TaskRevokedError):
            job.get()
        assert [call.is_cancelled for call in asked] == [True, False]


def test_a_forgotten_result_is_pending():
    with answers(ANSWER):
        job = predict.apply_async(kwargs=INPUTS, program="qa")
        job.get()
        job.forget()
        assert job.status == "PENDING"


def test_then_calls_back_with_the_result():
    with answers(Delayed(ANSWER, seconds=600)):
        predict.apply_async(kwargs=INPUTS, program="qa").then(lambda job: kept.append(job.get().answer))
    assert kept == ["42"]


def test_links_get_what_a_worker_sends_them():
    with answers(ANSWER):
        predict.apply_async(kwargs=INPUTS, program="qa", link=keep.s(), link_error=note_failure.s())
    assert [value["outputs"] for value in kept] == [ANSWER]


def test_an_error_link_gets_the_id_of_the_failed_task():
    with answers(dspyq.errors.RateLimited("later")):
        predict.apply_async(kwargs=INPUTS, program="qa", task_id="a", link=keep.s(), link_error=note_failure.s())
    assert kept == ["a"]


def test_a_chain_passes_outputs_on_as_inputs():
    with answers(programs={"qa": ANSWER, "score": {"points": 3, "tags": []}}) as asked:
        result = chain(numbered.s(6, 7), predict.s().set(program="qa"), predict.s().set(program="score")).delay()
        assert result.get().points == 3
        assert result.parent.get().answer == "42"
    assert [call.inputs for call in asked] == [{"question": "6 × 7?", "tone": "plain"}, ANSWER]


def test_a_task_after_a_prediction_gets_what_a_worker_sends_it():
    with answers(ANSWER):
        (predict.s(**INPUTS).set(program="qa") | keep.s()).delay()
    assert [value["outputs"] for value in kept] == [ANSWER]


def test_a_task_that_is_given_a_prediction_gets_what_a_chain_passes_on():
    with answers({"points": 3, "tags": []}):
        prediction = predict.apply_async(kwargs=ANSWER, program="score").get()
        keep.delay(prediction)
    assert kept[0]["outputs"] == {"points": 3, "tags": []}
    assert kept[0]["metadata"]["request_id"] == prediction.metadata.request_id


def test_a_chain_ends_at_a_failed_prediction():
    with answers(dspyq.errors.RateLimited("later")), pytest.raises(dspyq.errors.RateLimited):
        (predict.s(**INPUTS).set(program="qa") | keep.s()).delay().get()
    assert not kept


def test_a_chord_calls_its_body_with_all_results():
    header = [predict.s(question=str(number)).set(program="qa") for number in range(3)]
    with answers(lambda inputs: {"answer": inputs["question"]}):
        chord(header)(keep.s()).get()
    assert [value["outputs"]["answer"] for value in kept[0]] == ["0", "1", "2"]


def test_a_group_waits_for_delayed_members_without_sleeping():
    with answers(Delayed(ANSWER, seconds=600)):
        result = group(predict.s(**INPUTS).set(program="qa") for _ in range(2)).delay()
        assert not result.ready()
        assert [prediction.answer for prediction in result.get()] == ["42", "42"]


def test_blocks_nest_and_the_inner_one_answers():
    with answers({"answer": "outer"}) as outer:
        with answers({"answer": "inner"}) as inner:
            assert predict.apply_async(kwargs=INPUTS, program="qa").get().answer == "inner"
        assert predict.apply_async(kwargs=INPUTS, program="qa").get().answer == "outer"
    assert (len(outer), len(inner)) == (1, 1)


def test_an_answer_has_the_outputs_of_the_variant_that_is_asked():
    programs = {"rated": {"answer": "42"}, "rated.rating": {"answer": "42", "points": 3}}
    with answers(programs=programs):
        asked = {"kwargs": {"question": "q"}, "program": "rated"}
        assert predict.apply_async(**asked, variant="rating").get().points == 3
        assert predict.apply_async(**asked, variant="control").get().outputs == {"answer": "42"}
    with answers(programs={"rated": {"answer": "42"}}), pytest.raises(dspyq.errors.InvalidOutputs, match="points"):
        predict.apply_async(**asked, variant="rating")


def test_production_answers_again_after_the_block():
    before = process_asker()
    with pytest.raises(ZeroDivisionError), answers(ANSWER):
        raise ZeroDivisionError
    assert process_asker() is before
    assert not app.conf.task_always_eager


def test_the_fixture_answers_to_the_end_of_the_test(dspyq_answers):
    asked = dspyq_answers(ANSWER)
    assert predict.apply_async(kwargs=INPUTS, program="qa").get().answer == "42"
    assert len(asked) == 1


def test_calls_of_every_thread_are_answered(monkeypatch):
    monkeypatch.undo()  # this test has a thread
    with answers(ANSWER) as asked, ThreadPoolExecutor(1) as threads:
        job = threads.submit(lambda: predict.apply_async(kwargs=INPUTS, program="qa").get()).result()
    assert (job.answer, len(asked)) == ("42", 1)


@pytest.fixture
def always_eager():
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


@pytest.mark.usefixtures("always_eager")
@pytest.mark.parametrize("options", [{}, {"countdown": 1}])
def test_always_eager_raises_with_the_way_to_test_predictions(options):
    with pytest.raises(dspyq.errors.InvalidOption, match=r"dspyq\.testing\.answers"):
        predict.apply_async(kwargs=INPUTS, program="qa", refresh=True, **options)


@pytest.mark.usefixtures("always_eager")
def test_canvas_under_always_eager_fails_with_the_way_to_test_predictions():
    with pytest.raises(dspyq.errors.InvalidRequest, match=r"dspyq\.testing\.answers"):
        group([predict.s(**INPUTS)])().get()
