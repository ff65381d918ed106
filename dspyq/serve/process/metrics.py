"""Prometheus metrics of the HTTP door. Its event loop counts; the numbers are put together when Prometheus reads."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sized
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from dspyq.client.metrics import register_metrics

if TYPE_CHECKING:
    from dspyq.serve.door import Door
    from dspyq.serve.exchange import Exchange

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BOUNDS = [*map(str, _BUCKETS_SECONDS), "+Inf"]
#: Methods that a client makes up are one series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestCounts:
    """Counts of answered requests."""

    def __init__(self) -> None:
        self.by_status: dict[tuple[str, str, int], int] = {}
        self.durations: dict[tuple[str, str], Durations] = {}

    def note(self, exchange: Exchange) -> None:
        """Count a request; no status means that its client left first."""
        method: str = exchange.scope["method"]
        key = exchange.route, method if method in _METHODS else "other", exchange.status
        self.by_status[key] = self.by_status.get(key, 0) + 1
        place = exchange.route, exchange.cache_level
        durations = self.durations.get(place)
        if durations is None:
            durations = self.durations[place] = Durations()
        durations.add(time.monotonic() - exchange.started_at)


class Durations:
    """A histogram.

    Attributes:
        counts: Numbers of durations, by bucket.
        sum_seconds: Their sum.
    """

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add a duration."""
        self.counts[bisect_left(_BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class DoorCollector(Collector):
    """The metrics of one server process.

    Args:
        door: Its parts.
        counts: Counts of its requests.
        connections: Its open connections.
    """

    def __init__(self, door: Door, counts: RequestCounts, connections: Sized) -> None:
        self._door = door
        self._counts = counts
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        requests = CounterMetricFamily(
            "dspyq_http_requests",
            "Requests that the HTTP door answered; status 0 where the client left first.",
            labels=["route", "method", "status"],
        )
        counts = self._counts
        for (route, method, status), number in list(counts.by_status.items()):
            requests.add_metric([route, method, str(status)], number)
        yield requests
        seconds = HistogramMetricFamily(
            "dspyq_http_request_seconds",
            "Duration of those requests, with their waits.",
            labels=["route", "cache_level"],
        )
        for (route, level), durations in list(counts.durations.items()):
            buckets = list(zip(_BOUNDS, map(float, accumulate(durations.counts)), strict=True))
            seconds.add_metric([route, level], buckets, durations.sum_seconds)
        yield seconds
        room = self._door.room
        yield GaugeMetricFamily("dspyq_http_waiting", "Requests that wait for an answer.", room.waiting)
        yield GaugeMetricFamily("dspyq_http_connections", "Open connections of clients.", len(self._connections))
        yield GaugeMetricFamily("dspyq_http_streams", "Event streams that are open.", self._door.streams)
        refused = CounterMetricFamily(
            "dspyq_http_refused", "Requests that were refused to keep the server answering.", labels=["why"]
        )
        for why, number in room.refused.items():
            refused.add_metric([why], number)
        yield refused
        unlet = CounterMetricFamily(
            "dspyq_keys_refused",
            "Requests that no key let in: there was no good one, or its place or rate forbade it.",
            labels=["why"],
        )
        for why, number in list(self._door.gate.refused.items()):
            unlet.add_metric([why], number)
        yield unlet


def register_door(door: Door, counts: RequestCounts, connections: Sized) -> None:
    """Add a server's metrics to those of its process, beside its calls as a producer.

    Args:
        door: Its parts.
        counts: Counts of its requests.
        connections: Its open connections.
    """
    register_metrics()
    REGISTRY.register(DoorCollector(door, counts, connections))
