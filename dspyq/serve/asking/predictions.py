"""``POST /v1/programs/{program}/predictions``: ask a program, and wait for its answer."""

from __future__ import annotations

from typing import NamedTuple

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.celery_app.task_ids import process_task_ids
from dspyq.client.asking import process_asker
from dspyq.client.off_loop import off_loop
from dspyq.client.result import PredictionResult
from dspyq.errors import DspyqError
from dspyq.prediction.request import Request
from dspyq.serve.asking.answering import ask, call_of, trace_of, wait_for_answers
from dspyq.serve.asking.calls import build_question, check_program, most_bytes_of, read_options
from dspyq.serve.asking.idempotency import idempotency_key, note_prediction, remember
from dspyq.serve.bodies import parse_json, read_json_text
from dspyq.serve.callers import Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, Headers, exchange_of
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.lookup import look_up
from dspyq.serve.predictions.naming import name_call, resolve
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.predictions.resources import RETRY_LATER, reply_standing, state_unfinished
from dspyq.serve.problems import problem_of
from dspyq.serve.streams.events import reply_events
from dspyq.serve.waiting.preferences import read_prefer

_EVENTS = b"text/event-stream"
_REPLAYED = (b"idempotent-replayed", b"true")


class Posted(NamedTuple):
    """A request for a prediction, checked.

    Attributes:
        caller: The caller.
        body: The body.
        request: The question.
        priority: Its turn.
        wait_seconds: How long its caller waits for the answer.
        headers: Headers of the response.
        streams: Whether the answer is to come as a stream.
    """

    caller: Caller
    body: bytes
    request: Request
    priority: int
    wait_seconds: float
    headers: Headers
    streams: bool = False


class AskForPrediction:
    """The endpoint, as a plain ASGI callable: an answer from memory takes it microseconds."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send  # those of its exchange
        exchange = exchange_of(scope)
        posted = await _read(exchange)
        with trace_of(exchange):
            if (stated := idempotency_key(exchange)) is not None:
                await _answer_once(exchange, posted, stated)
            elif (found := process_asker().find(posted.request)) is not None:
                await _reply_from_memory(exchange, posted, found)
            else:
                await _answer(exchange, posted, process_task_ids().make())


async def _read(exchange: Exchange) -> Posted:
    """Read a request."""
    caller = await recognized(exchange, "predict")
    program = check_program(caller, exchange.scope["path_params"]["program"])
    body = await read_json_text(exchange, most_bytes_of(exchange, program))
    value = parse_json(body)
    options = read_options(value, caller)
    if not options.streams and _EVENTS in exchange.headers.get(b"accept", b""):
        caller.check("stream")
        options = options._replace(streams=True)
    preference = read_prefer(exchange.headers.get(b"prefer"), exchange.door.serve.wait_seconds)
    request = build_question(value.get("inputs"), caller, program, options, exchange.request_id)
    headers: Headers = [(b"preference-applied", preference.applied.encode())] if preference.applied else []
    return Posted(caller, body, request, options.priority, preference.seconds, headers, options.streams)


async def _reply_from_memory(exchange: Exchange, posted: Posted, found: PredictionResult) -> None:
    """Answer with what this process's memory has, without rebuilding values that go out as JSON again."""
    public = name_call(exchange, posted.caller, call_of(found, process_task_ids().make()))
    if posted.streams:
        await reply_events(exchange, public, posted.caller, found)
        return
    body = exchange.door.forms.complete(public, found.payload or b"", found.request or posted.request)
    if body is None:
        await _reply_answered(exchange, public, found, posted.headers)
    else:
        await exchange.reply(200, body, posted.headers)


async def _answer(exchange: Exchange, posted: Posted, call_id: str) -> None:
    """Ask a question, and answer once it is answered, or when its caller has waited long enough."""
    with exchange.door.room.admit(posted.request.queue, posted.caller):
        handle = await ask(exchange, posted.request, posted.priority, call_id)
        public = name_call(exchange, posted.caller, call_of(handle, call_id))
        await _reply_in_time(exchange, posted, public, handle)


async def _answer_once(exchange: Exchange, posted: Posted, stated: bytes) -> None:
    """Answer a request with an ``Idempotency-Key``: the first under a key is sent, the others find its prediction."""
    with exchange.door.room.admit(posted.request.queue, posted.caller):
        call_id = process_task_ids().make()
        remembered = await off_loop(remember, exchange, posted.caller, stated, posted.body, call_id)
        call_id = remembered.call_id
        if remembered.public_id:
            public = resolve(exchange, posted.caller, remembered.public_id)
            await _replay(exchange, posted, public)
            return
        begun = CallOfPrediction.made_now(call_id, call_id, None)
        if not remembered.is_first and await _is_known(begun):
            public = name_call(exchange, posted.caller, begun)
            await off_loop(note_prediction, remembered, public.public_id)
            await _replay(exchange, posted, public)
            return
        handle = process_asker().find(posted.request) or await ask(exchange, posted.request, posted.priority, call_id)
        public = name_call(exchange, posted.caller, call_of(handle, call_id))
        await off_loop(note_prediction, remembered, public.public_id)
        await _reply_in_time(exchange, posted, public, handle)


async def _is_known(call: CallOfPrediction) -> bool:
    """Return True if a call has begun a run, whose server may have died before it was noted."""
    standing = await off_loop(look_up, call)
    return standing.has_job or standing.payload is not None


async def _replay(exchange: Exchange, posted: Posted, public: PublicCall) -> None:
    """Answer with the prediction of an earlier request, in whatever state it is."""
    posted.headers.append(_REPLAYED)
    handle = process_asker().result(public.call.task_id)
    standing = await off_loop(look_up, public.call)
    if standing.mark:
        await reply_standing(exchange, public, standing)
        return
    if standing.payload is not None:
        handle.with_answer(standing.payload)
    await _reply_in_time(exchange, posted, public, handle)


async def _reply_in_time(exchange: Exchange, posted: Posted, public: PublicCall, handle: PredictionResult) -> None:
    """Answer with a result, or with the place where it will be if it does not come in time; or with its stream."""
    if posted.streams:
        await reply_events(exchange, public, posted.caller, handle)
        return
    if await wait_for_answers(exchange, [(handle, public.call)], posted.wait_seconds):
        await _reply_answered(exchange, public, handle, posted.headers)
        return
    queue = posted.request.queue
    if posted.wait_seconds and not exchange.door.is_ending:
        shown = await state_unfinished(public, queue)
    else:
        shown = rendering.unfinished(public, "queued", queue)
    place = (b"location", public.path.encode())
    await exchange.reply_json(202, shown, [*posted.headers, place, RETRY_LATER])


async def _reply_answered(exchange: Exchange, public: PublicCall, handle: PredictionResult, headers: Headers) -> None:
    """Answer with a result that has come: the prediction, or the problem that it failed with."""
    try:
        prediction = handle.get(disable_sync_subtasks=False)
    except DspyqError as error:
        shows_errors = exchange.door.serve.show_errors
        await exchange.reply_problem(problem_of(error, shows_errors=shows_errors, prediction=public.public_id))
        return
    shown = rendering.succeeded(public, prediction.to_dict(), prediction.metadata)
    await exchange.reply_json(200, shown, headers)


ASK = Route("/v1/programs/{program}/predictions", AskForPrediction(), methods=["POST"])
ROUTES = [ASK]
