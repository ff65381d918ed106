"""Whether this worker lives, is ready and is well, as orchestrators and people ask.

What takes time, or may never answer, is asked by threads of its own; who asks here gets what they found last, at once.
Nothing here calls a model, and nothing shows a secret, a URL or a user's text.
"""

from __future__ import annotations

import logging
import threading
import time
from http import HTTPStatus
from typing import Any, Literal

import orjson
import redis

from dspyq.config.settings import Settings
from dspyq.core.http_server import Reply
from dspyq.delivery.leases import Leases
from dspyq.delivery.pauses import Pauses
from dspyq.guards.limits import Limits
from dspyq.guards.model import Guards
from dspyq.store.clients import connect
from dspyq.store.scripts import run_together
from dspyq.worker.consumer_watchdog import Progress
from dspyq.worker.monitoring.endpoints import Endpoints

logger = logging.getLogger("dspyq.health")

Status = Literal["healthy", "degraded", "unhealthy"]
Phase = Literal["starting", "running", "ending"]

_LOOK_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
#: What was found longer ago than this is not known any more: the thread that asks does not get to it.
_KNOWN_SECONDS = 10.0
_LOOKS_PER_ROUND = 2
_MILLISECONDS = 1000


class Health:
    """A worker's health.

    Args:
        settings: The configuration.
        guards: The guards of its models.
        leases: Its leases.
        pauses: Its pauses.

    Attributes:
        phase: Whether it is starting, running or ending.
        progress: What watches its consumer, once that is there.
    """

    def __init__(self, settings: Settings, guards: Guards, leases: Leases, pauses: Pauses) -> None:
        self.phase: Phase = "starting"
        self.progress: Progress | None = None
        self._guards = guards
        self._leases = leases
        self._pauses = pauses
        self._endpoints = Endpoints([settings.models[name] for name in guards.breakers])
        urls = dict.fromkeys((settings.jobs_url, settings.answers_url))
        self._clients = [connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) for url in urls]
        self._limits = Limits(self._clients[0], settings)
        self._redis: dict[str, Any] = _check("unhealthy", latency_ms=None)
        self._used_up: list[str] = []
        self._looked_at = time.monotonic()

    def start(self) -> None:
        """Start to ask Redis and the models' endpoints how they are, again and again."""
        self._endpoints.start()
        threading.Thread(target=self._run, name="dspyq-health", daemon=True).start()

    def report(self) -> dict[str, Any]:
        """Return the status, and the checks that it is made of."""
        checks = {
            "redis": self._redis_check(),
            "dspy": self._endpoints.check(),
            "breakers": self._breakers_check(),
            "budget": _check("degraded" if self._used_up else "healthy", used_up=self._used_up),
            "consumption": self._consumption_check(),
        }
        found = {check["status"] for check in checks.values()}
        status = next((each for each in ("unhealthy", "degraded") if each in found), "healthy")
        return {"status": status, "checks": checks}

    def health_page(self, _accept: str) -> Reply:
        """Answer ``/health``: 503 where the worker is unhealthy, else 200."""
        report = self.report()
        return Reply(orjson.dumps(report), "application/json", _http_status(is_good=report["status"] != "unhealthy"))

    def ready_page(self, _accept: str) -> Reply:
        """Answer ``/readyz``: whether jobs are answered here now."""
        report = self.report()
        failed = [name for name, check in report["checks"].items() if check["status"] == "unhealthy"]
        text = f"not ready: {', '.join(failed)}\n" if failed else "ready\n"
        return Reply(text.encode(), status=_http_status(is_good=not failed))

    def live_page(self, _accept: str) -> Reply:
        """Answer ``/livez``: whether a new start would not help. It does where the consumer is stuck for good."""
        is_stuck = self.progress is not None and self.progress.is_beyond_help
        text = "the consumer is stuck\n" if is_stuck else "alive\n"
        return Reply(text.encode(), status=_http_status(is_good=not is_stuck))

    def _redis_check(self) -> dict[str, Any]:
        if time.monotonic() - self._looked_at > _KNOWN_SECONDS:
            return _check("unhealthy", latency_ms=None)
        return self._redis

    def _breakers_check(self) -> dict[str, Any]:
        states = {name: breaker.state.name for name, breaker in self._guards.breakers.items()}
        is_well = all(state == "closed" for state in states.values())
        return _check("healthy" if is_well else "degraded", models=states)

    def _consumption_check(self) -> dict[str, Any]:
        progress, paused = self.progress, sorted(self._pauses.queues)
        queues = sorted(progress.queues) if progress else []
        status: Status = "degraded" if paused else "healthy"
        if self.phase != "running" or progress is None or progress.is_stalled or not queues:
            status = "unhealthy"
        return _check(
            status,
            phase=self.phase,
            queues=queues,
            paused_queues=paused,
            held_jobs=self._leases.held_count,
            stalled_seconds=round(progress.stalled_seconds, 1) if progress else 0.0,
            restarts=progress.restarts if progress else 0,
        )

    def _run(self) -> None:
        looks = 0
        while True:
            self._redis = self._ask_redis()
            if looks % _LOOKS_PER_ROUND == 0:
                self._ask_guards()
            looks += 1
            self._looked_at = time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _ask_redis(self) -> dict[str, Any]:
        began_at = time.monotonic()
        try:
            for client in self._clients:
                client.ping()
        except redis.RedisError as error:
            return _check("unhealthy", latency_ms=None, error=type(error).__name__)
        return _check("healthy", latency_ms=milliseconds_since(began_at))

    def _ask_guards(self) -> None:
        """Learn what no call of this worker may have told: the breakers' states, and what budgets have left."""
        try:
            run_together(self._clients[0], [breaker.read() for breaker in self._guards.breakers.values()])
            accounts = self._limits.accounts()
        except redis.RedisError:
            return  # the check of Redis says so
        self._used_up = [f"{each.scope} {each.period}" for each in accounts if each.free_nano_usd == 0]


def milliseconds_since(began_at: float) -> float:
    """Return how long ago a monotonic second was."""
    return round((time.monotonic() - began_at) * _MILLISECONDS, 2)


def _check(status: Status, **found: Any) -> dict[str, Any]:
    return {"status": status, **found}


def _http_status(*, is_good: bool) -> int:
    return HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
