"""The lanes that a worker serves: a thread that holds their leases, and one for each lane that holds anything."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import cast

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.runtime import bound
from dspyq.core.tolerated import survived
from dspyq.guards.model import Guards
from dspyq.lane import metrics
from dspyq.lane.collecting import Collecting
from dspyq.lane.deferral import DeferredCalls
from dspyq.lane.journal import LaneJournal, LaneLost
from dspyq.lane.landing import Landing
from dspyq.lane.parts import LaneParts, LaneTimes
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.runner import LaneRunner
from dspyq.lane.scarcity import Scarcity
from dspyq.lane.spine_lanes import LanesOfSpines
from dspyq.lane.unpaid import UnpaidRows
from dspyq.store.keys import lanes_key
from dspyq.store.spines import Spine

logger = logging.getLogger("dspyq.lane")

#: A worker that dies leaves its lanes to others after so long.
RUNNER_LEASE_SECONDS = 8.0
_LOOK_SECONDS = 1.0
_STEP_SECONDS = 0.5


class LaneService:
    """The lanes of a worker.

    Args:
        settings: The configuration.
        client: The Redis of jobs.
        guards: The guards of the models that the worker serves, with their engines.
        spine: The spine whose lanes these are; None where one Redis holds all questions.
    """

    def __init__(self, settings: Settings, client: redis.Redis, guards: Guards, spine: Spine | None = None) -> None:
        self._settings = settings
        self._client = client
        self._guards = guards
        self._token = uuid.uuid4().hex
        self._held: dict[str, float] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=bound(self._run), name="dspyq-lanes", daemon=True)
        deferred = DeferredCalls(settings, client, guards)
        if spine is None:
            guards.lanes = deferred
        else:
            lanes = guards.lanes if isinstance(guards.lanes, LanesOfSpines) else LanesOfSpines()
            lanes.of[spine.number] = deferred
            guards.lanes = lanes

    def start(self) -> None:
        """Start the thread."""
        for name in self.served:
            metrics.begin(name)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and leave the lanes to other workers at once. A step under way is not waited for: others repeat it."""
        self._stopping.set()
        for name in list(self._held):
            with survived("lane_thread"):
                LaneJournal(self._client, name, self._token).release_lease()

    @property
    def served(self) -> dict[str, Model]:
        """The models with a batch interface whose engines this worker has."""
        models = self._settings.models
        return {name: models[name] for name in self._guards.line_readers if models[name].batch_protocol is not None}

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with survived("lane_thread"):
                try:
                    self._look()
                except redis.RedisError as error:
                    logger.warning(Event("lanes_wait_for_redis", error=type(error).__name__))

    def _look(self) -> None:
        """Hold the leases of lanes that hold anything, and run those."""
        served = self.served
        if not served:
            return
        busy = {name.decode() for name in cast("set[bytes]", self._client.smembers(lanes_key()))}
        for name in served.keys() & busy:
            asked_at = time.monotonic()
            if LaneJournal(self._client, name, self._token).lease(RUNNER_LEASE_SECONDS):
                self._held[name] = asked_at + RUNNER_LEASE_SECONDS
                self._begin(served[name])
            else:
                self._held.pop(name, None)

    def _begin(self, model: Model) -> None:
        if (thread := self._threads.get(model.name)) is not None and thread.is_alive():
            return
        runner = self._runner(model)
        thread = threading.Thread(
            target=bound(self._run_lane), args=(model.name, runner), name=f"dspyq-lane-{model.name}", daemon=True
        )
        self._threads[model.name] = thread
        thread.start()

    def _runner(self, model: Model) -> LaneRunner:
        reader = self._guards.line_readers[model.name]
        journal = LaneJournal(self._client, model.name, self._token)
        provider = provider_for(str(model.batch_protocol), reader.access(), reader.access)
        landing = Landing(self._guards.client, journal, self._guards.budget, reader)
        times = LaneTimes(self._settings.lane.first_poll_seconds, self._settings.lane.settle_seconds)
        collecting = Collecting(journal, provider, landing)
        unpaid = UnpaidRows(self._client, model.name, self._token)
        scarcity = Scarcity(journal, unpaid, self._guards.batch_lanes)
        return LaneRunner(LaneParts(model, journal, provider, collecting, self._guards.budget, scarcity, times))

    def _run_lane(self, name: str, runner: LaneRunner) -> None:
        """Take steps until the lane is empty, or another worker runs it."""
        pause = min(_STEP_SECONDS, self._settings.lane.first_poll_seconds)
        is_busy = True
        while is_busy and not self._stopping.wait(pause):
            if self._held.get(name, 0.0) < time.monotonic():
                return
            with survived("lane_thread"):
                try:
                    is_busy = runner.step()
                except LaneLost:
                    return
                except redis.RedisError as error:
                    logger.warning(Event("lane_waits_for_redis", model=name, error=type(error).__name__))
