"""Kills one of two workers of a lane: at each step of a shipment again and again, and at random moments."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

from tests.chaos.lane_batch import LaneBatch, RowCounts, money_faults, settings_with
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.lane_points import DEATHS_KEY, KEY, POINTS, RUNNER_LEASE_SECONDS
from tests.support.processes import wait_until
from tests.support.worker import Worker

_LINES_PER_SHIPMENT = 25
#: So few that a batch has a shipment for each death.
_LINES_PER_DEATH = 4
#: A kill follows the last one's new worker so soon, or so late.
_SECONDS_BETWEEN_KILLS = (0.2, 3.0)
_LONGEST_SECONDS = 60.0
_POLL_SECONDS = 0.01
_FAILPOINTS = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.lane_failpoints"]'}


def lane_killed(scale: Scale) -> Outcome:
    """Kill workers while rows of two calls are in the lane; another worker goes on with what each one left."""
    rows, kills = scale.pick(quick=30, full=200), scale.pick(quick=3, full=15)
    with Stage(settings=settings_with(batch_max_lines=_LINES_PER_SHIPMENT)) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(times=1, is_manual=True)  # so that the batch outlives the kills
        stage.endpoint.batches.script(delay_seconds=1.0)
        with LaneBatch(stage, rows) as batch:
            _kill_workers(stage, scale, kills)
            stage.endpoint.batches.finish()
            counted = batch.end()
        figures = {"kills": kills, "shipments": stage.endpoint.batches.counts().batches}
        return outcome_of(stage, f"a worker of a lane killed {kills}×", [batch], [counted], figures)


def killed_at(point: str, scale: Scale) -> Outcome:
    """Kill the worker that reaches one step of a shipment, again and again, beside another one."""
    rows, kills = scale.pick(quick=12, full=100), scale.pick(quick=2, full=20)
    with Stage(settings=settings_with(batch_max_lines=_LINES_PER_DEATH)) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(delay_seconds=0.2)
        workers = [stage.worker(_FAILPOINTS, waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        batches, counted, resumed = [], [], []
        while len(resumed) < kills:
            with LaneBatch(stage, rows, name=f"batch {len(batches)} row") as batch:
                resumed += list(_deaths(stage, scale, batch, workers, point, kills - len(resumed)))
                batches.append(batch)
                counted.append(batch.end())
        taken_over = [seconds for seconds in resumed if seconds is not None]
        figures = {"kills": len(resumed), "shipments": stage.endpoint.batches.counts().batches}
        if taken_over:
            worst, median = max(taken_over), statistics.median(taken_over)
            figures |= {"resumed after, median": f"{median:.1f} s", "worst": f"{worst:.1f} s"}
            figures |= {"of a lease of": f"{RUNNER_LEASE_SECONDS:g} s"}
        return outcome_of(stage, f"killed {point} of a shipment {len(resumed)}×", batches, counted, figures)


def outcome_of(
    stage: Stage,
    fault: str,
    batches: list[LaneBatch],
    counted: list[RowCounts],
    figures: dict[str, Any],
    *,
    asked: int = 0,
) -> Outcome:
    """Return the outcome of batches in a lane, with their money; ``asked`` is how many live calls others needed."""
    counts, live = stage.endpoint.batches.counts(), stage.endpoint.calls() - asked
    needed = sum(batch.calls for batch in batches)
    return Outcome(
        fault=fault,
        jobs=sum(batch.rows for batch in batches),
        lost=sum(each.lost for each in counted),
        doubled_answers=sum(each.doubled for each in counted),
        extra_model_calls=counts.lines_billed + live - needed,
        explained_model_calls=0,
        recovery_seconds=(),
        recovery_bound_seconds=0,
        remarks=(*(remark for each in counted for remark in each.remarks), *money_faults(stage, has_others=asked > 0)),
        figures=figures | {"lines billed": f"{counts.lines_billed} of {needed}", "live calls": live},
    )


def _kill_workers(stage: Stage, scale: Scale, kills: int) -> None:
    """Kill one of two workers, again and again, from the first shipment on."""
    workers = [stage.worker(waits=False) for _ in range(2)]
    for worker in workers:
        worker.ready()
    stage.endpoint.batches.wait_for_batches(1)
    for _ in range(kills):
        time.sleep(scale.random.uniform(*_SECONDS_BETWEEN_KILLS))
        worker = scale.random.choice(workers)
        worker.kill()
        worker.start()
        worker.ready()


def _deaths(
    stage: Stage, scale: Scale, batch: LaneBatch, workers: list[Worker], point: str, most: int
) -> Iterator[float | None]:
    """Have workers die at a point while a batch runs; yield how long the lane stood, None where its runner lived."""
    with stage.money.client() as client:
        for _ in range(most):
            time.sleep(scale.random.uniform(0.0, 0.3))
            deaths = client.llen(DEATHS_KEY)
            client.set(KEY, point)
            wait_until(lambda: not (client.exists(KEY) and batch.is_running), _LONGEST_SECONDS, f"a death {point}")
            if client.delete(KEY):
                return
            wait_until(functools.partial(_is_longer, client, deaths), _LONGEST_SECONDS, "where it died")
            died_at, spine = client.lindex(DEATHS_KEY, -1).split()
            with stage.spines[int(spine)].client() as lane:
                before = _state(lane)
                wait_until(lambda: not all(each.is_running for each in workers), _LONGEST_SECONDS, "a worker's end")
                dead = next(each for each in workers if not each.is_running)
                dead.kill()
                dead.start()
                yield _seconds_until_resumed(lane, before, float(died_at))
            dead.ready()


def _is_longer(client: redis.Redis, deaths: int) -> bool:
    return client.llen(DEATHS_KEY) > deaths


def _seconds_until_resumed(client: redis.Redis, before: tuple[Any, ...], died_at: float) -> float | None:
    """Return the seconds from a death to the next step of another runner; None if the lane's runner lives."""
    runner, *steps = before
    until = time.monotonic() + _LONGEST_SECONDS
    milliseconds = client.pttl("dspy:v1:lane:control:runner")
    while time.monotonic() < until:
        now, *changed = _state(client)
        if now and now != runner and changed != steps:
            return time.time() - died_at
        left = client.pttl("dspy:v1:lane:control:runner")
        if now == runner and left > milliseconds:
            return None
        milliseconds = left
        time.sleep(_POLL_SECONDS)
    raise TimeoutError("no worker went on with the lane")


def _state(client: redis.Redis) -> tuple[Any, ...]:
    """Return the lane's runner, its shipments, and how many lines it has."""
    with client.pipeline(transaction=False) as pipe:
        pipe.get("dspy:v1:lane:control:runner").hgetall("dspy:v1:lane:control:shipments")
        return tuple(pipe.hlen("dspy:v1:lane:control:lines").execute())


FAULTS: dict[str, Callable[[Scale], Outcome]] = {
    "lane-killed": lane_killed,
    **{f"lane-killed-{point}": functools.partial(killed_at, point) for point in POINTS},
}
