"""One trace of a prediction, from ``delay()`` over the queue to each call of a model."""

import json

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from tests.support.collector import Collector
from tests.support.configuration import API_KEY
from tests.support.monitor import Monitor
from tests.support.processes import wait_until

QUESTION = "asked-canary"
INTERNAL, CLIENT, PRODUCER, CONSUMER = 1, 3, 4, 5
ERROR = 2


@pytest.fixture
def collector():
    with Collector() as running:
        running.status = 200
        yield running


def attributes(span):
    values = {pair.key: pair.value for pair in span.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in values.items()}


def of_kind(spans, kind):
    return sorted((span for span in spans if span.kind == kind), key=lambda span: span.start_time_unix_nano)


def ask(question):
    from dspyq import predict
    from dspyq.tracing.tracing import process_tracing

    answer = predict.apply_async(kwargs={"question": question}, request_id="mine").get(timeout=30).answer
    process_tracing().close(10)
    return answer


def test_one_trace_goes_from_delay_over_the_queue_to_each_model_call(
    collector, settings_file, worker, run_producer, endpoint
):
    changes = {
        "tracing": {"endpoint": collector.url, "service_name": "shop"},
        "programs": {"qa": {"module": "ChainOfThought"}},
        "retry": {"base_delay_seconds": 0.01},
    }
    path = settings_file(changes)
    running = worker(path)
    endpoint.script(times=1, content="no field of the answer is in here")
    endpoint.script(times=1, status=503)
    assert run_producer(ask, path, question=QUESTION)
    running.terminate()  # which exports what waits
    spans = collector.spans()
    ((publish,), (process,)) = of_kind(spans, PRODUCER), of_kind(spans, CONSUMER)
    chats = of_kind(spans, CLIENT)
    assert {span.trace_id for span in spans} == {publish.trace_id}
    assert publish.parent_span_id == b""
    assert process.parent_span_id == publish.span_id
    assert [chat.parent_span_id for chat in chats] == [process.span_id] * 3
    assert [publish.name, process.name] == ["publish qa.control", "process qa.control"]
    assert {chat.name for chat in chats} == {"chat control"}
    sent, told = attributes(publish), attributes(process)
    assert sent["messaging.operation.type"] == "send"
    assert sent["messaging.message.id"] == told["messaging.message.id"]
    assert told["messaging.message.conversation_id"] == "mine"
    assert (told["dspyq.status"], told["dspyq.model"], told["dspyq.run"]) == ("success", "control", 1)
    outcomes = [attributes(chat) for chat in chats]
    failed = [chat for chat in chats if "error.type" in attributes(chat)]
    assert [chat.status.code for chat in failed] == [ERROR]
    answered = [outcome for outcome in outcomes if "error.type" not in outcome]
    assert len(answered) == 2
    assert sorted(outcome["dspyq.attempt"] for outcome in outcomes) == [1, 1, 2]
    for outcome in answered:
        assert outcome["gen_ai.operation.name"] == "chat"
        assert outcome["gen_ai.provider.name"] == "openai"
        assert outcome["gen_ai.request.model"] == outcome["gen_ai.response.model"] == "control"
        assert outcome["gen_ai.usage.input_tokens"] > 0 < outcome["gen_ai.usage.output_tokens"]
        assert outcome["gen_ai.response.finish_reasons"].values[0].string_value == "stop"
        assert outcome["server.address"] == "127.0.0.1"
    assert sum(outcome["dspyq.cost_usd"] for outcome in answered) == pytest.approx(told["dspyq.cost_usd"])
    assert QUESTION not in repr(spans)
    assert API_KEY not in repr(spans)
    conventions = {
        value
        for module in (gen_ai_attributes, messaging_attributes, error_attributes, server_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    named = {name for outcome in (sent, told, *outcomes) for name in outcome if not name.startswith("dspyq.")}
    assert named <= conventions


def test_a_trace_that_the_producers_own_provider_records_goes_on_in_the_worker(
    collector, settings_file, worker, run_producer
):
    def ask_within_a_request(parent):
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

        from dspyq import predict
        from dspyq.tracing.propagation import request_context

        with request_context(traceparent=parent), trace.get_tracer("shop").start_as_current_span("request"):
            jobs = [*predict.many([{"question": "a"}, {"question": "b"}]), predict.delay(question="c")]
            for job in jobs:
                job.get(timeout=30)
            predict.delay(question="c").get(timeout=30)
        spans = {span.name: span for span in exporter.get_finished_spans()}
        events = [[event.name, event.attributes["dspyq.cache.level"]] for event in spans["request"].events]
        return [sorted(spans), {job.request.request_id for job in jobs} == {parent.split("-")[1]}, events]

    path = settings_file({"tracing": {"endpoint": collector.url}})
    running = worker(path)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    names, has_the_traces_id, events = run_producer(ask_within_a_request, path, parent=parent)
    assert names == ["publish qa", "publish qa.control", "request"]
    assert has_the_traces_id
    assert events in ([["dspyq.cached", "memory"]], [["dspyq.cached", "redis"]])
    running.terminate()
    spans = collector.spans()
    assert {span.trace_id.hex() for span in spans} == {parent.split("-")[1]}
    assert len(of_kind(spans, CONSUMER)) == len(of_kind(spans, CLIENT)) == 3
    assert not of_kind(spans, PRODUCER)  # those went where the producer's provider sends them


def test_an_endpoint_that_hangs_keeps_no_prediction_waiting_and_the_worker_ends(
    collector, settings_file, worker, run_producer
):
    def ask_many():
        from dspyq import predict

        return len([job.get(timeout=20) for job in predict.many([{"question": f"{n}"} for n in range(20)])])

    collector.going.clear()
    path = settings_file({"tracing": {"endpoint": collector.url}})
    running = worker(path)
    assert run_producer(ask_many, path) == 20
    wait_until(lambda: collector.pushes, 60, "the export that hangs")
    assert run_producer(ask_many, path) == 20
    assert running.terminate(60) == 0


def test_spans_that_an_endpoint_refuses_are_counted_and_logged_once(collector, settings_file, worker, run_producer):
    collector.status = 400
    path = settings_file(
        {"tracing": {"endpoint": collector.url}, "metrics": {"port": 0}, "logging": {"format": "json"}}
    )
    running = worker(path)
    monitor = Monitor.of(running)
    for question in ("one", "two"):
        run_producer(ask, path, question=question)
        pushed = len(collector.pushes)
        wait_until(lambda before=pushed: len(collector.pushes) > before, 60, "the worker's export")
    wait_until(lambda: monitor.metrics()["dspy_spans_lost_total"] >= 4, 60, "the count")
    (line,) = [line for line in running.logs().splitlines() if '"spans_lost"' in line]
    assert json.loads(line)["endpoint"] == f"{collector.url}/v1/traces"


def test_where_tracing_is_off_neither_spans_nor_an_exporter_are_loaded(run_producer, shared_worker):
    def ask_and_look():
        import sys

        from dspyq import predict

        predict.delay(question="q").get(timeout=20)
        # redis-py loads OpenTelemetry's metrics wherever they are installed.
        return [
            name
            for name in sys.modules
            if name.startswith(("dspyq.tracing.spans", "opentelemetry.exporter", "structlog"))
        ]

    del shared_worker
    assert not run_producer(ask_and_look)
