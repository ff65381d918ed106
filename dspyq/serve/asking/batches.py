"""``POST /v1/programs/{program}/predictions:batch``: ask many questions of one program at once, in bulk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import orjson
from blake3 import blake3
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.celery_app.task_ids import process_task_ids
from dspyq.client.asking import process_asker
from dspyq.client.off_loop import off_loop, off_loop_in_time
from dspyq.client.result import PredictionResult
from dspyq.client.spread_bulk import process_bulk
from dspyq.core.ids import as_uuid
from dspyq.errors import DspyqError, InvalidInputs
from dspyq.prediction.request import Request, find_program, find_variant
from dspyq.serve.asking.answering import call_of, trace_of, wait_for_answers
from dspyq.serve.asking.calls import OPTIONS, CallOfProgram, build_row, check_program, most_bytes_of, read_options
from dspyq.serve.asking.idempotency import RememberedCall, idempotency_key, note_prediction, remember
from dspyq.serve.bodies import parse_json, read_json_text
from dspyq.serve.callers import Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, Headers, exchange_of
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.lookup import answer_of, call_key
from dspyq.serve.predictions.naming import public_call, resolve
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.problems import problem_of
from dspyq.serve.waiting.preferences import read_prefer
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import REPLY_START_LENGTH
from dspyq.store.spines import id_beside, spread

_MEMBERS = frozenset({"rows", *OPTIONS})
#: The most faults that one answer states.
_MOST_FAULTS = 100
_REPLAYED = (b"idempotent-replayed", b"true")


class PostedRows(NamedTuple):
    """A request for many predictions, checked.

    Attributes:
        caller: The caller.
        body: The body.
        requests: The questions, in the order of the rows.
        priority: The turn of all.
        wait_seconds: How long its caller waits for the answers.
        headers: Headers of the response.
    """

    caller: Caller
    body: bytes
    requests: list[Request]
    priority: int
    wait_seconds: float
    headers: Headers


class AskedRow(NamedTuple):
    """A row that was asked.

    Attributes:
        public: Its call.
        handle: Its handle.
        queue: Its variant's queue; empty where that is not known.
        is_withdrawn: Whether its caller has cancelled or deleted it since.
    """

    public: PublicCall
    handle: PredictionResult
    queue: str
    is_withdrawn: bool = False


class AskForMany:
    """The endpoint."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send  # those of its exchange
        exchange = exchange_of(scope)
        posted = await _read(exchange)
        stated = idempotency_key(exchange)  # one that cannot be used is refused, however few the rows
        with exchange.door.room.admit(posted.requests[0].queue, posted.caller):
            rows = await (_ask(exchange, posted) if stated is None else _ask_once(exchange, posted, stated))
            await wait_for_answers(exchange, [(row.handle, row.public.call) for row in rows], posted.wait_seconds)
        body = await off_loop(_state_all, rows, shows_errors=exchange.door.serve.show_errors)
        await exchange.reply(200, body, posted.headers)


async def _read(exchange: Exchange) -> PostedRows:
    """Read a request; its rows are checked off the event loop, which they would hold up."""
    caller = await recognized(exchange, "batch")
    program = check_program(caller, exchange.scope["path_params"]["program"])
    body = await read_json_text(exchange, most_bytes_of(exchange, program))
    value = parse_json(body)
    options = read_options(value, caller, _MEMBERS)
    if options.variant is not None:  # here, as there may be no row that is checked with it
        find_variant(find_program(program), options.variant)
    rows = _checked_rows(value.get("rows"), exchange.door.serve.max_rows)
    preference = read_prefer(exchange.headers.get(b"prefer"), exchange.door.serve.wait_seconds)
    call = CallOfProgram(program, options, exchange.request_id)
    requests = await off_loop(_build, rows, caller, call)
    headers: Headers = [(b"preference-applied", preference.applied.encode())] if preference.applied else []
    return PostedRows(caller, body, requests, options.priority, preference.seconds, headers)


def _checked_rows(rows: Any, most_rows: int) -> list[Any]:
    """Return the rows of a body.

    Raises:
        InvalidInputs: If they are no list, or too many.
    """
    fault = ""
    if not isinstance(rows, list) or not rows:
        fault = "is to be a list of objects with the program's input fields"
    elif len(rows) > most_rows:
        fault = f"has {len(rows):,} rows; it may have {most_rows:,} (serve.max_rows)"
    if fault:
        raise _faulty(f"rows {fault}", [("/rows", fault)])
    return list(rows)


def _build(rows: Sequence[Any], caller: Caller, call: CallOfProgram) -> list[Request]:
    """Return rows as questions.

    Raises:
        InvalidInputs: With the faults of all rows, or of the first that have many.
        InvalidRequest: If one can never be served for another reason.
    """
    requests: list[Request] = []
    faults: list[tuple[str, str]] = []
    for index, inputs in enumerate(rows):
        place = f"/rows/{index}"
        try:
            requests.append(build_row(inputs, place, caller, call))
        except InvalidInputs as error:
            faults += error.faults or [(place, str(error))]
            if len(faults) >= _MOST_FAULTS:
                break
    if faults:
        raise _faulty("rows do not match the program; nothing was asked", faults[:_MOST_FAULTS])
    return requests


def _faulty(text: str, faults: Sequence[tuple[str, str]]) -> InvalidInputs:
    error = InvalidInputs(text)
    error.faults = tuple(faults)
    return error


