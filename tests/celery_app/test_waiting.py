"""The waiter: its thread ends by nothing, and one bad message spoils itself alone."""

# ruff: noqa: SLF001 - its threads and tables are what is tested

import asyncio
import functools
import os
import queue
import resource
import threading
from contextlib import suppress

import orjson
import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspyq.core.tolerated import tolerated
from tests.properties.profiles import examples
from tests.support.processes import eventually
from tests.support.proxy import Proxy

PREFIX = "celery-task-meta-"
pytestmark = pytest.mark.usefixtures("configured")

GOOD = orjson.dumps({"status": "SUCCESS", "result": 1, "traceback": None, "children": []})


@pytest.fixture
def client(redis_server):
    with redis_server.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def waiter(client):
    from dspyq.celery_app.waiting import Waiter

    waiter = Waiter(client, client)
    yield waiter
    waiter.close()


def is_heard(waiter, client, task_id="good"):
    client.set(PREFIX + task_id, GOOD)
    client.publish(PREFIX + task_id, GOOD)
    try:
        return waiter.wait(task_id, 20) == GOOD
    finally:
        client.delete(PREFIX + task_id)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
metas = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["SUCCESS", "FAILURE", "REVOKED", "RETRY", "PENDING"]) | json_values,
        "result": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "dspyq": st.just(1),
                "outputs": json_values,
                "metadata": json_values,
                "exc_type": st.sampled_from(["SystemExit", "KeyboardInterrupt", "system", "Popen"]) | json_values,
                "exc_module": st.sampled_from(["builtins", "os", "subprocess"]) | json_values,
                "exc_message": json_values,
            },
        ),
        "children": json_values,
        "traceback": json_values,
    },
)


def encode(meta):
    import json

    return json.dumps(meta).encode(errors="replace")


@pytest.mark.property
@settings(max_examples=examples(50, 150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200) | json_values.map(encode) | metas.map(encode), is_stored=st.booleans())
def test_whatever_bytes_come_in_a_results_place_the_next_good_one_is_handed_out(payload, is_stored):
    from celery.result import AsyncResult

    from dspyq.celery_app.application import app
    from dspyq.celery_app.waiting import process_waiter
    from dspyq.client.result import PredictionResult
    from dspyq.store.clients import answers_client

    waiter, client = process_waiter(), answers_client()
    heard = threading.Event()
    waiter.add("bad", lambda _: heard.set())
    thread = waiter._thread
    client.publish(PREFIX + "bad", payload)
    if is_stored:
        client.set(PREFIX + "bad", payload)
        for handle in (PredictionResult("bad"), AsyncResult("bad", app=app)):
            with suppress(Exception):  # and nothing that would end a thread
                if handle.ready():
                    handle.get(timeout=20)
    assert is_heard(waiter, client)
    waiter._awaited.clear()
    client.delete(PREFIX + "bad")
    assert waiter._thread is thread
    assert thread.is_alive()


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"[1]", b"{}", b"{" * 3000, b'{"status":"FAILURE","result":5}'])
def test_waiting_for_bytes_that_are_no_result_raises_an_error_of_ours(client, payload):
    from dspyq.client.result import PredictionResult
    from dspyq.errors import NotAPrediction

    before = tolerated("result")
    client.set(PREFIX + "bad", payload)
    handle = PredictionResult("bad")
    with pytest.raises(NotAPrediction, match="ask again"):
        handle.get(timeout=20)
    assert PredictionResult("bad").state == "FAILURE"
    assert tolerated("result") > before


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("builtins", "SystemExit", "PredictionFailed: SystemExit: 3"),
        ("builtins", "StopIteration", "PredictionFailed: StopIteration: 3"),
        ("builtins", "StopAsyncIteration", "PredictionFailed: StopAsyncIteration: 3"),
        ("builtins", "KeyboardInterrupt", "PredictionFailed: KeyboardInterrupt: 3"),
        ("builtins", "GeneratorExit", "PredictionFailed: GeneratorExit: 3"),
        ("asyncio.exceptions", "CancelledError", "PredictionFailed: CancelledError: 3"),
        ("os", "system", "NotAPrediction: the value"),
        ("os", "path", "NotAPrediction: the value"),
        ("subprocess", "Popen", "NotAPrediction: the value"),
        ("builtins", "ValueError", "ValueError: 3"),
        ("dspyq.errors", "BudgetExceeded", "BudgetExceeded: 3"),
        ("celery.exceptions", "TaskRevokedError", "TaskRevokedError: 3"),
        ("nowhere", "Unknown", "Unknown: 3"),
        (None, "Unknown", "Unknown: 3"),
        (["nowhere"], "Unknown", "NotAPrediction: the value"),
        ("builtins", None, "NotAPrediction: the value"),
    ],
)
def test_an_error_from_redis_is_never_one_that_ends_a_thread_nor_a_call_of_anything(client, module, name, expected):
    from dspyq.client.result import PredictionResult

    error = {"exc_module": module, "exc_type": name, "exc_message": ["3"]}
    client.set(PREFIX + "bad", orjson.dumps({"status": "FAILURE", "result": error, "traceback": None, "children": []}))
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the name is compared below
        PredictionResult("bad").get(timeout=20)
    assert f"{type(raised.value).__name__}: {raised.value}".startswith(expected)


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff",
        b'{"status": "SUCCESS", "result": 5}',
        b'{"status": "SUCCESS", "result": {"dspyq": 1, "outputs": {}, "metadata": {}}}',
        b'{"status": "SUCCESS", "result": {"dspyq": 1, "outputs": 5, "metadata": {"usage": 1, "cost_usd": "x"}}}',
    ],
)
def test_a_damaged_answer_is_computed_again_for_the_next_caller(predict, shared_worker, client, damage):
    del shared_worker
    from dspyq.cache.memory import process_cache

    job = predict.delay(question="q")
    answer = job.get(timeout=20).answer
    process_cache().memory.clear()
    client.set(PREFIX + job.id, damage)
    assert predict.delay(question="q").get(timeout=20).answer == answer


