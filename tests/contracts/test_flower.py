"""Private parts of Flower that dspyq.worker.flower uses."""

from __future__ import annotations

import pytest
from flower import command
from flower.api.tasks import BaseTaskHandler, GetQueueLengths, TaskApply, TaskResult
from flower.app import Flower
from flower.urls import handlers
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from tornado.web import url

from tests.support.contracts import parameters


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (BaseHandler, "get_active_queue_names", "self"),
        (BaseHandler, "get_broker", "self"),
        (BaseTaskHandler, "update_response_result", "self response result"),
        (Flower, "start_http_server", "self"),
    ],
)
def test_what_is_overridden_has_its_parameters(owner: type, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def test_each_handler_that_is_replaced_is_routed_once() -> None:
    classes = [each.handler_class if isinstance(each, url) else each[1] for each in handlers]
    for handler in (BrokerView, GetQueueLengths, TaskResult, TaskApply):
        named = [each for each in classes if isinstance(each, type) and issubclass(each, handler)]
        assert named, handler
    assert issubclass(command.Flower, Flower)
