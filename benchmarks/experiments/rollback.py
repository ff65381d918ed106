"""Minutes until the referee has rolled a worse challenger back: ``python -m benchmarks.experiments.rollback``.

All of it is the product's: a real server, the scripts that count, the referee that looks every ten seconds, and the
change of the state. The clock alone is the benchmark's. Ten calls a second come from 20,000 users; a fifth of them are
enrolled. The control fails in 0.4 % of its calls, the challenger 3 points more often, and the guard allows one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from dspyq.config.settings import get_settings
from dspyq.core.runtime import DEFAULT
from dspyq.experiments import administration
from dspyq.experiments.referee import Referee
from tests.support.configuration import (
    API_KEY,
    API_KEY_VARIABLE,
    default_document,
    merged,
    with_challenger,
    write_settings,
)
from tests.support.experiment_traffic import Traffic
from tests.support.experiments import with_experiment
from tests.support.redis_server import RedisServer

_CONTROL, _MORE, _MARGIN, _COVERAGE = 0.004, 0.03, 0.01, 0.2
_CALLS_PER_SECOND, _LOOK_SECONDS, _MOST_SECONDS = 10, 10, 2 * 3600


def minutes_until_rolled_back(folder: Path, seed: int, more: float) -> float | None:
    """Return the minutes until the experiment was stopped; None where it was not, within two hours."""
    table = with_experiment(
        name=f"of-seed-{seed}-{round(1000 * more)}",
        guards=[{"metric": "call.failed", "margin": _MARGIN}],
        ramp=[{"coverage": _COVERAGE}],
    )
    document = merged(with_challenger(default_document("http://127.0.0.1:9/v1"), 0.5), table)
    os.environ["DSPYQ_CONFIG"] = str(write_settings(folder / "dspyq.toml", document))
    with DEFAULT.emptied():
        state = administration.start(get_settings().programs["qa"])
        traffic = Traffic(state, {"control": _CONTROL, "challenger": _CONTROL + more}, seed=seed)
        now = state.started_at
        referee = Referee("the benchmark", clock=lambda: now)
        while now - state.started_at < _MOST_SECONDS:
            traffic.bring(_CALLS_PER_SECOND * _LOOK_SECONDS)
            now += _LOOK_SECONDS
            referee.attend_to(state)
            found = administration.read_state("qa")
            if found is not None and found.status == "stopped":
                return (now - state.started_at) / 60
        administration.stop("qa")
    return None


def main() -> None:
    """Run the seeds and print the median and the quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--more", type=float, default=_MORE, help="what the challenger fails more")
    stated = parser.parse_args()
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DSPYQ_REDIS_URL": server.url, API_KEY_VARIABLE: API_KEY}
        found = [minutes_until_rolled_back(Path(folder), seed, stated.more) for seed in range(stated.seeds)]
    minutes = sorted(each for each in found if each is not None)
    print(f"{len(minutes)} of {len(found)} were rolled back within two hours")
    if len(minutes) > 1:
        low, middle, high = statistics.quantiles(minutes, n=4)
        print(f"median {middle:.1f} minutes, quartiles {low:.1f} and {high:.1f}, longest {minutes[-1]:.1f}")


if __name__ == "__main__":
    main()
