"""Changes of a running experiment under traffic: when the last claim, model call and hit of the old state come.

Two producers ask without a pause, half of it questions that their memory holds, half new ones; a worker answers. The
experiment is ramped, its challenger killed, and it is stopped, each by a process that neither producer is.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from dspyq import predict
from dspyq.config.settings import get_settings
from dspyq.core.runtime import DEFAULT
from dspyq.experiments import administration
from tests.support.configuration import (
    API_KEY,
    API_KEY_VARIABLE,
    default_document,
    environment,
    merged,
    with_challenger,
    write_settings,
)
from tests.support.endpoint import Endpoint
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

PRODUCERS = 2
#: Between two changes.
_SECONDS = 2.5
_HEARD_WITHIN_SECONDS = 1.0
#: From the script that lets a model call go to its arrival, on a busy machine.
_ON_ITS_WAY_SECONDS = 0.3
_PRODUCER_WITHIN_SECONDS = 60
_CALLS_BEFORE = 50
_PAUSE_SECONDS = 0.004
_ASK = "from benchmarks.experiments.changes import ask_for_ever\nask_for_ever(log, seed)"


class Late(NamedTuple):
    """Late effects of an old state, after the command that changed it had returned.

    Attributes:
        changes: Changes made.
        calls: Calls begun after a change.
        claims: Of them those that claimed or joined a run by an older state.
        hits: Those that memory answered by an older state, more than a second after the change.
        model_calls: Model calls of the killed arm.
        model_calls_before: Those before it was killed.
    """

    changes: int
    calls: int
    claims: int
    hits: int
    model_calls: int
    model_calls_before: int


def late(seed: int) -> Late:
    """Run one experiment through its changes."""
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
        server, endpoint = started.enter_context(RedisServer()), started.enter_context(Endpoint())
        path = _settings(folder, endpoint.url, seed)
        os.environ |= {"DSPYQ_CONFIG": str(path), "DSPYQ_REDIS_URL": server.url, API_KEY_VARIABLE: API_KEY}
        started.enter_context(DEFAULT.emptied())
        administration.start(get_settings().programs["qa"])
        worker = started.enter_context(Worker(environment(path, server.url)))
        worker.ready()
        logs = [folder / f"calls-{number}" for number in range(PRODUCERS)]
        for number, log in enumerate(logs):
            arguments = {"log": str(log), "seed": seed * PRODUCERS + number}
            producer = Producer(_ASK, arguments, environment(path, server.url))
            started.callback(producer.close)
        wait_until(lambda: all(_calls(log) > _CALLS_BEFORE for log in logs), _PRODUCER_WITHIN_SECONDS, "calls")
        made = [_change(change) for change in (_ramp, _kill, _stop)]
        time.sleep(_SECONDS)
        requests = endpoint.requests()
        calls = [json.loads(line) for log in logs for line in log.read_text().splitlines(keepends=True) if "\n" in line]
    killed_at = made[1].returned_at
    of_killed = [each.received_at_seconds for each in requests if each.model == "challenger"]
    return Late(
        changes=len(made),
        calls=sum(call["at"] > made[0].returned_at for call in calls),
        claims=sum(_is_of_older(call, made, 0.0) and call["level"] in (None, "joined") for call in calls),
        hits=sum(_is_of_older(call, made, _HEARD_WITHIN_SECONDS) and call["level"] == "memory" for call in calls),
        model_calls=sum(at > killed_at + _ON_ITS_WAY_SECONDS for at in of_killed),
        model_calls_before=sum(at <= killed_at for at in of_killed),
    )


class _Made(NamedTuple):
    version: int
    returned_at: float


def _change(change: Callable[[], Any]) -> _Made:
    time.sleep(_SECONDS)
    return _Made(change().version, time.time())


def _ramp() -> Any:
    return administration.ramp("qa", 1.0)


def _kill() -> Any:
    return administration.kill("qa", "challenger")


def _stop() -> Any:
    return administration.stop("qa")


def _is_of_older(call: dict[str, Any], made: list[_Made], after_seconds: float) -> bool:
    """Return whether a call was placed by an older state than the one in force when it began, for so long already."""
    in_force = [each.version for each in made if each.returned_at + after_seconds < call["at"]]
    return bool(in_force) and int(call["seen"] or 0) < max(in_force)


def _settings(folder: Path, endpoint_url: str, seed: int) -> Path:
    table = with_experiment(name=f"changed-{seed}", ramp=[{"coverage": 0.3}], on_breach="tell")
    return write_settings(folder / "dspyq.toml", merged(with_challenger(default_document(endpoint_url), 0.5), table))


def _calls(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def ask_for_ever(log: str, seed: int) -> None:
    """Ask one question after the other, and log of each when it was asked, by which state, and what answered it."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    with Path(log).open("a", buffering=1) as file:  # a line at once
        for number in itertools.count():
            unit, is_known = f"user {draw.randrange(200)}", number % 2 == 1
            question = f"known {draw.randrange(5)}" if is_known else f"new {seed} {number}"
            at = time.time()
            handle = predict.apply_async(kwargs={"question": question}, unit=unit)
            line = {"at": at, "seen": handle.request.seen if handle.request else "", "level": handle.cache_level}
            file.write(json.dumps(line) + "\n")
            if is_known:
                handle.get(timeout=20)
            time.sleep(_PAUSE_SECONDS)
