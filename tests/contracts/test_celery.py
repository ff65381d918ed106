"""Private parts of Celery that dspyq uses."""

from __future__ import annotations

import celery
import pytest
from celery import _state, beat
from celery.app import amqp, trace
from celery.backends.redis import RedisBackend, ResultConsumer
from celery.events.dispatcher import EventDispatcher
from celery.local import Proxy, maybe_evaluate
from celery.result import AsyncResult
from celery.worker.consumer import consumer
from celery.worker.request import Request

from tests.support.contracts import parameters


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (celery.Celery, "AsyncResult", "property"),
        (celery.Celery, "GroupResult", "property"),
        (celery.Celery, "_after_fork", "self"),
        (celery.Celery, "pool", "property"),
        (Proxy, "_get_current_object", "self"),
        (Proxy, "__getattr__", "self name"),
        (AsyncResult, "__del__", "self"),
        (AsyncResult, "__init__", "self id backend task_name app parent"),
        (AsyncResult, "_get_task_meta", "self"),
        (AsyncResult, "_maybe_set_cache", "self meta"),
        (AsyncResult, "_on_fulfilled", "self result"),
        (AsyncResult, "_set_cache", "self d"),
        (AsyncResult, "then", "self callback on_error weak"),
        (RedisBackend, "_get_pool", "self **params"),
        (RedisBackend, "_get_result_meta", "self result state traceback request format_date encode"),
        (RedisBackend, "_store_result", "self task_id result state traceback request **kwargs"),
        (RedisBackend, "_wait_for_pending", "self result timeout on_interval on_message **kwargs"),
        (RedisBackend, "_get_task_meta_for", "self task_id"),
        (RedisBackend, "_set_with_state", "self key value state"),
        (RedisBackend, "_unpack_chord_result", "self tup decode EXCEPTION_STATES PROPAGATE_STATES"),
        (RedisBackend, "encode", "self data"),
        (RedisBackend, "add_pending_result", "self result weak start_drainer"),
        (RedisBackend, "remove_pending_result", "self result"),
        (RedisBackend, "current_task_children", "self request"),
        (RedisBackend, "decode_result", "self payload"),
        (RedisBackend, "ensure", "self fun args **policy"),
        (RedisBackend, "exception_to_python", "self exc"),
        (RedisBackend, "iter_native", "self result no_ack **kwargs"),
        (RedisBackend, "get_key_for_group", "self group_id key"),
        (RedisBackend, "meta_from_decoded", "self meta"),
        (RedisBackend, "on_chord_part_return", "self request state result propagate **kwargs"),
        (RedisBackend, "on_task_call", "self producer task_id"),
        (RedisBackend, "prepare_exception", "self exc serializer"),
        (ResultConsumer, "_after_fork", "self"),
        (EventDispatcher, "flush", "self errors groups"),
        (EventDispatcher, "publish", "self type fields producer blind Event **kwargs"),
        (EventDispatcher, "send", "self type blind utcoffset retry retry_policy Event **fields"),
        (Request, "humaninfo", "self"),
        (Request, "info", "self safe"),
        (beat.PersistentScheduler, "_destroy_open_corrupted_schedule", "self exc"),
        (beat.PersistentScheduler, "setup_schedule", "self"),
        (trace, "saferepr", "o maxlen maxlevels seen"),
        (_state, "get_current_task", ""),
    ],
)
def test_what_is_overridden_or_called_has_its_parameters(owner: object, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def test_a_value_is_stored_and_published_by_one_method() -> None:
    assert parameters(RedisBackend, "_set") in {
        "self key value expires",
        "self key value",  # before 5.7, which lets a value have a lifetime of its own
    }


def test_an_application_names_its_parts() -> None:
    for name in ("amqp_cls", "events_cls", "control_cls", "task_cls"):
        assert isinstance(getattr(celery.Celery, name), str)
    assert celery.Celery.builtin_fixups == {"celery.fixups.django:fixup"}
    app = celery.Celery(set_as_current=False, backend="cache+memory://")
    app.conf.result_backend_thread_safe = True  # else each thread has one of its own
    assert app._backend_cache is None
    assert app.backend is app._backend_cache


def test_a_message_describes_its_arguments_by_two_options() -> None:
    options = parameters(amqp.AMQP, "as_task_v2").split()
    assert {"argsrepr", "kwargsrepr", "stamped_headers", "replaced_task_nesting"} <= set(options)


def test_a_result_holds_what_it_has_read_in_its_cache() -> None:
    app = celery.Celery(set_as_current=False, backend="cache+memory://")
    result = AsyncResult("id", app=app)
    assert (result._cache, result._ignored) == (None, False)
    result._maybe_set_cache({"status": "SUCCESS", "result": 1, "children": []})
    assert result._cache["result"] == result.get(timeout=1) == 1


def test_an_error_is_stored_by_the_name_and_module_of_its_class() -> None:
    app = celery.Celery(set_as_current=False, backend="cache+memory://")
    stored = app.backend.prepare_exception(ZeroDivisionError("a", 1))
    assert stored == {"exc_type": "ZeroDivisionError", "exc_message": ("a", 1), "exc_module": "builtins"}
    assert isinstance(app.backend.exception_to_python(stored), ZeroDivisionError)


def test_records_that_quote_a_message_can_be_recognized() -> None:
    for name in ("INVALID_TASK_ERROR", "MESSAGE_DECODE_ERROR", "UNKNOWN_FORMAT", "UNKNOWN_TASK_ERROR"):
        assert isinstance(getattr(consumer, name), str)


def test_a_task_names_the_class_of_its_requests() -> None:
    assert celery.Task.Request == "celery.worker.request:Request"
    for name in ("_decoded", "_body", "_content_type", "_content_encoding"):
        assert name in Request.__slots__ or hasattr(Request, name) or name in Request.__init__.__code__.co_names


def test_a_configuration_holds_what_was_set_by_hand_apart_and_can_be_another_applications() -> None:
    app, twin = (celery.Celery(set_as_current=False) for _ in range(2))
    for each, url in ((app, "memory://one"), (twin, "memory://two")):
        each.config_from_object({"broker_url": url})
        assert not isinstance(each._conf.changes, dict)  # it has not been read yet
    assert app.conf.broker_url == "memory://one"
    app.conf.task_time_limit = 7
    assert app._conf.changes["task_time_limit"] == 7
    assert "broker_url" not in app._conf.changes
    twin.conf.update(app._conf.changes)
    app._conf = twin.conf
    assert (app.conf.broker_url, app.conf.task_time_limit) == ("memory://two", 7)
    assert app._config_source == {"broker_url": "memory://one"}
    assert app._pool is None


def test_a_task_is_made_once_for_each_application_and_evaluated_when_it_is_used() -> None:
    app = celery.Celery(set_as_current=False)

    def run() -> None:
        """Do nothing."""

    first, second = (app.task(run, name="named", shared=False) for _ in range(2))
    assert maybe_evaluate(first) is maybe_evaluate(second)
    assert maybe_evaluate(first)._app is app
