"""Prometheus metrics of batches: what lanes hold, and runs that ended. Every worker exports the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dspyq.batch.events import RunState
from dspyq.core.money import to_usd
from dspyq.lane.figures import LaneFigures
from dspyq.lane.shipment import ShipmentState

#: States in which a run of a batch ends.
_ENDS: tuple[RunState, ...] = "finished", "limited", "stopped", "cancelled"
_GAUGES: tuple[tuple[str, str, Callable[[LaneFigures], float]], ...] = (
    ("dspy_lane_unpaid_rows", "Rows that wait for money.", lambda lane: lane.unpaid_rows),
    ("dspy_lane_held_usd", "What lines of a lane may cost at most.", lambda lane: to_usd(lane.held_nano_usd)),
    (
        "dspy_lane_oldest_shipment_seconds",
        "Age of the oldest batch that runs at the provider.",
        lambda lane: lane.oldest_seconds,
    ),
    ("dspy_lane_unattended", "1 if a lane holds anything and no worker runs it.", lambda lane: lane.is_unattended),
    ("dspy_lane_repeated_failures", "The most times in a row that a step has failed.", lambda lane: lane.failures),
)


def lane_metrics(lanes: Mapping[str, LaneFigures]) -> Iterable[Metric]:
    """Yield the metrics of lanes, by their models."""
    lines = GaugeMetricFamily("dspy_lane_lines", "Lines of a lane, a model call each.", labels=["model", "state"])
    shipments = GaugeMetricFamily("dspy_lane_shipments", "Shipments by their next step.", labels=["model", "state"])
    for model, lane in lanes.items():
        lines.add_metric([model, "open"], lane.open_lines)
        lines.add_metric([model, "shipped"], lane.shipped_lines)
        for state in get_args(ShipmentState):
            shipments.add_metric([model, state], lane.shipments.get(state, 0))
    yield lines
    yield shipments
    for name, text, value in _GAUGES:
        family = GaugeMetricFamily(name, text, labels=["model"])
        for model, lane in lanes.items():
            family.add_metric([model], float(value(lane)))
        yield family


def batch_ends(ends: Mapping[tuple[str, str], int], programs: Iterable[str]) -> Metric:
    """Return the metric of runs that ended.

    Args:
        ends: How many, by program and state.
        programs: Of these, all states are shown from zero on: an increase is seen from a value before it alone.
    """
    family = CounterMetricFamily("dspy_batches_ended", "Runs of batches that ended.", labels=["program", "state"])
    begun: dict[tuple[str, str], int] = {(program, state): 0 for program in programs for state in _ENDS}
    for (program, state), number in (begun | dict(ends)).items():
        family.add_metric([program, state], number)
    return family
