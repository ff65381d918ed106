"""Streams of predictions as server-sent events: ``GET /v1/predictions/{prediction}/events``, and streamed POSTs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import orjson
from celery.exceptions import TaskRevokedError
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.client.asking import process_asker
from dspyq.client.off_loop import off_loop
from dspyq.client.result import PredictionResult
from dspyq.client.streaming import Listener
from dspyq.errors import DspyqError, InvalidOption
from dspyq.serve.callers import CHALLENGE, Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.lookup import look_up, read_answer
from dspyq.serve.predictions.naming import events_path, resolve
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.problems import GONE, NOT_FOUND, UNAUTHENTICATED, Declined, problem_of
from dspyq.serve.streams import interest
from dspyq.serve.streams.following import SSE_HEADERS, follow
from dspyq.serve.streams.tokens import read_token
from dspyq.serve.streams.withdrawals import WatchedCall
from dspyq.streaming.chunks import Chunk

_RETRY = b"retry: 2000\n\n"
_HEARTBEAT = b": heartbeat\n\n"


class ListenToPrediction:
    """``GET /v1/predictions/{prediction}/events``: from the start of its text on, or from a place in it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        public_id = scope["path_params"]["prediction"]
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        caller = await _caller(exchange, public_id, query.get("token"))
        public = resolve(exchange, caller, public_id)
        after = _read_place(exchange.headers.get(b"last-event-id"), query.get("after"))
        with exchange.door.withdrawals.watch(public.call.call_id) as watched:
            await self._reply(exchange, public, caller, after, watched)

    async def _reply(
        self, exchange: Exchange, public: PublicCall, caller: Caller, after: int, watched: WatchedCall
    ) -> None:
        """Answer with a stream, or with that of a prediction that has ended.

        Raises:
            Declined: With 404 for a prediction that its caller deleted, with 410 for one that is no longer kept.
        """
        standing = await off_loop(look_up, public.call)
        if standing.mark == "gone":
            raise Declined(NOT_FOUND, "there is no prediction of this id")
        if standing.payload is None and not standing.has_job and not standing.mark:
            raise Declined(GONE, "the answer is no longer kept: ask again")
        with exchange.door.room.admit(standing.queue, caller):
            owner = "" if standing.mark else await off_loop(interest.take_over, public.call)
            stream = EventStream(exchange, public, caller, standing.queue)
            await stream.begin("running" if standing.is_running else "queued", standing.waits_for)
            if standing.mark:
                await stream.cancel()
                return
            job = process_asker().result(public.call.task_id)
            del standing  # a stream may take long
            await follow(stream, job, watched, after=after, owner=owner)


async def reply_events(exchange: Exchange, public: PublicCall, caller: Caller, job: PredictionResult) -> None:
    """Answer a request for a prediction with its stream.

    Args:
        exchange: The request.
        public: The call.
        caller: The caller.
        job: The handle.
    """
    with exchange.door.withdrawals.watch(public.call.call_id) as watched:
        owner = "" if job.is_known else await off_loop(interest.begin_interest, public.call)
        stream = EventStream(exchange, public, caller, job.request.queue if job.request else "")
        await stream.begin("running" if job.is_known else "queued")
        await follow(stream, job, watched, owner=owner)