async def _ask(exchange: Exchange, posted: PostedRows, call_ids: Sequence[str] = ()) -> list[AskedRow]:
    """Ask all rows.

    Args:
        exchange: The request.
        posted: The rows.
        call_ids: The names of their calls, should they begin tasks; new ones where left out.

    Raises:
        RedisUnavailable: If Redis does not answer in time; what was asked is withdrawn, or goes on for the next try.
    """
    ids = call_ids or [process_task_ids().make() for _ in posted.requests]
    with trace_of(exchange):
        handles = await off_loop_in_time(
            process_asker().ask_many, _withdraw_all, posted.requests, posted.priority, list(ids)
        )
    return [
        AskedRow(public_call(exchange, posted.caller, call_of(handle, call_id)), handle, request.queue)
        for handle, call_id, request in zip(handles, ids, posted.requests, strict=True)
    ]


def _withdraw_all(handles: Sequence[PredictionResult]) -> None:
    for handle in handles:
        handle.cancel()


async def _ask_once(exchange: Exchange, posted: PostedRows, stated: bytes) -> list[AskedRow]:
    """Ask rows with an ``Idempotency-Key``: that of the first under a key, others find its predictions."""
    first_id = process_task_ids().make()
    remembered = await off_loop(remember, exchange, posted.caller, stated, posted.body, first_id)
    if remembered.public_id:
        posted.headers.append(_REPLAYED)
        publics = [resolve(exchange, posted.caller, each) for each in remembered.public_id.split()]
        return await off_loop(_find_again, publics)
    ids = _ids(remembered, posted.requests)
    if remembered.is_first:
        rows = await _ask(exchange, posted, ids)
    else:
        rows = await _ask_rest(exchange, posted, ids)
    await off_loop(note_prediction, remembered, " ".join(row.public.public_id for row in rows))
    return rows


async def _ask_rest(exchange: Exchange, posted: PostedRows, ids: Sequence[str]) -> list[AskedRow]:
    """Ask what a server that died has not: rows that have begun under their names are not begun again."""
    posted.headers.append(_REPLAYED)
    stored = await off_loop(_collect, ids)
    left = [index for index, payload in enumerate(stored) if payload is None]
    requests = [posted.requests[index] for index in left]
    asked = await _ask(exchange, posted._replace(requests=requests), [ids[index] for index in left]) if left else []
    rest = iter(asked)
    rows: list[AskedRow] = []
    for request, task_id, payload in zip(posted.requests, ids, stored, strict=True):
        if payload is None:
            rows.append(next(rest))
            continue
        handle = process_asker().result(task_id).with_answer(payload)
        rows.append(AskedRow(public_call(exchange, posted.caller, call_of(handle, task_id)), handle, request.queue))
    return rows


def _ids(remembered: RememberedCall, requests: Sequence[Request]) -> list[str]:
    """Return the names of a request's calls: the same each time that it is repeated."""
    name = remembered.call_id
    start = name[:REPLY_START_LENGTH]  # answers of ids that begin alike come by one channel
    digits = (blake3(f"{name} {index}".encode()).hexdigest(length=16) for index in range(len(requests)))
    ids = [start + as_uuid(each)[REPLY_START_LENGTH:] for each in digits]
    return [id_beside(request.input_hash, each) for request, each in zip(requests, ids, strict=True)]


def _collect(task_ids: Sequence[str]) -> list[bytes | None]:
    with redis_errors("look the predictions up"):
        return process_bulk().collect(task_ids)


def _find_again(publics: Sequence[PublicCall]) -> list[AskedRow]:
    """Return the rows of an earlier request, in whatever state they are, in two round trips."""
    with redis_errors("look the predictions up"):
        task_ids = [public.call.task_id for public in publics]
        marks = spread(publics, task_ids, _read_marks)
        stored = process_bulk().collect(task_ids)
    rows: list[AskedRow] = []
    for public, mark, payload in zip(publics, marks, stored, strict=True):
        handle = process_asker().result(public.call.task_id)
        if payload is not None:
            handle.with_answer(payload)
        rows.append(AskedRow(public, handle, "", is_withdrawn=mark is not None))
    return rows


def _read_marks(publics: Sequence[PublicCall], _: Sequence[int]) -> list[bytes | None]:
    return cast("list[bytes | None]", jobs_client().mget([call_key(public.call) for public in publics]))


def _state_all(rows: Sequence[AskedRow], *, shows_errors: bool) -> bytes:
    """Return the body of the response."""
    state = functools.partial(_state, shows_errors=shows_errors)
    return orjson.dumps({"predictions": list(map(state, rows))})


def _state(row: AskedRow, *, shows_errors: bool) -> dict[str, Any]:
    """Return a row's prediction as it is now."""
    public, handle = row.public, row.handle
    if row.is_withdrawn:
        return rendering.unfinished(public, "cancelled", row.queue)
    if handle.payload is None:
        return rendering.unfinished(public, "queued", row.queue)
    answer = answer_of(handle)
    if answer is None:
        return rendering.unfinished(public, "cancelled", row.queue)
    if isinstance(answer, DspyqError):
        return rendering.failed(public, problem_of(answer, shows_errors=shows_errors).stated(), row.queue)
    return rendering.succeeded(public, answer.to_dict(), answer.metadata)


ROUTES = [Route("/v1/programs/{program}/predictions:batch", AskForMany(), methods=["POST"])]
