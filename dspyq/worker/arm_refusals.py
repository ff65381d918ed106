"""Arms of experiments whose model calls are refused: by an open circuit breaker, or by a budget that is used up."""

from __future__ import annotations

from typing import Any

import redis

from dspyq.config.periods import process_calendar
from dspyq.config.settings import Settings
from dspyq.experiments.referee import Refusals
from dspyq.experiments.state import ExperimentState
from dspyq.guards.breaker_state import BreakerPolicy, BreakerState, FleetBreaker
from dspyq.guards.limits import Limits, read_accounts
from dspyq.store.clients import redis_errors
from dspyq.store.scripts import Step, run_together


class ArmRefusals:
    """Reads the guards of an experiment's arms, in one round trip.

    Args:
        settings: The configuration.
        client: The Redis of the guards.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._limits = Limits(client, settings, process_calendar())

    def __call__(self, state: ExperimentState) -> Refusals:
        """Return the arms whose calls are refused now.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        program = self._settings.programs.get(state.program)
        arms = [] if program is None else [arm for arm in state.arms if arm in program.variants]
        models = {} if program is None else {arm: program.variants[arm].model for arm in arms}
        breakers: list[Step[BreakerState]] = [
            FleetBreaker(self._client, model.name, BreakerPolicy.of(self._settings, model)).look()
            for model in models.values()
        ]
        steps: list[Step[Any]] = [*breakers, *self._limits.steps(of=[(state.program, arm) for arm in arms])]
        with redis_errors("read the guards of the experiment's arms"):
            results = run_together(self._client, steps)
        states = dict(zip(models, results[: len(models)], strict=True))
        scopes = {f"variant:{state.program}.{arm}": arm for arm in arms}
        return Refusals(
            for_a_while={
                arm: f"the circuit breaker of {models[arm].name} is not closed"
                for arm, breaker in states.items()
                if breaker.name != "closed"
            },
            until_later={
                scopes[account.scope]: f"its {account.period} budget is used up"
                for account in read_accounts(results[len(models) :])
                if account.scope in scopes and account.is_exhausted
            },
        )
