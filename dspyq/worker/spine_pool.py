"""The worker's pool where there are several spines: a job's thread runs in the runtime of its job's spine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dspyq.core.runtime import Runtime
from dspyq.delivery.task_run import DELIVERY_PROPERTY, DeliveryProperties

#: Options of a call that run in its thread too.
_CALLBACKS = ("callback", "accept_callback", "error_callback")


def run_on_spines(pool: Any) -> None:
    """Have a pool's threads run in the runtimes of their jobs' spines.

    Threads of a pool inherit no context, and Celery may begin a job later than it came.
    """
    pool.apply_async = _on_spines(pool.apply_async)


def _on_spines(apply_async: Callable[..., Any]) -> Callable[..., Any]:
    def apply_on_spine(target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        runtime = _runtime_of(args)
        if runtime is not None:
            target = runtime.bind(target)
            options |= {name: runtime.bind(options[name]) for name in _CALLBACKS if options.get(name)}
        return apply_async(target, args, kwargs, **options)

    return apply_on_spine


def _runtime_of(args: Any) -> Runtime | None:
    """Return the runtime of the job whose task's tracer has these arguments."""
    for each in args or ():
        if isinstance(each, Mapping):  # the request
            delivery = (each.get("properties") or {}).get(DELIVERY_PROPERTY)
            return delivery.runtime if isinstance(delivery, DeliveryProperties) else None
    return None
