"""An experiment over a real fleet: units keep their arms, and its counts equal a replay of the calls."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dspyq.errors import InvalidOption, PredictionFailed
from dspyq.experiments import administration
from dspyq.experiments.durations import read_durations
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import bucket_of_question, digest_of_unit, place
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.experiments.token import read_token
from dspyq.prediction.request import build_request
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until

TODAY = 20_000


@pytest.fixture
def path(settings_file):
    return settings_file(with_experiment(feedback={"thumbs": {"low": 0, "high": 1}}), challenger=0.5)


@pytest.fixture
def fleet(path, configure, worker):
    """A worker, and this process as a producer, of a program with an experiment that is not started."""
    program = configure(path).programs["qa"]
    worker(path)
    return program


@pytest.fixture
def ask(fleet):
    from dspyq import predict

    del fleet
    return lambda question="hi", unit=None, **options: predict.apply_async(
        kwargs={"question": question}, unit=unit, **options
    )


def counts(state, table, arm, metric):
    """The rows and the sum of a metric, and both by the unit's bucket."""
    process_tally().flush()
    sums = read_sums(state, table, today=TODAY)[arm].metrics[metric]
    rows = {bucket: int(n) for bucket, n in enumerate(sums.by_unit.denominators) if n}
    return sum(rows.values()), sum(sums.by_unit.numerators), rows


def test_every_unit_gets_its_arm_and_each_call_is_counted_once(fleet, ask):
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    calls: dict[str, Counter[int]] = {arm: Counter() for arm in state.arms}
    runs: dict[str, set[Any]] = {arm: set() for arm in state.arms}
    hits: Counter[str] = Counter()
    for number in range(40):
        unit, question = f"user {number % 8}", f"question {number % 5}"
        answer = ask(question, unit).get(timeout=20)
        digest, arm = digest_of_unit(state.salt, unit), place(state.placing, unit).variant
        assert answer.metadata.variant == arm
        calls[arm][digest.bucket] += 1
        hits[arm] += question in runs[arm]
        runs[arm].add(question)
    for arm in state.arms:
        rows, hit, by_unit = counts(state, table, arm, "call.hit")
        assert (rows, hit, by_unit) == (calls[arm].total(), hits[arm], calls[arm])
        assert counts(state, table, arm, "answer.cost")[0] == len(runs[arm])
        times, total = read_durations(state)[arm], counts(state, table, arm, "answer.time")[1]
        assert times.number == len(runs[arm])
        assert times.percentile(0) <= total / len(runs[arm]) <= times.percentile(1)
        reading = read_sums(state, table, today=TODAY)[arm]
        assert reading.units == len(calls[arm])
        questions = {bucket_of_question(state.salt, b'{"question":"%s"}' % each.encode()) for each in runs[arm]}
        by_question = reading.metrics["call.hit"].by_question.denominators
        assert {bucket for bucket, n in enumerate(by_question) if n} == questions
        paid = counts(state, table, arm, "call.paid")[1]
        assert paid == pytest.approx(counts(state, table, arm, "answer.cost")[1])
        assert paid > 0


def test_the_enrolled_of_the_control_have_answers_of_their_own(fleet, ask, endpoint):
    first = ask("warm", variant="control").get(timeout=20)
    state = administration.start(fleet)
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == "control")
    enrolled = ask("warm", unit).get(timeout=20)
    assert first.metadata.input_hash != enrolled.metadata.input_hash
    assert endpoint.calls() == 2
    assert ask("warm", variant="control").get(timeout=20).metadata.cached
    assert ask("warm", unit).get(timeout=20).metadata.cached


def test_calls_without_a_unit_and_forced_ones_are_served_and_not_counted(fleet, ask):
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    answers = [ask("one").get(timeout=20), ask("two", variant="challenger").get(timeout=20)]
    assert [answer.metadata.variant for answer in answers] == ["control", "challenger"]
    assert [answer.metadata.exposure for answer in answers] == [None, None]
    assert [counts(state, table, arm, "call.hit")[0] for arm in state.arms] == [0, 0]


def test_failed_calls_are_counted_as_failed_with_all_who_waited(fleet, ask, endpoint):
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    arm = place(state.placing, "user").variant
    endpoint.script(status=400)
    endpoint.hold()
    handles = [ask("refused", "user") for _ in range(3)]
    endpoint.release()
    for handle in handles:
        with pytest.raises(PredictionFailed):
            handle.get(timeout=20)
    assert counts(state, table, arm, "call.failed")[:2] == (3, 3)
    assert counts(state, table, arm, "answer.cost")[0] == 0


def test_a_caller_that_cancels_is_not_counted(fleet, ask, endpoint):
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    arm = place(state.placing, "user").variant
    endpoint.hold()
    stays, leaves = ask("slow", "user"), ask("slow", "user")
    leaves.cancel()
    endpoint.release()
    stays.get(timeout=20)
    assert counts(state, table, arm, "call.failed")[0] == 1


