"""``POST /v1/predictions/{prediction}/feedback``: a judgement of an answer, for the experiment of its call.

The public id of such a call holds its exposure, so that a judgement needs nothing else and comes to the right arm.
"""

from __future__ import annotations

from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.client.off_loop import off_loop
from dspyq.errors import FeedbackRefused, InvalidOption
from dspyq.experiments.feedback import give_feedback
from dspyq.serve.bodies import read_json
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import exchange_of
from dspyq.serve.predictions.lookup import look_up
from dspyq.serve.predictions.naming import resolve
from dspyq.serve.problems import MALFORMED, NOT_FOUND, Declined, ProblemKind

_KEPT = ProblemKind(409, "feedback-kept", "Another judgement was given before, and stays")
_LATE = ProblemKind(410, "feedback-late", "No judgement of this answer is counted any more")
_OF_NO_EXPERIMENT = ProblemKind(409, "feedback-refused", "The prediction is part of no experiment")
_LONGEST_NAME = 64


class GiveFeedback:
    """The endpoint; the same judgement again is counted once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "feedback")
        public = resolve(exchange, caller, scope["path_params"]["prediction"])
        name, value = _read(await read_json(exchange, exchange.door.serve.max_body_bytes))
        if (await off_loop(look_up, public.call)).mark == "gone":
            raise Declined(NOT_FOUND, "there is no prediction of this id")
        if not public.call.exposure:
            raise Declined(_OF_NO_EXPERIMENT)
        try:
            outcome = await off_loop(give_feedback, public.call.exposure, name, value)
        except FeedbackRefused as error:
            if error.is_late:
                raise Declined(_LATE, str(error)) from None
            raise
        if outcome == "kept":
            raise Declined(_KEPT, "feedback of this name is not replaced")
        shown = {"object": "feedback", "prediction": public.public_id, "name": name, "value": value, "outcome": outcome}
        await exchange.reply_json(201, shown)


def _read(body: Any) -> tuple[str, float]:
    """Return the name and the value in a body.

    Raises:
        Declined: If it is no object.
        InvalidOption: If it has other members, or of other types.
    """
    if not isinstance(body, dict):
        raise Declined(MALFORMED, "the body is to be a JSON object")
    name, value = body.get("name"), body.get("value")
    if body.keys() - {"name", "value"} or not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidOption(f"feedback has a name of 1 to {_LONGEST_NAME} characters and a value, and nothing else")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption("the value of feedback is a number")
    return name, value


ROUTES = [Route("/v1/predictions/{prediction}/feedback", GiveFeedback(), methods=["POST"])]
