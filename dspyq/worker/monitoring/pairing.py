"""Pair scorers: functions that compare a challenger's answer of a shadow run with the control's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from celery.states import PENDING, SUCCESS

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.experiments.placement import is_in_share
from dspyq.experiments.shadows import pair_scorers, process_shadow_log
from dspyq.prediction.stored import read_meta
from dspyq.store.clients import answers_client
from dspyq.store.content import decode_result
from dspyq.store.keys import result_key
from dspyq.store.spines import on_spine
from dspyq.worker.monitoring.answered import Answered

PairScorer = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], float]

#: The probability that the challenger's answer comes first.
_HALF = 0.5


class AnswerPair(NamedTuple):
    """Two answers to one question, in random order.

    Attributes:
        inputs: The inputs.
        first: The outputs of the one.
        second: Those of the other.
        challenger_is_first: Whether the first is the challenger's.
    """

    inputs: dict[str, Any]
    first: dict[str, Any]
    second: dict[str, Any]
    challenger_is_first: bool

    def compare(self, scorer: PairScorer) -> float:
        """Return how much better the challenger's answer is, as a function finds, which cannot see whose each is.

        Raises:
            ValueError: If the function's number is not from -1 to 1.
        """
        stated = float(scorer(self.inputs, self.first, self.second))
        if not -1 <= stated <= 1:
            raise ValueError("a pair scorer returns a number from -1 to 1")
        return stated if self.challenger_is_first else -stated


class Pairing:
    """The pairs of shadow runs. Each method is one round trip at most."""

    def control_of(self, answered: Answered, table: Mapping[str, Any]) -> str:
        """Return the task whose answer the plan's pair scorers compare an answer with; empty if they do not.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        is_challenger = answered.variant.name in (table.get("shadow") or {}).get("variants", ())
        if not (answered.task_id and is_challenger and pair_scorers(table)):
            return ""
        return process_shadow_log().control_of(answered.task_id) or ""

    def outputs_of(self, control_id: str) -> dict[str, Any] | None:
        """Return the control's outputs as they are stored; None where they are gone.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        with on_spine(control_id):
            stored = cast("bytes | None", answers_client().get(result_key(control_id)))
        meta = read_meta(decode_result(control_id, stored)) if stored else {"status": PENDING}
        return dict(meta["result"]["outputs"]) if meta["status"] == SUCCESS else None


def pair_of(answered: Answered, table: Mapping[str, Any], of_control: Mapping[str, Any]) -> AnswerPair:
    """Return an answer with that of the control.

    The order follows from the run, so that an answer that is scored again is compared alike.

    Args:
        answered: The challenger's answer.
        table: The plan.
        of_control: The outputs of the control's.

    Raises:
        NotAPrediction: If they do not fit the control's signature.
    """
    program = answered.program
    theirs = decode_outputs(program.served[str(table["arms"][0])], dict(of_control))
    own = decode_outputs(program, dict(answered.outputs))
    is_first = is_in_share(str(table["name"]), "order of a pair", answered.task_id.encode(), _HALF)
    first, second = (own, theirs) if is_first else (theirs, own)
    return AnswerPair(decode_inputs(program, dict(answered.inputs)), first, second, is_first)