def test_a_call_with_an_id_of_its_own_is_counted_by_its_worker(fleet, ask):
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    arm = place(state.placing, "user").variant
    assert ask("own", "user", task_id="mine").get(timeout=20).metadata.variant == arm
    assert counts(state, table, arm, "call.hit")[:2] == (1, 0)
    assert ask("own", "user", task_id="mine too").get(timeout=20).metadata.variant == arm
    assert counts(state, table, arm, "call.hit")[:2] == (2, 1)


def test_an_id_that_is_asked_again_by_a_process_without_the_state_is_the_same_question(fleet, ask, endpoint):
    state = administration.start(fleet)
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == "control")
    first = ask("own", unit, task_id="mine").get(timeout=20)
    process_states().forget("qa")  # as in a process that was started anew
    again = ask("own", unit, task_id="mine").get(timeout=20)
    assert again.metadata.input_hash == first.metadata.input_hash
    assert endpoint.calls() == 1
    with pytest.raises(InvalidOption, match="another question's"):
        ask("another", unit, task_id="mine")


def test_a_batch_of_kombu_sends_calls_by_the_state_that_its_process_lacks(fleet, ask):
    from dspyq import predict

    administration.start(fleet)
    administration.stop("qa", serve="challenger")
    process_states().forget("qa")
    with predict.app.producer_or_acquire() as producer, producer.batch(10):
        handles = [ask(f"batched {number}", task_id=f"batched {number}", producer=producer) for number in range(3)]
    assert {handle.get(timeout=20).metadata.variant for handle in handles} == {"challenger"}


def test_many_rows_are_counted_as_single_calls_are(fleet, ask):
    from dspyq import predict

    del ask
    state, table = administration.start(fleet), administration.plan_of(fleet).table
    rows = [{"question": f"row {number % 7}"} for number in range(20)]
    answers = [handle.get(timeout=20) for handle in predict.many(rows, unit="user")]
    arm = place(state.placing, "user").variant
    assert {answer.metadata.variant for answer in answers} == {arm}
    assert counts(state, table, arm, "call.failed")[0] == 20
    assert counts(state, table, arm, "answer.cost")[0] == 7


def test_no_claim_is_of_a_state_that_was_changed(fleet, ask):
    """The known state is put back after each change, as in a process that has heard of none."""
    state = administration.start(fleet)
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == "challenger")
    assert ask("before", unit).get(timeout=20).metadata.variant == "challenger"
    for number, change in enumerate((administration.pause, administration.resume, administration.stop)):
        old = process_states().get("qa")
        changed = change("qa")
        process_states()._states["qa"] = old  # noqa: SLF001 - as in a process that the announcement did not reach
        expected = "challenger" if changed.status == "running" else "control"
        assert ask(f"after {number}", unit).get(timeout=20).metadata.variant == expected
        assert process_states().get("qa").version == changed.version


def roads_with_own_ids(question, unit):
    """Ask by each form of a call that has an id of its own."""
    from celery import chain, group

    from dspyq import predict

    options = {"unit": unit}
    first = predict.s(question=f"{question} in a chain").set(**options)
    second = predict.si(question=f"{question} behind it").set(**options)
    members = [predict.s(question=f"{question} in a group {number}").set(**options) for number in range(2)]
    yield predict.apply_async(kwargs={"question": f"{question} by id"}, task_id=f"{question} by id", **options)
    yield predict.apply_async(kwargs={"question": f"{question} later"}, countdown=0.01, **options)
    yield chain(first, second).apply_async()
    yield from group(members).apply_async().results


@pytest.mark.parametrize("change", ["ramp", "kill", "stop"])
def test_no_call_with_an_id_of_its_own_is_of_a_state_that_was_changed(fleet, endpoint, change):
    """The known state is put back before they are asked, as in a process that no announcement reaches."""
    state = administration.start(fleet)
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == "challenger")
    old = process_states().get("qa")
    options = {"ramp": (1e-9,), "kill": ("challenger",), "stop": ()}
    getattr(administration, change)("qa", *options[change])
    process_states()._states["qa"] = old  # noqa: SLF001 - as above
    answers = []
    for handle in roads_with_own_ids(change, unit):
        answers.append(handle.get(timeout=20))
        process_states()._states["qa"] = old  # noqa: SLF001 - as above
    assert {(answer.metadata.variant, answer.metadata.fallback) for answer in answers} == {("control", None)}
    assert "challenger" not in endpoint.counts().calls_by_model


