"""The thread in which a worker looks at experiments; one worker of the fleet does at a time."""

from __future__ import annotations

import logging
import os
import threading

import redis

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.tolerated import survived, tolerate
from dspyq.errors import DspyqError, RedisUnavailable
from dspyq.experiments.copies import repair_copies
from dspyq.experiments.referee import Referee, read_active
from dspyq.store.keys import referee_key
from dspyq.store.scripts import load_script
from dspyq.store.spines import process_spines
from dspyq.worker.arm_refusals import ArmRefusals

logger = logging.getLogger("dspyq.experiments")

_LOOK_SECONDS = 10.0
#: Another worker takes over when the referee has not looked for so long.
_LEASE_SECONDS = 30.0


class Refereeing:
    """Looks at experiments every ten seconds, in the one worker that is the referee.

    Args:
        settings: The configuration, which names the programs.
        client: The Redis of money.
        worker: The worker's name.
    """

    def __init__(self, settings: Settings, client: redis.Redis, worker: str) -> None:
        self._programs = list(settings.programs)
        self._client = client
        self._worker = f"{worker} {os.getpid()}"
        self._claim = load_script(client, "dspyq.experiments", "referee")
        self._referee = Referee(worker, ArmRefusals(settings, client))
        self._postponed: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspyq-referee", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it after its present look."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Look at each experiment, if this worker is the referee or no one is.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        milliseconds = int(_LEASE_SECONDS * 1000)
        if not self._claim([referee_key()], worker=self._worker, milliseconds=milliseconds):
            return
        repair_copies(self._programs)
        for state in read_active(self._programs):
            try:
                self._referee.attend_to(state)
                self._postponed.discard(state.program)
            except RedisUnavailable as error:  # of a spine: no look is at a part of the counts
                if state.program not in self._postponed and process_spines() is not None:
                    logger.warning(Event("experiment_look_postponed", program=state.program, error=str(error)))
                    self._postponed.add(state.program)
                elif process_spines() is None:
                    logger.warning(Event("experiment_not_looked_at", program=state.program, error=str(error)))
            except DspyqError as error:  # the others are looked at all the same
                logger.warning(Event("experiment_not_looked_at", program=state.program, error=str(error)))

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with survived("referee_thread"):
                try:
                    self.look()
                except (redis.RedisError, DspyqError) as error:
                    tolerate("referee_thread", error)
