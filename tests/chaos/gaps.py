"""Workers killed in each gap on a job's way, again and again."""

from __future__ import annotations

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage, armed

#: Between bell, take, begin, store and acknowledgement, and in the middle of what Redis is told. A plain prediction's
#: job ends with its answer, in mid-store; one with links has an end of its own, mid-finish (see canvas.py).
POINTS = (
    "after-bell",
    "mid-take",
    "after-take",
    "after-begin",
    "before-store",
    "mid-store",
    "after-store",
    "before-ack",
    "after-finish",
)
#: Of the thread that renews and sweeps.
BEAT_POINTS = ("mid-renew", "mid-sweep", "after-sweep")
_WORKERS = 4
_CONCURRENCY = 2


def killed_at(point: str, scale: Scale) -> Outcome:
    """Kill workers at one point until enough have died there, while others answer."""
    deaths = scale.pick(quick=3, full=100)
    with Stage(concurrency=_CONCURRENCY) as stage:
        return _kill(stage, point, scale, deaths=deaths, jobs=_jobs(deaths, scale), probability=0.25)


def killed_mid_store_elsewhere(scale: Scale) -> Outcome:
    """Kill workers that have stored an answer on a Redis of its own, and not yet told the alias."""
    deaths = scale.pick(quick=3, full=60)
    with Stage(concurrency=_CONCURRENCY, evicting_bytes=100_000_000) as stage:
        return _kill(
            stage,
            "mid-store",
            scale,
            deaths=deaths,
            jobs=_jobs(deaths, scale),
            probability=0.1,  # at each of the replies, which are more here: enough workers must live to answer
            name="answers elsewhere, ",
        )


def beat_killed_at(point: str, scale: Scale) -> Outcome:
    """Kill workers in the middle of a beat, while there is something to renew and to sweep."""
    deaths = scale.pick(quick=2, full=60)
    rounds = 4 if point == "mid-renew" else 2  # leases are renewed less often than queues are swept
    with Stage(concurrency=_CONCURRENCY, model_seconds=0.3) as stage:
        probability = 0.3 / len(stage.spines)  # a beat passes the point once for each
        return _kill(stage, point, scale, deaths=deaths, jobs=rounds * _jobs(deaths, scale), probability=probability)


def _jobs(deaths: int, scale: Scale) -> int:
    return scale.pick(quick=8, full=4) * deaths


def _kill(
    stage: Stage, point: str, scale: Scale, *, deaths: int, jobs: int, probability: float, name: str = ""
) -> Outcome:
    stage.worker(arguments=["-Q", "dspyq"])  # sweeps, and takes none of these jobs
    stage.ask(stage.questions(jobs), callers=2)

    with stage.fleet(_WORKERS, armed(point, scale, probability=probability, deaths=deaths)):
        stage.wait(scale.pick(quick=30, full=150))
        found = stage.deaths()
        remarks = (
            []
            if len(found) >= scale.pick(quick=1, full=deaths // 2)
            else [f"only {len(found)} of {deaths} workers were killed"]
        )
        return stage.outcome(
            f"{name}killed {point} ({len(found)}×)",
            stage.recovery(found),
            explained_model_calls=sum(death.paid for death in found),
            remarks=remarks,
        )