def test_calls_with_ids_of_their_own_that_race_a_change_begin_by_the_new_state_alone(fleet):
    """Jobs are put from many threads; those put once the change has returned are all of the new state."""
    from dspyq import predict

    state = administration.start(fleet)
    unit = next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == "challenger")
    old, has_returned = process_states().get("qa"), threading.Event()

    def asked(number):
        process_states()._states["qa"] = old  # noqa: SLF001 - as in a process that no announcement reaches
        is_late = has_returned.is_set()
        handle = predict.apply_async(kwargs={"question": f"race {number}"}, unit=unit, task_id=f"race {number}")
        return is_late, handle

    with ThreadPoolExecutor(8) as pool:
        early = [pool.submit(asked, number) for number in range(20)]
        administration.kill("qa", "challenger")
        has_returned.set()
        late = [pool.submit(asked, number) for number in range(20, 40)]
    handles = [each.result() for each in (*early, *late)]
    found = [(is_late, handle.get(timeout=30).metadata) for is_late, handle in handles]
    assert sum(is_late for is_late, _ in found) >= 20
    assert {answer.variant for is_late, answer in found if is_late} == {"control"}


def test_a_change_made_elsewhere_reaches_a_process_that_asks_nothing(fleet, path, dspyq):
    administration.start(fleet)
    changed = json.loads(dspyq("experiment", "ramp", "qa", "0.5", "--json", settings=path).stdout)
    wait_until(lambda: process_states().get("qa").version == changed["version"], 60, "the ramp to be announced")


def test_an_answers_token_takes_feedback(fleet, ask):
    from dspyq import predict

    state, table = administration.start(fleet), administration.plan_of(fleet).table
    handle = ask("judged", "user")
    answer = handle.get(timeout=20)
    arm = answer.metadata.variant
    assert read_token(answer.metadata.exposure).exposure.arm == arm
    assert predict.feedback(handle, name="thumbs", value=1) == "new"
    assert predict.feedback(answer.metadata.exposure, name="thumbs", value=1) == "same"
    day = read_token(answer.metadata.exposure).exposure.day
    sums = read_sums(state, table, today=day + 4)[arm].metrics
    assert sum(sums["feedback.thumbs"].by_unit.denominators) == 1
    assert sum(sums["response.thumbs"].by_unit.denominators) == 1


def test_calls_without_options_are_served_as_the_state_has_it_on_every_road(fleet):
    """The file's weights give half of them to the challenger."""
    from dspyq import predict

    async def asked_async():
        first = await predict.ask(question="road 1")
        (second,) = await predict.ask_many([{"question": "road 2"}])
        third = await (await predict.adelay(question="road 3"))
        fourth = await predict.ask({"question": "road 4"})
        return [first, second, third, fourth]

    administration.start(fleet)
    administration.stop("qa", serve="challenger")
    process_states().forget("qa")  # as in a process that has heard of none
    rows = [{"question": f"row {number}"} for number in range(12)]
    handles = [predict.delay(**row) for row in rows[:6]] + predict.many(rows[6:])
    handles += [predict.s(question="signature").delay(), predict.apply_async(kwargs={"question": "own"}, task_id="own")]
    answers = [handle.get(timeout=20) for handle in handles] + asyncio.run(asked_async())
    assert {answer.metadata.variant for answer in answers} == {"challenger"}


def test_delay_is_counted_where_the_question_is_the_unit(path, configure, settings_file, worker):
    from dspyq import predict

    path = settings_file(with_experiment(unit="inputs"), challenger=0.5)
    program = configure(path).programs["qa"]
    worker(path)
    state, table = administration.start(program), administration.plan_of(program).table
    answers = [predict.delay(question=f"question {number}").get(timeout=20) for number in range(12)]
    arms = Counter(answer.metadata.variant for answer in answers)
    process_tally().flush()
    sums = read_sums(state, table, today=TODAY)
    assert {arm: sums[arm].units for arm in state.arms} == {arm: arms[arm] for arm in state.arms}


@pytest.mark.parametrize("unit", ["user", "another", None])
def test_an_invalidated_question_is_forgotten_in_every_arm_and_draw(settings_file, configure, worker, unit):
    from dspyq.cache.admin import invalidate

    path = settings_file(with_experiment(draws=4) | {"cache": {"memory_entries": 0}}, challenger=0.5)
    program = configure(path).programs["qa"]
    worker(path)
    administration.start(program)

    def asked():
        from dspyq import predict

        units = [None] if unit is None else [f"{unit} {number}" for number in range(12)]
        return [predict.apply_async(kwargs={"question": "same"}, unit=each).get(timeout=20).metadata for each in units]

    questions = {answer.input_hash for answer in asked()}
    assert all(answer.cached for answer in asked())
    assert invalidate({"question": "same"}) == len(questions)
    again = asked()
    assert {answer.input_hash for answer in again if not answer.cached} == questions


def test_a_counted_calls_job_is_left_to_workers_that_end_the_count(fleet):
    """Also of a challenger, whose question has no scope: else its calls alone would be lost in a mixed fleet."""
    state = administration.start(fleet)
    units = {
        arm: next(f"u{n}" for n in range(99) if place(state.placing, f"u{n}").variant == arm) for arm in state.arms
    }
    for unit in units.values():
        request = build_request({"question": "hi"}, unit=unit)
        assert [request.header(is_claimed=claimed).needs for claimed in (True, False)] == [("experiment",)] * 2
    assert build_request({"question": "hi"}).header(is_claimed=True).needs == ()
