"""``/v1/predictions/{prediction}/feedback``: judgements of an answer by its caller.

Where an experiment counts the call, its public id holds the exposure, so that a judgement needs nothing else and comes
to the right arm. Any other judgement is counted in the statistics of the variant that answered.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.cache.judgements import (
    MOST_NAMES,
    MOST_VALUE,
    NAME_PATTERN,
    Judgement,
    JudgementOutcome,
    count_judgement,
    keep_judgement,
    read_judgements,
)
from dspyq.client.off_loop import off_loop
from dspyq.errors import FeedbackRefused, InvalidOption
from dspyq.experiments.feedback import FeedbackOutcome, give_feedback
from dspyq.prediction.prediction import Prediction
from dspyq.serve.bodies import read_json
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import exchange_of
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.lookup import CallStanding, look_up, read_answer
from dspyq.serve.predictions.naming import resolve
from dspyq.serve.predictions.withdrawal import seconds_remembered
from dspyq.serve.problems import GONE, MALFORMED, NOT_FOUND, Declined, ProblemKind
from dspyq.store.spines import on_spine

_KEPT = ProblemKind(409, "feedback-kept", "Another judgement was given before, and stays")
_NAMES = ProblemKind(409, "feedback-names", "The variant's answers are judged under as many names as there may be")
_LATE = ProblemKind(410, "feedback-late", "No judgement of this answer is counted any more")
_NO_ANSWER = ProblemKind(409, "feedback-refused", "The prediction has no answer to judge")
_LONGEST_NAME = 64
_LONGEST_COMMENT: Final = 4_000
_MEMBERS = {"name", "value", "comment"}

#: The body of a judgement, and its form as it is shown.
FEEDBACK_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": NAME_PATTERN},
        "value": {"type": "number", "minimum": -MOST_VALUE, "maximum": MOST_VALUE},
        "comment": {"type": ["string", "null"], "maxLength": _LONGEST_COMMENT},
    },
    "required": ["name", "value"],
    "additionalProperties": False,
}


class _Feedback:
    """The endpoint; the same judgement again is counted once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "feedback")
        public = resolve(exchange, caller, scope["path_params"]["prediction"])
        given = None
        if scope["method"] == "POST":
            given = _read(await read_json(exchange, exchange.door.serve.max_body_bytes))
        standing = await off_loop(look_up, public.call)
        if standing.mark == "gone":
            raise Declined(NOT_FOUND, "there is no prediction of this id")
        if given is None:
            found = await off_loop(_read_given, public.call)
            await exchange.reply_json(200, {"object": "list", "data": [each._asdict() for each in found]})
            return
        outcome = await off_loop(_give, public.call, standing, given, caller.tenant)
        if outcome == "full":
            raise Declined(_NAMES, f"use one of the {MOST_NAMES} names that were used before")
        if outcome == "kept":
            raise Declined(_KEPT, "feedback of this name is not replaced")
        shown = {"object": "feedback", "prediction": public.public_id, **given._asdict(), "outcome": outcome}
        await exchange.reply_json(201, shown)


def _give(
    call: CallOfPrediction, standing: CallStanding, given: Judgement, tenant: str
) -> FeedbackOutcome | JudgementOutcome:
    """Count a judgement, and keep it with its call.

    Raises:
        Declined: If no judgement of the prediction is counted, or none any more.
        InvalidOption: If its name or value is none that is counted.
        RedisUnavailable: If Redis does not answer; the same may be given again.
    """
    if not call.exposure:
        queue = _judged_queue(call, standing)
        with on_spine(call.task_id):
            return count_judgement(queue, call.call_id, given, seconds_remembered(), tenant)
    try:
        outcome = give_feedback(call.exposure, given.name, given.value)
    except FeedbackRefused as error:
        if error.is_late:
            raise Declined(_LATE, str(error)) from None
        raise
    if outcome != "kept":
        with on_spine(call.task_id):
            keep_judgement(call.call_id, given, seconds_remembered(), tenant)
    return outcome


def _read_given(call: CallOfPrediction) -> list[Judgement]:
    with on_spine(call.task_id):
        return read_judgements(call.call_id)


def _judged_queue(call: CallOfPrediction, standing: CallStanding) -> str:
    """Return the queue of the variant whose answer a call got.

    Raises:
        Declined: If it has none, or none that is still known.
    """
    if standing.payload is None and not standing.has_job and not standing.mark:
        raise Declined(GONE, "the answer is no longer kept, and its variant not known")
    answer = None if standing.payload is None or standing.mark else read_answer(call, standing.payload)
    if not isinstance(answer, Prediction):
        raise Declined(_NO_ANSWER)
    return answer.metadata.queue


def _read(body: Any) -> Judgement:
    """Return the judgement in a body.

    Raises:
        Declined: If it is no object.
        InvalidOption: If it has other members, or of other types.
    """
    if not isinstance(body, dict):
        raise Declined(MALFORMED, "the body is to be a JSON object")
    name, value, comment = body.get("name"), body.get("value"), body.get("comment")
    if body.keys() - _MEMBERS or not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidOption(f"feedback has a name of 1 to {_LONGEST_NAME} characters, a value, and perhaps a comment")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption("the value of feedback is a number")
    if comment is not None and not (isinstance(comment, str) and len(comment) <= _LONGEST_COMMENT):
        raise InvalidOption(f"the comment of feedback is a text of up to {_LONGEST_COMMENT:,} characters")
    return Judgement(name, value, comment)


ROUTES = [Route("/v1/predictions/{prediction}/feedback", _Feedback(), methods=["GET", "POST"])]
