"""Streams in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from celery.exceptions import TaskRevokedError

from dspyq.client.result import PredictionResult
from dspyq.client.streaming import Listener
from dspyq.errors import DspyqError
from dspyq.serve.chat.replies import CANCELLED, ChatReply, error_of, finish_reason
from dspyq.serve.exchange import Exchange, Headers
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.problems import ENDING, Declined, ProblemKind, problem_of
from dspyq.serve.streams.following import SSE_HEADERS
from dspyq.streaming.chunks import Chunk

_RESTARTED = ProblemKind(502, "stream-restarted", "The reply began anew: ask again", is_retryable=True)

_HEARTBEAT = b": heartbeat\n\n"
_DONE = b"data: [DONE]\n\n"


class ChatStream:
    """The chunks of one response.

    OpenAI's form has no reset. Text that begins anew goes on silently where it has the sent text as its beginning; else
    an error ends the stream.

    Args:
        exchange: The request.
        reply: What its chunks have in common.
        answer: The output whose text is streamed.
        includes_usage: Whether the usage comes last.
    """

    def __init__(self, exchange: Exchange, reply: ChatReply, answer: str, *, includes_usage: bool) -> None:
        self.exchange = exchange
        self.public: PublicCall = reply.public
        self.is_over = False
        self._reply = reply
        self._answer = answer
        self._includes_usage = includes_usage
        self._sent = ""
        self._text = ""

    async def begin(self, headers: Headers) -> None:
        """Begin the response with the role of the message."""
        start = {"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS, *headers]}
        await self.exchange.outlet(start)
        await self._send(_data(self._reply.chunk({"role": "assistant", "content": ""})))

    async def send(self, chunks: Iterable[Chunk], after: int = 0) -> None:
        """Send the text that has come."""
        del after  # this form cannot be resumed
        for chunk in chunks:
            if chunk.field == self._answer and chunk.kind in {"delta", "reset"}:
                self._text = self._text + chunk.text if chunk.kind == "delta" else ""
        if self._text.startswith(self._sent):
            added, self._sent = self._text[len(self._sent) :], self._text
            if added:
                await self._send(_data(self._reply.chunk({"content": added})))
        elif not self._sent.startswith(self._text):
            await self._fail(Declined(_RESTARTED))

    async def beat(self) -> None:
        """Send a sign of life: proxies close connections that are silent."""
        await self._send(_HEARTBEAT)

    async def complete(self, job: PredictionResult, listener: Listener, after: int) -> None:
        """Send the rest of the text, and the reason for which it ended."""
        del after
        try:
            rest = list(listener.complete())
        except TaskRevokedError:
            await self.cancel()
            return
        except Exception as error:  # noqa: BLE001 - whatever a program raised, as its worker stored it
            await self._fail(error if isinstance(error, DspyqError) else DspyqError(type(error).__name__))
            return
        prediction = job.get(disable_sync_subtasks=False)
        text = self._text_of(prediction.outputs)  # also where the program does not stream this output
        await self.send([*rest, Chunk("reset", self._answer), Chunk("delta", self._answer, text)])
        if self.is_over:
            return
        ends = _data(self._reply.chunk({}, finish_reason(prediction.metadata)))
        if self._includes_usage:
            ends += _data(self._reply.usage_chunk(prediction.metadata))
        await self._end(ends + _DONE)

    async def cancel(self) -> None:
        """End where the call was cancelled."""
        await self._fail(Declined(CANCELLED))

    async def break_off(self, position: int) -> None:
        """End where the server ends: a repeated request joins the run."""
        del position
        await self._fail(Declined(ENDING))

    def _text_of(self, outputs: Mapping[str, Any]) -> str:
        value = outputs.get(self._answer)
        return value if isinstance(value, str) else ""

    async def _fail(self, error: Exception) -> None:
        shows_errors = self.exchange.door.serve.show_errors
        await self._end(_data(error_of(problem_of(error, shows_errors=shows_errors))))

    async def _end(self, text: bytes) -> None:
        self.is_over = True
        await self._send(text)
        await self.exchange.outlet({"type": "http.response.body", "body": b""})

    async def _send(self, text: bytes) -> None:
        await self.exchange.outlet({"type": "http.response.body", "body": text, "more_body": True})


def _data(value: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)