class EventStream:
    """The events of one response.

    Args:
        exchange: The request.
        public: The call.
        caller: The caller.
        queue: The call's queue; empty where that is not known.
    """

    __slots__ = ("_caller", "_queue", "exchange", "is_over", "public")

    def __init__(self, exchange: Exchange, public: PublicCall, caller: Caller, queue: str) -> None:
        self.exchange = exchange
        self.public = public
        self.is_over = False
        self._caller = caller
        self._queue = queue

    async def begin(self, status: str, waits_for: str | None = None) -> None:
        """Begin the response with the status of the prediction, and where the stream goes on if it breaks.

        Args:
            status: The status.
            waits_for: The guard that holds it up; None for none.
        """
        held = {} if waits_for is None else {"waits_for": waits_for}
        await self.exchange.outlet({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
        await self._send(_RETRY + self._status({"status": status, "id": self.public.public_id, **held}))

    async def send(self, chunks: Iterable[Chunk], after: int) -> None:
        """Send chunks, those of them that stand behind a place in the log."""
        text = b"".join(self._event_of(chunk) for chunk in chunks if chunk.offset > after)
        if text:
            await self._send(text)

    async def _send_rest(self, chunks: Iterable[Chunk]) -> None:
        """Send the chunks that stand in no log."""
        await self._send(b"".join(self._event_of(chunk, has_place=False) for chunk in chunks))

    async def beat(self) -> None:
        """Send a sign of life: proxies close connections that are silent."""
        await self._send(_HEARTBEAT)

    async def end(self, name: str, data: Any) -> None:
        """Send the last event."""
        await self._send(_event(name, data))
        await self.exchange.outlet({"type": "http.response.body", "body": b""})

    async def complete(self, job: PredictionResult, listener: Listener, after: int) -> None:
        """Send the rest of the texts, and the outcome."""
        exchange, public = self.exchange, self.public
        try:
            rest = list(listener.complete())
        except TaskRevokedError:
            await self.cancel()
            return
        except Exception as error:  # noqa: BLE001 - whatever a program raised, as its worker stored it
            shown = error if isinstance(error, DspyqError) else DspyqError(type(error).__name__)
            problem = problem_of(shown, shows_errors=exchange.door.serve.show_errors, prediction=public.public_id)
            await self.end("failed", problem.stated(exchange.request_id))
            return
        if after > listener.position:  # its log has expired: the client has texts that are not known here
            fields = {chunk.field for chunk in rest if chunk.field}
            rest = [*(Chunk("reset", field, "answer") for field in fields), *rest]
        await self._send_rest(rest)
        answer = job.get(disable_sync_subtasks=False)
        if job.request is None and job.payload is not None:
            seen = read_answer(public.call, job.payload)
            answer = answer if seen is None or isinstance(seen, DspyqError) else seen
        await self.end("completed", rendering.succeeded(public, answer.to_dict(), answer.metadata))

    async def cancel(self) -> None:
        """End where the call was cancelled."""
        await self.end("cancelled", rendering.unfinished(self.public, "cancelled", self._queue))

    async def break_off(self, position: int) -> None:
        """End where the server ends: the client goes on at another."""
        await self.end("reconnect", {"after": position})

    async def _send(self, text: bytes) -> None:
        await self.exchange.outlet({"type": "http.response.body", "body": text, "more_body": True})

    def _event_of(self, chunk: Chunk, *, has_place: bool = True) -> bytes:
        place = chunk.offset if has_place else None
        match chunk.kind:
            case "delta":
                return _event("delta", {"field": chunk.field, "text": chunk.text}, place)
            case "reset":
                return _event("reset", {"fields": [chunk.field], "why": chunk.text}, place)
            case "status" if chunk.field == "run":
                return self._status({"status": chunk.text}, place)
            case "status":
                return self._status({"status": chunk.field, "name": chunk.text}, place)
            case _:
                return b""  # the prediction itself follows

    def _status(self, data: dict[str, Any], place: int | None = None) -> bytes:
        """Return a status event, with a new token: an old one may have expired when the client comes back."""
        return _event("status", data | {"events": events_path(self.exchange, self._caller, self.public)}, place)


def _event(name: str, data: Any, place: int | None = None) -> bytes:
    """Return an event; JSON has no line ends, so that no text can begin another event."""
    head = b"" if place is None else b"id: %d\n" % place
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), orjson.dumps(data))


async def _caller(exchange: Exchange, public_id: str, tokens: list[str] | None) -> Caller:
    """Return the caller of a request: by the token of the stream, or by its key.

    Raises:
        Declined: With 401 or 403.
    """
    if not tokens:
        return await recognized(exchange, "stream")
    tenant = read_token(tokens[-1], public_id, exchange.door.signing_key())
    if tenant is None:
        raise Declined(
            UNAUTHENTICATED, "the token of this stream has expired, or is another stream's", headers=CHALLENGE
        )
    exchange.caller = Caller(tenant=tenant)
    return exchange.caller


def _read_place(header: bytes | None, parameters: list[str] | None) -> int:
    """Return the place in a log that a client has all before; 0 for none.

    Raises:
        InvalidOption: If it states none that there can be.
    """
    stated = [text for text in ((header or b"").decode("latin-1"), *(parameters or ())) if text]
    for text in stated:
        if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_PLACE):
            raise InvalidOption("Last-Event-ID, and the parameter after, are ids of events of this stream")
    return int(stated[0 if header else -1]) if stated else 0


_LONGEST_PLACE = 12
ROUTES = [Route("/v1/predictions/{prediction}/events", ListenToPrediction(), methods=["GET"])]
