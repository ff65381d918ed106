"""Shadow runs of a control's answers: sent by the worker that scored the answer, before it adds the scores.

If that worker ends in between, the next one that scores the answer sends it again, under the same task id.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import orjson

from dspyq.client.asking import LEAST_URGENT
from dspyq.client.message_template import Outgoing
from dspyq.client.publishing import publish
from dspyq.config.periods import process_calendar
from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.core.ids import new_id
from dspyq.experiments.fence import ANY_STATE
from dspyq.experiments.known import process_states
from dspyq.experiments.shadows import is_chosen, pair_scorers, process_shadow_log, shadow_id
from dspyq.experiments.state import ExperimentState
from dspyq.guards.limits import Limits, payer_scope
from dspyq.prediction.enrolment import scope_of_shadow
from dspyq.prediction.request import Request, hash_inputs
from dspyq.store.clients import money_client
from dspyq.store.spines import current_spine, process_spines
from dspyq.worker.monitoring.answered import Answered


class Shadowing:
    """Sends challengers the control's questions unseen.

    Args:
        settings: The configuration: only a file that states shadow runs gives them an account to pay from.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = Limits(money_client(), settings, process_calendar())

    def ask(self, answered: Answered, table: Mapping[str, Any], scores: Mapping[str, float | str]) -> None:
        """Ask the plan's challengers a control's question, if it is one of the plan's share.

        Args:
            answered: The answer.
            table: The frozen plan.
            scores: Its scores, as parts of their ranges; or why there is none.

        Raises:
            redis.RedisError: If Redis does not answer.
            kombu.exceptions.OperationalError: The same, when the job is sent.
        """
        name, shadow = answered.program.name, table.get("shadow")
        experiment = self._settings.programs[name].experiment
        if not shadow or experiment is None or experiment.shadow is None:
            return
        process_states().refresh(name)
        state = process_states().get(name)
        paired = {score: part for score, part in scores.items() if not isinstance(part, str)}
        paired |= dict.fromkeys(pair_scorers(table), 0.0)  # they return differences
        if state is None or state.status != "running" or answered.variant.name != state.control or not paired:
            return
        canonical = orjson.dumps(answered.inputs, option=orjson.OPT_SORT_KEYS)
        if not is_chosen(state, canonical, float(shadow["share"])):
            return
        for arm in shadow["variants"]:
            if arm in state.killed or arm not in self._settings.programs[name].variants:
                continue
            verdict = process_shadow_log().note(name, answered.task_id, arm, paired, is_refused=self._is_refused(name))
            if verdict == "asked":
                self._send(state, arm, canonical, shadow_id(answered.task_id, arm))

    def _is_refused(self, program: str) -> bool:
        """Return True if the account of a program's shadow runs has nothing left for another one."""
        return any(
            account.is_exhausted or account.free_nano_usd == 0
            for account in self._limits.limited_accounts()
            if account.scope == payer_scope("shadow", program)
        )

    def _send(self, state: ExperimentState, arm: str, canonical: bytes, task_id: str) -> None:
        program = self._settings.programs[state.program]
        scope, question = _question_here(state, arm, task_id, canonical, program)
        request = Request(
            program.served[arm],
            program.variants[arm],
            canonical,
            question,
            new_id(),
            refresh=False,
            scope=scope,
            seen=ANY_STATE,
        )
        publish(Outgoing(request, task_id, is_claimed=False), {"priority": LEAST_URGENT})


def _question_here(
    state: ExperimentState, arm: str, task_id: str, canonical: bytes, program: Program
) -> tuple[str, str]:
    """Return the scope and the input hash of a shadow run, on the active spine: that of the control's question.

    One script changes the sums of a pair. The same run always gets the same scope.
    """
    here, spines = current_spine(), process_spines()
    for number in itertools.count():
        scope = scope_of_shadow(state, arm, f"{task_id}/{number}" if number else task_id)
        question = hash_inputs(program.name, program.fingerprints[arm], canonical, scope)
        if spines is None or spines.of(question) is here:
            return scope, question
    raise AssertionError("unreachable")
