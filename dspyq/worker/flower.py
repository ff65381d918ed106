"""Flower adapted to dspyq: every queue with its waiting jobs, and results only if content may be shown.

Events and workers already leave content out of Flower's pages. The rest comes from Redis; the handlers of those pages
are replaced by subclasses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from celery import Celery
from flower import command
from flower.api.tasks import BaseTaskHandler, GetQueueLengths, TaskApply, TaskResult
from flower.app import Flower
from flower.urls import handlers
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from tornado.web import url

from dspyq.config.privacy import exception_type, hides_content
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.delivery.leases import process_leases
from dspyq.errors import ConfigurationError
from dspyq.store.spines import each_spine
from dspyq.worker.refusal import refuse

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_HINT = (
    "Flower shows events and queues, but neither pools nor settings of workers, and cannot control any: "
    "set workers.remote_control = true for that"
)


class _WaitingJobs:
    """Flower's broker, over the job records and with our Redis client, so that TLS and Sentinel work."""

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(_count_waiting, names)


def _count_waiting(names: Iterable[str]) -> list[dict[str, Any]]:
    waiting = Counter[str]()
    wanted = list(names)
    for _ in each_spine():
        waiting.update({name: process_leases().records.backlog(name) for name in wanted})
    return [{"name": name, "messages": waiting[name]} for name in wanted]


class _AllQueues(BaseHandler):  # type: ignore[misc]  # flower ships no types
    """List of queues that includes configured ones without a worker, which need an operator most."""

    def get_broker(self) -> _WaitingJobs:
        return _WaitingJobs()

    def get_active_queue_names(self) -> list[str]:
        # Flower's own list fails on our queues while no worker has answered remote control, which is off by default.
        known = (queue["name"] for info in self.application.workers.values() for queue in info.get("active_queues", ()))
        return sorted({*known, *self.capp.amqp.queues})


class _BrokerView(_AllQueues, BrokerView):  # type: ignore[misc]  # flower ships no types
    pass


class _QueueLengths(_AllQueues, GetQueueLengths):  # type: ignore[misc]  # flower ships no types
    pass


class _Results(BaseTaskHandler):  # type: ignore[misc]  # flower ships no types
    """Page of a task's result that shows its state, and only the type of an exception."""

    def update_response_result(self, response: dict[str, Any], result: Any) -> None:
        if not hides_content():
            super().update_response_result(response, result)
        elif isinstance(result.result, BaseException):
            response["result"] = exception_type(repr(result.result))


class _TaskResult(_Results, TaskResult):  # type: ignore[misc]  # flower ships no types
    pass


class _TaskApply(_Results, TaskApply):  # type: ignore[misc]  # flower ships no types
    pass


class _Flower(Flower):  # type: ignore[misc]  # flower ships no types
    """Flower that listens on this machine alone unless configured otherwise, and elsewhere requires a login."""

    def start_http_server(self) -> int | None:
        """Listen, and return the port; end the process if the page would be open to other machines without a login."""
        self.options.address = self.options.address or _LOOPBACK
        if not (self.options.unix_socket or _is_of_this_machine(self.options.address) or _asks_to_log_in(self.options)):
            refuse(
                ConfigurationError(
                    f"Flower would listen at {self.options.address} without a password: set FLOWER_BASIC_AUTH="
                    "user:password (or --auth with --auth_provider), or leave the address out to listen to this "
                    "machine alone"
                )
            )
        port: int | None = super().start_http_server()
        return port


def _is_of_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def _asks_to_log_in(options: Any) -> bool:
    logins = options.basic_auth or []
    has_passwords = all(user and password for user, _, password in (each.partition(":") for each in logins))
    return bool((logins and has_passwords) or (options.auth and options.auth_provider))


_REPLACED = {BrokerView: _BrokerView, GetQueueLengths: _QueueLengths, TaskResult: _TaskResult, TaskApply: _TaskApply}


def fit(app: Celery) -> None:
    """Adapt the Flower of this process.

    Args:
        app: The Celery application, which Flower takes results from only if it is the default one.
    """
    if not get_settings().workers.remote_control:
        logger.warning(Event("remote_control_off", hint=_HINT))
    app.set_default()
    command.Flower = _Flower
    handlers[:] = [_replaced(handler) for handler in handlers]


def _replaced(handler: Any) -> Any:
    if isinstance(handler, url):
        handler_class = _REPLACED.get(handler.handler_class, handler.handler_class)
        return url(handler.regex.pattern, handler_class, handler.kwargs, handler.name)
    pattern, handler_class, *options = handler
    return (pattern, _REPLACED.get(handler_class, handler_class), *options)
