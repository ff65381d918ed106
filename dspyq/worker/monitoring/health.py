"""Liveness, readiness and health of this worker, for orchestrators and people.

Checks that take time or may hang run in their own threads; each request gets their latest results at once. No check
calls a model, and no result contains a secret, a URL or a user's text.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal

import orjson
import redis

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.http_server import Response
from dspyq.core.tolerated import survived
from dspyq.delivery.pauses import Pauses
from dspyq.delivery.served_spines import HeldRuns, process_served_spines
from dspyq.guards.limits import Limits
from dspyq.guards.model import Guards
from dspyq.sealing.refusals import refusals
from dspyq.store.clients import connect
from dspyq.store.scripts import run_together
from dspyq.store.seal_keys import process_keys
from dspyq.store.server import Finding, FindingKind, look_at_server, look_at_servers
from dspyq.store.spines import Spine
from dspyq.worker.consumer_watchdog import ConsumerWatchdog
from dspyq.worker.monitoring.endpoints import Endpoints

logger = logging.getLogger("dspyq.health")

Status = Literal["healthy", "degraded", "unhealthy"]
Phase = Literal["starting", "running", "ending"]

_LOOK_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
#: Age from which results are stale, because the checking thread is blocked.
_KNOWN_SECONDS = 10.0
_LOOKS_PER_ROUND = 2
_LOOKS_PER_LOOK_AT_SERVERS = 5
#: Findings with which a server still works in part: some predictions may fail or be lost.
_DEGRADING: frozenset[FindingKind] = frozenset({"eviction"})
_MILLISECONDS = 1000


class Health:
    """A worker's health.

    Args:
        settings: The configuration.
        guards: The guards of its models.
        held: The runs that it holds.
        pauses: Its pauses.

    Attributes:
        phase: Whether it is starting, running or ending.
        watchdog: The watchdog of its consumer, once there is one.
    """

    def __init__(self, settings: Settings, guards: Guards, held: HeldRuns, pauses: Pauses) -> None:
        self.phase: Phase = "starting"
        self.watchdog: ConsumerWatchdog | None = None
        self._settings = settings
        self._found: list[Finding] = []
        self._guards = guards
        self._held = held
        self._pauses = pauses
        self._endpoints = Endpoints([settings.models[name] for name in guards.breakers])
        self._clients: dict[str, redis.Redis] = {}
        self._money = self._client(settings.home_url)
        self._limits = Limits(self._money, settings)
        self._redis: dict[str, Any] = _check("unhealthy", latency_ms=None)
        self._used_up: list[str] = []
        self._looked_at = time.monotonic()

    def start(self) -> None:
        """Start periodic checks of Redis and the models' endpoints."""
        self._endpoints.start()
        threading.Thread(target=self._run, name="dspyq-health", daemon=True).start()

    def report(self) -> dict[str, Any]:
        """Return the status and its checks."""
        checks = {
            "redis": self._redis_check(),
            "dspy": self._endpoints.check(),
            "breakers": self._breakers_check(),
            "budget": _check("degraded" if self._used_up else "healthy", used_up=self._used_up),
            "consumption": self._consumption_check(),
        }
        if self._settings.encryption.is_on:
            checks["encryption"] = _encryption_check()
        found = {check["status"] for check in checks.values()}
        status = next((each for each in ("unhealthy", "degraded") if each in found), "healthy")
        return {"status": status, "checks": checks}

    def health_page(self, _accept: str) -> Response:
        """Answer ``/health``: 503 if the worker is unhealthy, else 200."""
        report = self.report()
        return Response(orjson.dumps(report), "application/json", _http_status(is_good=report["status"] != "unhealthy"))

    def ready_page(self, _accept: str) -> Response:
        """Answer ``/readyz``: 200 if this worker answers jobs now."""
        report = self.report()
        failed = [name for name, check in report["checks"].items() if check["status"] == "unhealthy"]
        text = f"not ready: {', '.join(failed)}\n" if failed else "ready\n"
        return Response(text.encode(), status=_http_status(is_good=not failed))

    def live_page(self, _accept: str) -> Response:
        """Answer ``/livez``: 503 if only a restart helps, because the consumer is stuck for good."""
        is_stuck = self.watchdog is not None and self.watchdog.is_beyond_help
        text = "the consumer is stuck\n" if is_stuck else "alive\n"
        return Response(text.encode(), status=_http_status(is_good=not is_stuck))

    def _redis_check(self) -> dict[str, Any]:
        if time.monotonic() - self._looked_at > _KNOWN_SECONDS:
            return _check("unhealthy", latency_ms=None)
        return self._redis

    def _breakers_check(self) -> dict[str, Any]:
        states = {name: breaker.state.name for name, breaker in self._guards.breakers.items()}
        is_well = all(state == "closed" for state in states.values())
        return _check("healthy" if is_well else "degraded", models=states)

    def _consumption_check(self) -> dict[str, Any]:
        watchdog, paused = self.watchdog, sorted(self._pauses.queues)
        queues = sorted(watchdog.queues) if watchdog else []
        status: Status = "degraded" if paused else "healthy"
        if self.phase != "running" or watchdog is None or watchdog.is_stalled or not queues:
            status = "unhealthy"
        return _check(
            status,
            phase=self.phase,
            queues=queues,
            paused_queues=paused,
            held_jobs=self._held.held_count,
            stalled_seconds=round(watchdog.stalled_seconds, 1) if watchdog else 0.0,
            restarts=watchdog.restarts if watchdog else 0,
        )

    def _run(self) -> None:
        looks = 0
        while True:
            with survived("health_thread"):
                self._redis = self._ask_redis(looks_at_servers=looks % _LOOKS_PER_LOOK_AT_SERVERS == 0)
                self._looked_at = time.monotonic()
                if looks % _LOOKS_PER_ROUND == 0:
                    self._ask_guards()
            looks += 1
            time.sleep(_LOOK_SECONDS)

    def _client(self, url: str) -> redis.Redis:
        """Return the client of a server, made at its first use."""
        if url not in self._clients:
            self._clients[url] = connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
        return self._clients[url]

    def _ask_redis(self, *, looks_at_servers: bool) -> dict[str, Any]:
        began_at = time.monotonic()
        served = process_served_spines().all
        urls = () if served else (self._settings.jobs_url, self._settings.answers_url)
        try:
            for url in dict.fromkeys((*urls, self._settings.home_url)):
                self._client(url).ping()
            away = [spine for spine in served if not self._answers(spine)]
            latency = milliseconds_since(began_at)
            if looks_at_servers:
                self._look_at_servers([spine for spine in served if spine not in away])
        except redis.RedisError as error:
            return _check("unhealthy", latency_ms=None, error=type(error).__name__)
        found: dict[str, Any] = {"latency_ms": latency}
        if served:
            found["spines"] = {spine.name: "away" if spine in away else "up" for spine in served}
        kinds = {each.kind for each in self._found if each.is_fault}
        if kinds:
            found["faults"] = sorted(kinds)
        if not kinds <= _DEGRADING or (served and len(away) == len(served)):
            return _check("unhealthy", **found)
        return _check("degraded" if kinds or away else "healthy", **found)

    def _answers(self, spine: Spine) -> bool:
        """Return True if a spine answers; where one does not, the worker serves the others."""
        try:
            return bool(self._client(spine.url).ping())
        except redis.RedisError:
            return False

    def _look_at_servers(self, spines: Iterable[Spine]) -> None:
        settings, found = self._settings, list[Finding]()
        if not process_served_spines().all:
            found += look_at_servers(settings, self._client(settings.jobs_url), self._client(settings.answers_url))
        for spine in spines:
            with spine.runtime.active():
                found += look_at_server(self._client(spine.url), f"redis_urls ({spine.name})", holds_jobs=True)
        for each in found:
            if each.is_fault and each not in self._found:
                logger.error(Event("redis_unfit", reason=each.text))
        self._found = found

    def _ask_guards(self) -> None:
        """Read the breakers' states and the rest of the budgets, which this worker's calls may not have read."""
        try:
            run_together(self._money, [breaker.read() for breaker in self._guards.breakers.values()])
            accounts = self._limits.limited_accounts()
        except redis.RedisError:
            return  # the check of Redis reports it
        self._used_up = [f"{each.scope} {each.period}" for each in accounts if each.free_nano_usd == 0]


def _encryption_check() -> dict[str, Any]:
    """Return the ids of this worker's keys, and of those that it was to have in the last minutes."""
    ring, unknown = process_keys().ring, refusals.unknown_keys()
    status: Status = "degraded" if unknown else "healthy"
    return _check(status, seals=ring.sealing_id, opens=ring.ids, hashes=list(ring.index), unknown=unknown)


def milliseconds_since(began_at: float) -> float:
    """Return the milliseconds since a monotonic second."""
    return round((time.monotonic() - began_at) * _MILLISECONDS, 2)


def _check(status: Status, **found: Any) -> dict[str, Any]:
    return {"status": status, **found}


def _http_status(*, is_good: bool) -> int:
    return HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
