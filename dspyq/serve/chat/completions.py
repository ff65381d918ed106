"""Chat completions in OpenAI's form, for programs that chat: ``POST /v1/chat/completions`` and ``GET /v1/models``."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.celery_app.task_ids import process_task_ids
from dspyq.client.asking import process_asker
from dspyq.client.off_loop import off_loop
from dspyq.client.result import PredictionResult
from dspyq.config.chat import ConversationFields
from dspyq.config.settings import get_settings
from dspyq.errors import DspyqError, UnknownProgram
from dspyq.prediction.request import Request
from dspyq.serve.asking.answering import ask, call_of, trace_of, wait_for_answers
from dspyq.serve.asking.calls import build_question, check_program, read_options
from dspyq.serve.bodies import parse_json, read_json_text
from dspyq.serve.callers import Caller
from dspyq.serve.chat.replies import CANCELLED, ChatReply, error_of
from dspyq.serve.chat.requests import UNSUPPORTED, ChatRequest, inputs_of, read_chat_request
from dspyq.serve.chat.stream import ChatStream
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, Headers, exchange_of
from dspyq.serve.predictions.lookup import answer_of
from dspyq.serve.predictions.naming import name_call
from dspyq.serve.problems import Declined, ProblemKind, problem_of
from dspyq.serve.programs import visible_programs
from dspyq.serve.streams import interest
from dspyq.serve.streams.following import follow

#: OpenAI's form has no answer that comes later; the request that is repeated joins the run.
STILL_RUNNING = ProblemKind(
    503, "still-running", "The answer has not come yet: ask again", is_retryable=True, retry_after_seconds=1
)


class PostedChat(NamedTuple):
    """A chat request, checked.

    Attributes:
        caller: The caller.
        chat: The request in OpenAI's form.
        fields: The fields of the program's conversations.
        request: The question.
        priority: Its turn.
        headers: Headers of the response.
    """

    caller: Caller
    chat: ChatRequest
    fields: ConversationFields
    request: Request
    priority: int
    headers: Headers


class CompleteChat:
    """``POST /v1/chat/completions``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send  # those of its exchange
        exchange = exchange_of(scope)
        exchange.problem_form = error_of
        posted = await _read(exchange)
        call_id = process_task_ids().make()
        with trace_of(exchange), exchange.door.room.admit(posted.request.queue, posted.caller):
            handle = process_asker().find(posted.request)
            if handle is None:
                handle = await ask(exchange, posted.request, posted.priority, call_id)
            reply = ChatReply(name_call(exchange, posted.caller, call_of(handle, call_id)), posted.chat.model)
            if posted.chat.streams:
                await _stream(exchange, posted, reply, handle)
            else:
                await _reply(exchange, posted, reply, handle)


async def _read(exchange: Exchange) -> PostedChat:
    """Read a request."""
    caller = await recognized(exchange, "predict")
    body = parse_json(await read_json_text(exchange, exchange.door.serve.max_body_bytes))
    chat = read_chat_request(body)
    program = check_program(caller, chat.program)
    fields = get_settings().programs[program].chat_fields
    if fields is None:
        raise Declined(UNSUPPORTED, "the program does not chat: see programs.<name>.chat", parameter="model")
    stated = {"variant": chat.variant, "unit": chat.user, "stream": chat.streams}
    options = read_options(stated, caller)
    request = build_question(inputs_of(chat, fields), caller, program, options, exchange.request_id)
    headers: Headers = [(b"x-dspyq-ignored", ", ".join(chat.ignored).encode())] if chat.ignored else []
    return PostedChat(caller, chat, fields, request, options.priority, headers)


async def _stream(exchange: Exchange, posted: PostedChat, reply: ChatReply, handle: PredictionResult) -> None:
    """Answer with a stream, whose call is withdrawn where the client hangs up for good."""
    with exchange.door.withdrawals.watch(reply.public.call.call_id) as watched:
        owner = "" if handle.is_known else await off_loop(interest.begin_interest, reply.public.call)
        stream = ChatStream(exchange, reply, posted.fields.answer, includes_usage=posted.chat.includes_usage)
        await stream.begin(posted.headers)
        await follow(stream, handle, watched, owner=owner)


async def _reply(exchange: Exchange, posted: PostedChat, reply: ChatReply, handle: PredictionResult) -> None:
    """Answer with a whole completion.

    Raises:
        Declined: If it does not come in time.
    """
    if not await wait_for_answers(exchange, [(handle, reply.public.call)], exchange.door.serve.wait_seconds):
        raise Declined(STILL_RUNNING)
    answer = answer_of(handle)
    if answer is None:
        raise Declined(CANCELLED)
    if isinstance(answer, DspyqError):
        await exchange.reply_problem(problem_of(answer, shows_errors=exchange.door.serve.show_errors))
        return
    text = answer.outputs.get(posted.fields.answer)
    shown = reply.completion(text if isinstance(text, str) else "", answer.metadata)
    await exchange.reply_json(200, shown, posted.headers)


class ListModels:
    """``GET /v1/models``: the programs that chat, and their variants where the caller may choose one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        exchange.problem_form = error_of
        caller = await recognized(exchange)
        await exchange.reply_json(200, {"object": "list", "data": [_model(name) for name in _models(caller)]})


class ShowModel:
    """``GET /v1/models/{model}``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        exchange.problem_form = error_of
        caller = await recognized(exchange)
        name = scope["path_params"]["model"]
        if name not in _models(caller):
            raise UnknownProgram("there is no model of this name")
        await exchange.reply_json(200, _model(name))


def _models(caller: Caller) -> list[str]:
    names: list[str] = []
    for program in visible_programs(caller):
        if program.chat_fields is None:
            continue
        names.append(program.name)
        if "variant" in caller.can:
            allowed = (name for name in program.variants if caller.variants is None or name in caller.variants)
            names += [f"{program.name}:{name}" for name in allowed]
    return names


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "dspyq"}  # when it was made is not known


ROUTES = [
    Route("/v1/chat/completions", CompleteChat(), methods=["POST"]),
    Route("/v1/models", ListModels(), methods=["GET"]),
    Route("/v1/models/{model}", ShowModel(), methods=["GET"]),
]