def test_a_callback_that_raises_keeps_no_other_from_being_called(waiter, client):
    def leave(_):
        raise SystemExit

    heard = threading.Event()
    waiter.add("task", leave)
    waiter.add("task", lambda _: heard.set())
    client.set(PREFIX + "task", GOOD)
    assert heard.wait(60)
    assert is_heard(waiter, client)
    assert tolerated("callback") > 0


def test_an_event_loop_that_was_closed_while_it_waited_ends_no_ones_wait(client):
    from dspyq.celery_app.waiting import process_waiter
    from dspyq.client.result import PredictionResult

    async def wait_for_it():
        return await PredictionResult("task")

    async def abandon():
        task = asyncio.get_running_loop().create_task(wait_for_it())
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    abandoned = loop.run_until_complete(abandon())
    loop.close()
    client.set(PREFIX + "task", GOOD)
    assert is_heard(process_waiter(), client)
    assert not abandoned.done()


def test_results_arrive_with_more_than_1500_open_files(redis_server, client):
    from dspyq.celery_app.waiting import Waiter

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1500)]
    try:
        with redis_server.client(decode_responses=False) as own:
            waiter = Waiter(own, own)
            assert is_heard(waiter, client)
            assert waiter._wake_reader > 1024
            waiter.close()
    finally:
        for each in files:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_timeout_states_that_the_prediction_continues():
    from dspyq.client.result import PredictionResult

    with pytest.raises(CeleryTimeoutError, match="goes on"):
        PredictionResult("nobody").get(timeout=0.05)


def test_a_waiter_without_callers_keeps_nothing(waiter, client):
    assert is_heard(waiter, client)
    eventually(lambda: not waiter._awaited)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("redis", {"piece_bytes": 1000, "pause_seconds": 0.002}),
        ("rediss", {"is_tls": True}),
        ("rediss", {"is_tls": True, "piece_bytes": 5000, "pause_seconds": 0.002}),
    ],
)
def test_an_answer_that_arrives_in_parts_does_not_cost_the_connection(redis_server, client, caplog, scheme, options):
    from dspyq.celery_app.waiting import Waiter
    from dspyq.store.clients import connect

    with Proxy(redis_server.port, **options) as proxy:
        own = connect(f"{scheme}://127.0.0.1:{proxy.port}/0" + ("?ssl_cert_reqs=none" if scheme == "rediss" else ""))
        waiter = Waiter(own, own)
        assert is_heard(waiter, client)  # it listens
        for size in range(20_000, 60_000, 4_000):
            answer, heard = orjson.dumps({"status": "SUCCESS", "result": "x" * size}), queue.SimpleQueue()
            waiter.add(f"task{size}", heard.put)
            eventually(functools.partial(client.publish, f"{PREFIX}task{size}", answer))
            assert heard.get(timeout=20) == answer
        waiter.close()
        assert not [message for message in caplog.messages if "results_not_heard" in message]
