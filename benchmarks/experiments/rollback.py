"""Minutes until the referee has rolled a worse challenger back.

All of it is the product's: a real server, the scripts that count, the referee that looks every ten seconds, and the
change of the state. The clock alone is the benchmark's. Ten calls a second come from 20,000 users; a fifth of them are
enrolled. The control fails in 0.4 % of its calls, the challenger 3 points more often, and the guard allows one.
"""

from __future__ import annotations

import os
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


def _minutes_until_rolled_back(folder: Path, seed: int) -> float | None:
    """Return the minutes until the experiment was stopped; None where it was not, within two hours."""
    table = with_experiment(
        name=f"of-seed-{seed}",
        guards=[{"metric": "call.failed", "margin": _MARGIN}],
        ramp=[{"coverage": _COVERAGE}],
    )
    document = merged(with_challenger(default_document("http://127.0.0.1:9/v1"), 0.5), table)
    os.environ["DSPYQ_CONFIG"] = str(write_settings(folder / "dspyq.toml", document))
    with DEFAULT.emptied():
        state = administration.start(get_settings().programs["qa"])
        traffic = Traffic(state, {"control": _CONTROL, "challenger": _CONTROL + _MORE}, seed=seed)
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


def minutes(seeds: int) -> list[float | None]:
    """Return the minutes of so many experiments; None for one that was not rolled back within two hours."""
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DSPYQ_REDIS_URL": server.url, API_KEY_VARIABLE: API_KEY}
        return [_minutes_until_rolled_back(Path(folder), seed) for seed in range(seeds)]
