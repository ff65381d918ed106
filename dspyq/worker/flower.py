"""Flower fitted to dspyq: every queue with what waits in it, and results only where content may be seen.

What Flower shows of tasks comes from events and from workers, which leave content out by themselves. What is left is
what it reads from Redis. Its handlers of those pages are replaced by ones derived from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from celery import Celery
from flower.api.tasks import BaseTaskHandler, GetQueueLengths, TaskApply, TaskResult
from flower.urls import handlers
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from tornado.web import url

from dspyq.config.privacy import exception_type, hides_content
from dspyq.delivery.leases import process_leases


class _WaitingJobs:
    """Flower's broker, over the job records and with the client of everything else: TLS and Sentinel work too."""

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(_count_waiting, names)


def _count_waiting(names: Iterable[str]) -> list[dict[str, Any]]:
    records = process_leases().records
    return [{"name": name, "messages": records.backlog(name)} for name in names]


class _Queues(BaseHandler):  # type: ignore[misc]  # flower ships no types
    """Shows the configured queues too that no worker serves: those need an operator most."""

    def get_broker(self) -> _WaitingJobs:
        return _WaitingJobs()

    def get_active_queue_names(self) -> list[str]:
        return sorted({*super().get_active_queue_names(), *self.capp.amqp.queues})


class _BrokerView(_Queues, BrokerView):  # type: ignore[misc]  # flower ships no types
    pass


class _QueueLengths(_Queues, GetQueueLengths):  # type: ignore[misc]  # flower ships no types
    pass


class _Results(BaseTaskHandler):  # type: ignore[misc]  # flower ships no types
    """Shows the state of a task, and of an exception its type."""

    def update_response_result(self, response: dict[str, Any], result: Any) -> None:
        if not hides_content():
            super().update_response_result(response, result)
        elif isinstance(result.result, BaseException):
            response["result"] = exception_type(repr(result.result))


class _TaskResult(_Results, TaskResult):  # type: ignore[misc]  # flower ships no types
    pass


class _TaskApply(_Results, TaskApply):  # type: ignore[misc]  # flower ships no types
    pass


_REPLACED = {BrokerView: _BrokerView, GetQueueLengths: _QueueLengths, TaskResult: _TaskResult, TaskApply: _TaskApply}


def fit(app: Celery) -> None:
    """Fit the Flower of this process.

    Args:
        app: The Celery application, which Flower takes results from only if it is the default one.
    """
    app.set_default()
    handlers[:] = [_replaced(handler) for handler in handlers]


def _replaced(handler: Any) -> Any:
    if isinstance(handler, url):
        handler_class = _REPLACED.get(handler.handler_class, handler.handler_class)
        return url(handler.regex.pattern, handler_class, handler.kwargs, handler.name)
    pattern, handler_class, *options = handler
    return (pattern, _REPLACED.get(handler_class, handler_class), *options)
