"""Delivery over several spines: quiet and paused queues, versions, foreign tasks, traces."""

import json
from collections import Counter

import pytest
from celery import Celery

from dspyq.client.predict import process_predict
from tests.support.configuration import default_document, merged, write_settings
from tests.support.processes import wait_until
from tests.support.spine_questions import one_of_each

pytestmark = pytest.mark.journey

#: More than are consumed without a thread that listens to quiet ones.
PROGRAMS = 20
_ONE = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
CHANGES = {
    "programs": {f"p{number:02}": _ONE for number in range(PROGRAMS)},
    "workers": {"imports": ["tests.support.user_tasks"]},
}
PRODUCER, CONSUMER, CLIENT = 4, 5, 3


@pytest.fixture
def worker(configure_spines, shared_spine_worker):
    """The module's worker; this process has its configuration."""
    configure_spines(shared_spine_worker.settings)
    return shared_spine_worker.worker


def ask(question, program="qa", **options):
    return process_predict().apply_async(kwargs={"question": question}, program=program, **options)


def noted(spines):
    return sum(server.client().llen("noted") for server in spines.servers)


def listeners(server):
    """Return how many connections wait for a bell."""
    return sum("b" in each["flags"] and each["cmd"] == "brpop" for each in server.client().client_list())


def test_a_thread_for_each_spine_passes_bells_of_quiet_queues_on_and_loses_none(worker, spines, endpoint):
    del worker
    for server in spines.servers:
        wait_until(lambda server=server: listeners(server) == 2, 30, "the consumer and the thread")
    names = [f"p{number:02}" for number in range(PROGRAMS)]
    asked = [(name, each) for name in names for each in one_of_each(name, program=name)]
    handles = [ask(each, program=name) for name, each in asked]
    assert [each.get(timeout=60).answer for each in handles] == [f"echo:{each}" for _, each in asked]
    assert endpoint.calls() == len(asked) == 3 * PROGRAMS
    wait_until(lambda: spines.keys("dspy:v1:passed-on:*") == [[], [], []], 60, "bells are left")


def test_a_queue_that_a_breaker_pauses_is_taken_from_on_no_spine_until_it_is_reset(
    worker, spine_command, shared_spine_worker, endpoint
):
    path = shared_spine_worker.settings
    spine_command("breaker", "open", "control", settings=path)
    try:
        handles = [ask(each) for each in one_of_each("paused", program="qa")]
        wait_until(lambda: "queue_paused" in worker.logs(), 30, "the pause")

        def waiting():
            queues = json.loads(spine_command("queues", "list", "--json", settings=path).stdout)
            return sum(each["waiting"] + each["delayed"] for each in queues if each["name"] == "qa.control")

        wait_until(lambda: waiting() == len(handles), 30, lambda: f"{waiting()} wait")
        assert endpoint.calls() == 0
    finally:
        spine_command("breaker", "reset", "control", settings=path)
    assert all(each.get(timeout=60).answer for each in handles)
    assert endpoint.calls() == len(handles)


def test_jobs_of_another_version_are_passed_on_and_answered_on_each_spine(
    configure_spines, shared_spine_worker, spine_worker, spines, endpoint, tmp_path
):
    del shared_spine_worker  # takes them first
    other = {"programs": {"qa": {"instructions": "Be brief."}}}
    path = write_settings(tmp_path / "other.toml", merged(default_document(endpoint.url), other))
    configure_spines(path)
    handles = [ask(each) for each in one_of_each("version")]
    wait_until(lambda: all(spines.keys("dspy:v1:queue:qa.control@*")), 30, "the queues of their version")
    assert endpoint.calls() == 0
    spine_worker(path)
    assert all(each.get(timeout=60).answer for each in handles)
    wait_until(lambda: spines.keys("dspy:v1:queue:*") == [[], [], []], 30, "they are left")


def test_tasks_of_another_celery_application_are_adopted_once_wherever_they_come(worker, spines):
    del worker
    for server in (spines.money, spines.servers[1]):
        app = Celery(broker=server.url, set_as_current=False)
        for _ in range(6):
            app.send_task("tests.support.user_tasks.note", [{"outputs": {"answer": "x"}}], queue="dspyq")
        app.close()
    wait_until(lambda: noted(spines) == 12, 60, lambda: f"{noted(spines)} of 12 ran")
    wait_until(lambda: spines.keys("dspy:v1:job:*") == [[], [], []], 30, "jobs are left")
    assert noted(spines) == 12


def test_spans_of_a_producer_go_on_in_the_worker_from_each_spine(worker, shared_spine_worker, spine_producer):
    del worker

    def ask_all(questions):
        from dspyq import predict
        from dspyq.tracing.tracing import process_tracing

        jobs = predict.many([{"question": each} for each in questions[:2]], program="qa")
        jobs.append(predict.apply_async(kwargs={"question": questions[2]}, program="qa"))
        answers = [job.get(timeout=60).answer for job in jobs]
        process_tracing().close(10)
        return answers

    questions, collector = one_of_each("traced", program="qa"), shared_spine_worker.collector
    traces = {span.trace_id for span in collector.spans()}
    told = spine_producer(ask_all, shared_spine_worker.settings, questions=questions).result(60)
    assert told == [f"echo:{each}" for each in questions]

    # Spans of the worker's earlier jobs may still come.
    asked = {span.trace_id for span in collector.spans() if span.kind == PRODUCER} - traces

    def spans(kind):
        return [span for span in collector.spans() if span.trace_id in asked and span.kind == kind]

    wait_until(lambda: len(spans(CLIENT)) == len(spans(CONSUMER)) == 3, 60, "the worker's spans")
    published = {span.span_id: span.trace_id for span in spans(PRODUCER)}
    processed = {span.span_id: span for span in spans(CONSUMER)}
    assert {span.trace_id for span in processed.values()} == set(published.values())
    assert all(published[span.parent_span_id] == span.trace_id for span in processed.values())
    assert Counter(span.parent_span_id for span in spans(CLIENT)) == Counter(processed.keys())
